"""Processes that are kept alive: started again whenever they end, until this one is told to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from shared import console
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


def told_to_stop() -> threading.Event:
    """Is set by SIGTERM and SIGINT from here on."""
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return stopping


def keep(parts: Sequence[Supervised], say: Callable[[], None], *, ready: str, stopping: threading.Event) -> None:
    """Start the processes and keep them alive.

    Args:
        parts: in the order in which they are started; the last is stopped first.
        say: called whenever something has changed.
        ready: told to the operator once they run.
        stopping: until this is set.
    """
    for part in parts:
        part.start()
    say()
    console.say(ready)
    try:
        while not stopping.wait(_LOOK_EVERY_SECONDS):
            now = time.monotonic()
            changed = [part.look(now) for part in parts]
            if any(changed):
                say()
    finally:
        for part in reversed(parts):
            if part.child is not None:
                part.child.stop()
