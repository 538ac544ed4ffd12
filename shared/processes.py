"""Processes of ours that do not outlive the one that started them.

The parent writes the child's instructions, which may hold secrets and so are on no command line, as lines of JSON
into the child's standard input and keeps it open. When the parent ends, however it ends, the pipe closes and the
child ends itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

_STDIN = 0
_GRACE_SECONDS = 10.0
# A log is begun anew when it has become this long; one old one is kept.
_LONGEST_LOG = 10 * 2**20


class Child:
    """A running process of ours, `python -m module`, that was given `instructions`.

    Args:
        module: to run; it makes its `Orders` first.
        instructions: what JSON can hold.
        log: a file that gets what it prints.
        environment: variables to change for it.
        descriptors: open file descriptors it inherits, under the same numbers.
    """

    def __init__(
        self,
        module: str,
        instructions: Mapping[str, Any],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        self.module = module
        self.started = time.time()
        _begin(log)
        with log.open("ab") as output:
            # -P: what lies in the current folder must not be mistaken for a package of ours.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
                pass_fds=descriptors,
                start_new_session=True,  # Ctrl-C is for the parent, which ends its children in order
            )
        self._pipe = cast(IO[bytes], self._process.stdin)
        self.instruct(instructions)

    def instruct(self, instructions: Mapping[str, Any]) -> None:
        """Give it instructions, or further ones."""
        # It may have ended; `poll` will say so.
        with contextlib.suppress(BrokenPipeError):
            self._pipe.write(json.dumps(instructions).encode() + b"\n")
            self._pipe.flush()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask it to end."""
        if self.poll() is None:
            self._process.terminate()

    def stop(self, grace: float = _GRACE_SECONDS) -> int:
        """Ask it to end, wait, and if it has not ended after `grace` seconds end it; its exit code."""
        self.terminate()
        try:
            code = self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self.close()
        return code

    def close(self) -> None:
        """Let go of the pipe to a process that has ended."""
        with contextlib.suppress(BrokenPipeError):
            self._pipe.close()


def _begin(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if log.exists() and log.stat().st_size > _LONGEST_LOG:
        log.replace(log.with_suffix(".old"))


class Orders:
    """In the child: what the parent instructs it to do. From here on the child ends when its parent does.

    Only one may be made in a process.
    """

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="parent", daemon=True).start()

    def next(self) -> dict[str, Any]:
        """The next instructions; waits for them."""
        return dict(json.loads(self._lines.get()))

    def _read(self) -> None:
        # Not through sys.stdin: a thread that waits there makes the interpreter fail as it ends.
        rest = b""
        while more := os.read(_STDIN, 65536):
            *lines, rest = (rest + more).split(b"\n")
            for line in lines:
                self._lines.put(line)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE_SECONDS)
        os._exit(1)


def write_to(log: Path) -> None:
    """In the child: what it prints from here on goes into this file."""
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
