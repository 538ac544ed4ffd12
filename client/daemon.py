"""Keeps a site's two processes alive: the SuperNode, which carries messages, and the executor, which answers them.

This process itself opens no scan and speaks to nobody. It binds the socket over which the two talk, on loopback, and
makes the secret that only they share, so that either may end and come back without the other noticing more than a
pause. A SuperNode that ended badly is refused by the coordinator until its lease of a minute is over: it is started
again, and again.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from client import state
from client.site import Site
from shared import console, identity
from shared.errors import BadInput
from shared.processes import Child

_LOOK_EVERY_SECONDS = 0.2
_FIRST_DELAY_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 15.0
# A process that has run this long was well: what ends it then is something new.
_WELL_SECONDS = 120.0


@dataclass
class Supervised:
    """One process, started again whenever it ends, after a pause that doubles while it keeps ending."""

    name: str
    module: str
    instructions: dict[str, Any]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    descriptors: tuple[int, ...] = ()
    child: Child | None = None
    restarts: int = 0
    last_exit: int | None = None
    _delay: float = _FIRST_DELAY_SECONDS
    _again_at: float = 0.0

    def start(self) -> None:
        """Start the process."""
        self.child = Child(
            self.module,
            self.instructions,
            log=self.log,
            environment=self.environment,
            descriptors=self.descriptors,
        )

    def look(self, now: float) -> bool:
        """Start it again if it has ended and its pause is over; whether anything changed."""
        if self.child is None:
            if now < self._again_at:
                return False
            self.restarts += 1
            self.start()
            return True
        code = self.child.poll()
        if code is None:
            return False
        if time.time() - self.child.started > _WELL_SECONDS:
            self._delay = _FIRST_DELAY_SECONDS
        self.last_exit = code
        self.child.close()
        self.child = None
        self._again_at = now + self._delay
        console.say(f"{self.name} ended ({code}); starting it again in {self._delay:.0f} s; see {self.log}")
        self._delay = min(2 * self._delay, _LONGEST_DELAY_SECONDS)
        return True

    def facts(self) -> dict[str, Any]:
        """How it stands."""
        return {
            "pid": self.child.pid if self.child else None,
            "since": self.child.started if self.child else None,
            "restarts": self.restarts,
            "last_exit": self.last_exit,
        }


def run(site: Site, *, app: str = "client.app:app") -> None:
    """Run in the foreground until SIGTERM or SIGINT.

    Args:
        site: whose home has the key, and whose site.toml says where the coordinator is.
        app: `module:attribute` of the ClientApp, as it is installed here.

    Raises:
        BadInput: if the home is held by another daemon, or lacks the coordinator's address, its CA or the key.
    """
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with site.claimed(), _loopback() as listening:
        for part in ("daemon", "supernode"):
            state.forget(site.home, part)  # what one before this said
        supernode, executor = _parts(site, listening, app)
        _keep(site, (supernode, executor), stopping)


def _loopback() -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()  # here too: who asks while the SuperNode is being started again waits, and is not refused
    return listening


def _parts(site: Site, listening: socket.socket, app: str) -> tuple[Supervised, Supervised]:
    coordinator = site.config.coordinator
    if coordinator is None:
        raise BadInput("[coordinator] is missing: give its address and its CA", file=site.home / "site.toml")
    ca = site.home / coordinator.ca
    key = site.home / "keys" / "site.pem"
    identity.read_certificate(ca)
    identity.read_private(key)
    host, port = listening.getsockname()
    both = {"home": str(site.home.resolve()), "address": f"{host}:{port}", "secret": secrets.token_hex(32)}
    logs = site.home / "log"
    # Flower keeps files of its own in the user's home if it is not told otherwise.
    environment = {"FLWR_HOME": str((site.home / "state").resolve()), "MALLOC_ARENA_MAX": "2"}
    supernode = Supervised(
        name="the SuperNode",
        module="client.flower.supernode",
        instructions={
            **both,
            "descriptor": listening.fileno(),
            "coordinator": coordinator.address,
            "ca": str(ca.resolve()),
            "key": str(key.resolve()),
        },
        log=logs / "supernode.log",
        environment={**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        descriptors=(listening.fileno(),),
    )
    threads = site.config.policy.threads
    executor = Supervised(
        name="the executor",
        module="client.flower.executor",
        instructions={**both, "app": app},
        log=logs / "executor.log",
        environment=environment | ({"OMP_NUM_THREADS": str(threads)} if threads else {}),
    )
    return supernode, executor


def _keep(site: Site, parts: tuple[Supervised, Supervised], stopping: threading.Event) -> None:
    supernode, executor = parts
    since = time.time()

    def say() -> None:
        coordinator = site.config.coordinator
        facts = {"pid": os.getpid(), "since": since, "coordinator": coordinator.address if coordinator else None}
        state.write(site.home, "daemon", {**facts, "supernode": supernode.facts(), "executor": executor.facts()})

    for part in parts:
        part.start()
    say()
    console.say(f"{site.name}: answering the coordinator at {site.config.coordinator.address}")  # type: ignore[union-attr]
    try:
        while not stopping.wait(_LOOK_EVERY_SECONDS):
            now = time.monotonic()
            changed = [part.look(now) for part in parts]
            if any(changed):
                say()
    finally:
        # The executor first: it must not answer for a SuperNode that has said good-bye.
        for part in (executor, supernode):
            if part.child is not None:
                part.child.stop()
        console.say(f"{site.name}: stopped")
