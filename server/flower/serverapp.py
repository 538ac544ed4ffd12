"""One run's own process: `python -m server.flower.serverapp`, started by the coordinator.

It runs the ServerApp that is installed here over Flower's grid, made lighter: messages go in few pieces, replies are
taken in one at a time so that memory does not grow with the number of sites, and waiting costs little.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.common.serde import run_from_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.runtime_pb2 import (
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PullTaskInputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.serverapp import Grid
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.logger import update_console_handler
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid, http_grid

from shared import flat
from shared.errors import InsituError
from shared.processes import Orders, write_to

log = logging.getLogger(__name__)

ServerApp = Callable[[Grid, Context], None]

# A reply can be there before its pieces are. Flower looks again after a second.
http_grid.pull_objects = functools.partial(  # type: ignore[attr-defined]
    http_grid.pull_objects,  # type: ignore[attr-defined]
    initial_backoff=0.02,
    backoff_cap=1.0,
)

_HEARTBEAT_SECONDS = 15.0  # a run unheard of for 60 is given up by the SuperLink
_TIMEOUT_SECONDS = 60.0


class OneAtATime(RuntimeHttpClient):
    """Asks for all replies that are there, and hands them on one by one, to be fetched when it is their turn."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._arrived: deque[tuple[MessageProto, ObjectTree]] = deque()

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:  # noqa: N802 -- Flower's name
        """One reply to one of these messages, or none; one to a message that nobody asks for any more is dropped."""
        wanted = set(request.message_ids)
        if not any(self._answers(message, wanted) for message, _ in self._arrived):
            response = super().PullMessages(request)
            self._arrived.extend(zip(response.messages_list, response.message_object_trees, strict=True))
        while self._arrived:
            message, tree = self._arrived.popleft()
            if self._answers(message, wanted):
                return PullAppMessagesResponse(messages_list=[message], message_object_trees=[tree])
        return PullAppMessagesResponse()

    @staticmethod
    def _answers(message: MessageProto, wanted: set[str]) -> bool:
        return message.metadata.reply_to_message_id in wanted


class WaitingGrid(HttpGrid):
    """Flower's grid over the coordinator's loopback listener.

    `pull_messages` returns at most one reply; where there is none it takes up to a second (the coordinator holds it).
    """

    def __init__(self, address: str, token: str) -> None:
        super().__init__(runtime_api_address=address, insecure=True, token=token)

    def _connect(self) -> None:
        self._client = OneAtATime(
            f"http://{self._addr}",
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
                RuntimeTokenHttpInterceptor(self._token),
            ],
            verify=False,  # plain HTTP on loopback: there is nothing to verify
            timeout=_TIMEOUT_SECONDS,
            retry_invoker=self._retry_invoker,
        )

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send; what several sites get alike is flattened, and sent to the SuperLink, once."""
        flattened: dict[int, RecordDict] = {}
        sent = []
        for message in messages:
            content = message.content
            if id(content) not in flattened:
                flattened[id(content)] = flat.flatten(content)
            sent.append(_with_content(message, flattened[id(content)]))
        return super().push_messages(sent)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The next reply to any of these messages, if there is one."""
        replies = list(super().pull_messages(message_ids))
        for reply in replies:
            if reply.has_content():
                reply.content = _restored(reply.content)
        return replies

    def identify(self) -> tuple[int, int]:
        """Take up the run this process was started for; its Flower id, and the id that stands for the coordinator."""
        response = self._runtime_client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id = response.task_id
        TaskIdentity.run_id = response.run.run_id
        TaskIdentity.node_id = response.context.node_id
        self.set_run(run_from_proto(response.run))
        return response.run.run_id, response.context.node_id

    def beat(self) -> None:
        """Tell the SuperLink for ever that the run is alive."""
        while True:
            try:
                self._runtime_client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
            except Exception as error:
                log.warning("the coordinator does not take the heartbeat (%s)", type(error).__name__)
            time.sleep(_HEARTBEAT_SECONDS)


def _with_content(message: Message, content: RecordDict) -> Message:
    metadata = message.metadata
    return Message(
        content,
        dst_node_id=metadata.dst_node_id,
        message_type=metadata.message_type,
        ttl=metadata.ttl,
        group_id=metadata.group_id,
    )


def _restored(content: RecordDict) -> RecordDict:
    try:
        return flat.restore(content)
    except ValueError as error:
        # Nothing of it is a message of ours: the round loop finds that this reply does not count.
        log.warning("a site's reply is malformed: %s", error)
        return RecordDict()


def run(app: ServerApp, *, address: str, token: str, config: dict[str, str]) -> None:
    """Conduct one run.

    Args:
        app: the ServerApp; called with a grid and a context.
        address: host:port of the coordinator's loopback listener.
        token: of the run.
        config: the context's `run_config`.
    """
    grid = WaitingGrid(address, token)
    run_id, node_id = grid.identify()
    threading.Thread(target=grid.beat, name="heartbeat", daemon=True).start()
    context = Context(run_id=run_id, node_id=node_id, node_config={}, state=RecordDict(), run_config=dict(config))
    try:
        app(grid, context)
    finally:
        grid.close()


def main() -> None:
    """Make ready, wait for a run, conduct it; end when it ends, or when the coordinator does."""
    orders = Orders()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("httpx", "flwr"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    update_console_handler(level=logging.WARNING, timestamps=True, colored=False)
    preparation = orders.next()
    module, _, attribute = preparation["app"].partition(":")
    # What takes seconds is done before there is a run that would wait for it.
    app: ServerApp = getattr(importlib.import_module(module), attribute)
    for library in preparation["libraries"]:
        importlib.import_module(library)
    instructions = orders.next()
    write_to(Path(instructions["log"]))
    try:
        run(app, address=instructions["address"], token=instructions["token"], config=instructions["config"])
    except InsituError as error:
        log.error("%s", error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
