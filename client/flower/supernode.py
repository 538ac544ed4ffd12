"""Flower's SuperNode, a process of its own: `python -m client.flower.supernode`, started by client.carrier's keeper.

What is ours: it listens on a socket that is bound already, to loopback or in the file system; it does not sleep three
seconds between two questions, which the coordinator holds instead; and it says how it stands in a file.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from flwr.common.constant import Status, SubStatus
from flwr.supercore.logger import FLOWER_LOGGER, update_console_handler
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode import start_client_internal as loop
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeState, NodeStateFactory

from client import state
from shared import identity
from shared.holding import Holding
from shared.processes import Orders

_SAY_EVERY_SECONDS = 5.0


class Standing:
    """What `insitu-client status` says of the connection; written when it changes, and now and then."""

    def __init__(self, home: Path, pid: int) -> None:
        self._home = home
        self._facts: dict[str, Any] = {"pid": pid, "contact": None, "problem": None}
        self._said = 0.0

    def contact(self) -> None:
        """The coordinator has answered."""
        news = self._facts["contact"] is None or self._facts["problem"] is not None
        self._facts.update(contact=time.time(), problem=None)
        if news or time.monotonic() - self._said > _SAY_EVERY_SECONDS:
            self._say()

    def problem(self, what: str) -> None:
        """The coordinator has not answered, and why."""
        if self._facts["problem"] != what:
            self._facts["problem"] = what
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        state.write(self._home, "supernode", self._facts)


class Gate:
    """News of messages, for the executor that asks for a task: it is let in once a message is here as a whole."""

    _LOOK_EVERY_SECONDS = 0.01

    def __init__(self) -> None:
        self._here = False
        self._taken_early = False

    def open(self) -> None:
        """A message is here; called in Flower's loop, which brings one at a time."""
        self._here = not self._taken_early
        self._taken_early = False

    def mark(self) -> int:
        """Nothing to remember: it is open or it is not."""
        return 0

    async def after(self, mark: int) -> None:
        """Return once a message is here. It comes from another thread, and a look costs next to nothing."""
        while not self._here:
            await asyncio.sleep(self._LOOK_EVERY_SECONDS)

    def asked(self, *, empty: bool) -> None:
        """Closed again. The message may have been taken a moment before `open` was called for it."""
        self._taken_early = not empty and not self._here
        self._here = False


class Clock:
    """Stands in for the module `time` in Flower's loop, whose only use of it is to sleep.

    It sleeps three seconds where the coordinator had nothing, which has held the question for a second already; and
    half a second at a time while a reply is awaited from the executor, which is in the same machine.
    """

    def sleep(self, seconds: float) -> None:
        """Sleep, but not as long as Flower says."""
        time.sleep(0.05 if seconds > 1 else 0.01)


class _Listener(logging.Handler):
    """Turns what Flower logs about the connection into what a person at the hospital can act on."""

    def __init__(self, standing: Standing) -> None:
        super().__init__(logging.WARNING)
        self._standing = standing

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        for sign, problem in PROBLEMS.items():
            if sign in message:
                self._standing.problem(problem)
                return


# What Flower says → what it means. The contract test provokes each of them.
PROBLEMS = {
    "[code: 2004]": "the coordinator does not know this site's key (has it run `insitu-server admit`?), "
    "or still holds the line of a SuperNode that ended badly, for up to a minute",
    "401 Unauthorized": "the coordinator does not accept this site's signature: is this machine's clock right?",
    "CERTIFICATE_VERIFY_FAILED": "the coordinator's certificate is not signed by ca.pem, or not for this address",
    "SSL": "the coordinator does not speak TLS as expected at this address",
    "Connection attempt failed": "the coordinator cannot be reached at this address",
    "Name or service not known": "the coordinator's host name is not known here",
}


def listen(states: NodeStateFactory, secret: bytes, descriptor: int, gate: Gate) -> uvicorn.Server:
    """Serve the runtime interface, to whoever holds the secret, on a socket that is bound already."""
    application = create_app(state_factory=states, superexec_auth_secret=secret)
    server = uvicorn.Server(
        uvicorn.Config(
            Holding(application, "/v1/runtime/acquire-task", gate, once=True),
            log_level="warning",
            access_log=False,
            timeout_keep_alive=600,
        )
    )
    listening = socket.socket(fileno=descriptor)
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="runtime interface", daemon=True).start()
    return server


def forget_what_never_came(state: NodeState) -> None:
    """Drop a message whose run ended while its pieces were being fetched.

    Flower leaves it and its task where they are, and the executor would be given that task first, and wait for the
    pieces for ever. Flower brings one message at a time: when it has brought none, there is nothing else to drop.
    """
    left = state.get_tasks(statuses=[Status.PENDING, Status.STARTING, Status.RUNNING])
    for task in left:
        state.finish_task(task.task_id, SubStatus.FAILED, "its run ended before its message was here")
    if left:
        state.delete_messages()


def adapt(gate: Gate, standing: Standing) -> None:
    """Change what Flower's loop calls: all that is changed of Flower on this side is changed here."""
    pull = loop._pull_and_store_message

    def pull_and_tell(**arguments: Any) -> int | None:
        run = pull(**arguments)
        standing.contact()
        if run is not None:
            gate.open()
        else:
            forget_what_never_came(arguments["state"])
        return run

    loop._pull_and_store_message = pull_and_tell  # type: ignore[assignment]
    loop.time = Clock()  # type: ignore[attr-defined, assignment]
    # A message can be there before its pieces are. Flower looks again after a second.
    loop.pull_objects = functools.partial(loop.pull_objects, initial_backoff=0.02, backoff_cap=1.0)  # type: ignore[attr-defined]


def main() -> None:
    """Run until told to end, or until the process that started this one ends."""
    instructions = Orders().next()
    home = Path(instructions["home"])
    update_console_handler(level=logging.WARNING, timestamps=True, colored=False)
    standing = Standing(home, os.getpid())
    FLOWER_LOGGER.addHandler(_Listener(standing))
    states = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
    gate = Gate()
    server = listen(states, bytes.fromhex(instructions["secret"]), instructions["descriptor"], gate)
    adapt(gate, standing)
    key = identity.read_private(Path(instructions["key"]))
    try:
        loop.start_client_internal(
            state_factory=states,
            server_address=instructions["coordinator"],
            node_config={},
            root_certificates=instructions["ca"],
            insecure=False,
            authentication_keys=(key, key.public_key()),
            isolation="process",
            runtime_api_address=instructions["address"],
            superexec_auth_secret=bytes.fromhex(instructions["secret"]),
            runtime_dependency_install=False,
        )
    finally:
        server.should_exit = True


if __name__ == "__main__":
    main()
