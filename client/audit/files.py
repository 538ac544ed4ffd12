"""record.jsonl: one process at a time, read from its end, and a line that is whole or not there."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from client.audit.chain import Line, parse

_WAIT_SECONDS = 60.0
_FIRST_SPAN = 2**13


@dataclass(frozen=True)
class Ending:
    """The end of a record.

    Attributes:
        lines: the last ones, in order, as far back as was asked.
        whole: bytes up to the end of the last line.
        torn: what stands after it: a line that was never finished.
        first: whether `lines` begins with the first line of the file.
    """

    lines: list[Line]
    whole: int
    torn: bytes
    first: bool


@contextmanager
def locked(file: Path, *, write: bool, create: bool = False) -> Iterator[int]:
    """A descriptor of the file; nobody writes to it meanwhile, nor, if this is to `write`, reads it.

    Raises:
        OSError: if it cannot be opened, or another process has it for a minute.
    """
    flags = (os.O_RDWR | os.O_APPEND if write else os.O_RDONLY) | (os.O_CREAT if create else 0)
    while True:
        handle = os.open(file, flags, 0o600)
        try:
            _lock(handle, fcntl.LOCK_EX if write else fcntl.LOCK_SH, file)
            if _is(handle, file):
                yield handle
                return
        finally:
            os.close(handle)


def _lock(handle: int, how: int, file: Path) -> None:
    deadline, pause = time.monotonic() + _WAIT_SECONDS, 0.0005
    while True:
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process has held {file} for a minute") from None
            time.sleep(pause)
            pause = min(2 * pause, 0.02)


def _is(handle: int, file: Path) -> bool:
    """Whether the file still has its name: it may have been set aside while we waited."""
    try:
        ours, theirs = os.fstat(handle), os.stat(file)
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


def contents(handle: int, start: int = 0) -> bytes:
    """Everything in the file from there on."""
    parts = []
    while part := os.pread(handle, 2**20, start):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def ending(handle: int, number: int) -> Ending:
    """The last lines, back to entry `number`; to the first, if there is none of that number or a lower one.

    Raises:
        Untrusted: if one of them cannot be read.
    """
    size, span = os.fstat(handle).st_size, _FIRST_SPAN
    while True:
        start = max(0, size - span)
        data = contents(handle, start)
        skipped = data.find(b"\n") + 1 if start else 0
        *raws, torn = data[skipped:].split(b"\n")
        lines: list[Line] = []
        for raw in reversed(raws):
            if lines and lines[-1].number <= number:
                break
            lines.append(parse(raw))
        if not start or (lines and lines[-1].number <= number):
            first = not start and len(lines) == len(raws)
            return Ending(lines[::-1], start + len(data) - len(torn), torn, first)
        span *= 8


def write(handle: int, data: bytes, *, durable: bool) -> None:
    """Add a line; on the disk, if durable, when this returns.

    Raises:
        OSError: if it could not be; the file is as it was, unless that failed too.
    """
    size = os.fstat(handle).st_size
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(handle, left) :]
        if durable:
            os.fsync(handle)
    except OSError:
        with suppress(OSError):
            os.ftruncate(handle, size)
        raise


def cut(handle: int, count: int, *, durable: bool) -> None:
    """Take off the last bytes."""
    os.ftruncate(handle, os.fstat(handle).st_size - count)
    if durable:
        os.fsync(handle)


def whole_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """The lines of a record without their ends, and what stands after the last of them."""
    *raws, torn = data.split(b"\n")
    return raws, torn


def stamp(handle: int) -> tuple[int, ...]:
    """Changes whenever the file does, or another takes its place."""
    status = os.fstat(handle)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
