"""Hands each message to the ClientApp installed here: `python -m client.flower.executor`, started by the daemon.

In place of Flower's executor, which would install the run's bundle and run it in a new process for every message.
This one lives on, with the network and the data warm; it looks at the bundle's digest and at nothing else of it;
and whatever happens, what leaves is one of our replies: an exception's text cannot.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
from flwr.app import Context, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import SubStatus
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TASK_TOKEN_HEADER, TaskType
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime import run_clientapp
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from client import egress, logs, state
from shared import bundle, flat
from shared.errors import InsituError, RefusalCode
from shared.processes import Orders

log = logging.getLogger(__name__)

# A message can be there before its pieces are. Flower looks again after a second.
run_clientapp.pull_and_inflate_object_from_tree = functools.partial(  # type: ignore[attr-defined]
    run_clientapp.pull_and_inflate_object_from_tree,  # type: ignore[attr-defined]
    initial_backoff=0.02,
    backoff_cap=1.0,
)

ClientApp = Callable[[Message, Context], Message]

_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_HEARTBEAT_SECONDS = 15.0  # a task unheard of for 60 is given up by the SuperNode
_TIMEOUT_SECONDS = 60.0


class TaskToken:
    """Signs requests as the task at hand, so that one client, and its open connection, serves all tasks."""

    def __init__(self) -> None:
        self.value: str | None = None

    def intercept(self, context: Any, call_next: Callable[[Any], httpx.Response]) -> httpx.Response:
        """Add the token to what is not the question for a task."""
        if self.value is not None and context.rpc_method != _ACQUIRE:
            context.request.headers[TASK_TOKEN_HEADER] = self.value
        return call_next(context)


class Patient(RuntimeHttpClient):
    """Speaks to the SuperNode, and waits for a message whose task was taken before Flower had stored it.

    Args:
        address: host:port, or the path of a socket.
        interceptors: of every request.
    """

    _TRIES = 500

    def __init__(self, address: str, *, interceptors: Sequence[Any] = ()) -> None:
        path = address if address.startswith("/") else None
        super().__init__(f"http://{'supernode' if path else address}", interceptors=interceptors, verify=False)
        self._client.close()
        # To nobody else: past any proxy that the environment names, and after no redirection. Plain HTTP within the
        # machine: there is nothing to verify.
        transport = httpx.HTTPTransport(uds=path, verify=False, trust_env=False)
        self._client = httpx.Client(transport=transport, trust_env=False, timeout=_TIMEOUT_SECONDS)

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:  # noqa: N802 -- Flower's name
        """The message of the task."""
        for _ in range(self._TRIES):
            response = super().PullMessages(request)
            if response.messages_list:
                break
            time.sleep(0.01)
        return response


class Executor:
    """Answers messages, one at a time, until the process ends.

    Args:
        app: the ClientApp.
        address: of the SuperNode's runtime interface: host:port on loopback, or the path of its socket.
        secret: shared with the SuperNode.
        home: the site's, which the app finds in the context's `node_config`.
    """

    def __init__(self, app: ClientApp, *, address: str, secret: bytes, home: Path) -> None:
        self._app = app
        self._home = home
        self._token = TaskToken()
        self._client = Patient(
            address,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
                SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=frozenset({_ACQUIRE})),
                self._token,
            ],
        )
        self._facts: dict[str, Any] = {
            "pid": os.getpid(),
            "ready": True,
            "working": None,
            "last": state.read(home, "executor").get("last"),
        }
        self._say()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def run(self) -> None:
        """Answer for ever. A SuperNode that is not there is waited for."""
        self._answer_for_the_last()
        while True:
            try:
                self.answer_one()  # the SuperNode holds the question while there is nothing to answer
            except httpx.HTTPError as error:
                log.warning("the SuperNode does not answer (%s)", type(error).__name__)
                time.sleep(0.5)
            except Exception:
                log.exception("a message was lost")
                time.sleep(0.5)

    def answer_one(self) -> bool:
        """Answer one message, if there is one.

        Raises:
            httpx.HTTPError: if the SuperNode cannot be reached, refuses, or does not know the task any more.
        """
        response = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
        if not response.token:
            return False
        self._token.value = response.token
        try:
            self._answer()
        finally:
            self._token.value = None
            self._facts["working"] = None
            self._say()
            state.forget(self._home, "unanswered")
        return True

    def _answer_for_the_last(self) -> None:
        """Refuse what the executor before this one died of, so that nobody waits a minute for its lease to end."""
        left = state.read(self._home, "unanswered")
        if not left:
            return
        log.warning("the executor before this one ended while it answered a message: that one is refused")
        try:
            message = message_from_proto(MessageProto.FromString(base64.b64decode(left["message"])))
            self._token.value = left["token"]
            self._push(egress.packed(egress.refusal(RefusalCode.FAILED)), message)
        except Exception as error:
            log.warning("it is too late for that (%s)", type(error).__name__)
        finally:
            self._token.value = None
            state.forget(self._home, "unanswered")

    def _answer(self) -> None:
        message, context, _, fab = pull_task_input(self._client)
        facts = {"type": message.metadata.message_type, "round": message.metadata.group_id, "since": time.time()}
        self._facts["working"] = facts
        self._say()
        state.write(self._home, "unanswered", {"token": self._token.value, "message": _as_text(message)})
        self._push(self._content(message, context, fab.content), message)
        self._facts["last"] = {**facts, "until": time.time()}

    def _push(self, content: RecordDict, message: Message) -> None:
        metadata = message.metadata
        nobody = Context(metadata.run_id, metadata.dst_node_id, node_config={}, state=RecordDict(), run_config={})
        push_message(self._client, Message(flat.flatten(content), reply_to=message), nobody)
        # Flower would keep the context; nothing durable belongs there.
        push_task_output(self._client, None, SubStatus.COMPLETED, "")

    def _content(self, message: Message, context: Context, fab: bytes) -> RecordDict:
        """What the site answers: the app's reply, or a refusal code whatever goes wrong."""
        if hashlib.sha256(fab).hexdigest() != bundle.DIGEST:
            log.warning("a run came with a bundle that is not ours: refused")
            return egress.packed(egress.refusal(RefusalCode.PROTOCOL))
        try:
            content = flat.restore(message.content)
        except ValueError as error:
            log.warning("a message is malformed: %s", error)
            return egress.packed(egress.refusal(RefusalCode.MALFORMED))
        try:
            message.content = content
            reply = self._app(message, self._own(context))
            if reply.has_error():
                raise InsituError("the ClientApp answered with an error")
            return reply.content
        except Exception:
            log.exception("the ClientApp failed")
            return egress.packed(egress.refusal(RefusalCode.FAILED))

    def _own(self, context: Context) -> Context:
        """A context that says what this process knows, and nothing that the coordinator wrote."""
        return Context(
            run_id=context.run_id,
            node_id=context.node_id,
            node_config={"home": str(self._home)},
            state=RecordDict(),
            run_config={},
        )

    def _beat(self) -> None:
        while True:
            time.sleep(_HEARTBEAT_SECONDS)
            if self._token.value is None:
                continue
            try:
                self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
            except Exception as error:
                # What is being trained is finished all the same: its privacy is spent, and its reply is kept.
                log.warning("the SuperNode does not know of the message being answered (%s)", type(error).__name__)

    def _say(self) -> None:
        state.write(self._home, "executor", self._facts)


def _as_text(message: Message) -> str:
    """Whose message it is and what it replies to, without what is in it."""
    proto = message_to_proto(remove_content_from_message(message))
    return base64.b64encode(proto.SerializeToString()).decode()


def load(name: str) -> ClientApp:
    """The object called `module:attribute`, from what is installed here."""
    module, _, attribute = name.partition(":")
    app: ClientApp = getattr(importlib.import_module(module), attribute)
    return app


def main() -> None:
    """Run until told to end, or until the daemon ends."""
    instructions = Orders().next()
    home = Path(instructions["home"])
    logs.of_process(home / "log" / "executor.log")
    executor = Executor(
        load(instructions["app"]),
        address=instructions["address"],
        secret=bytes.fromhex(instructions["secret"]),
        home=home,
    )
    executor.run()


if __name__ == "__main__":
    main()
