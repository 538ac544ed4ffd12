"""Files that are whole after a crash, and a home that only one process holds."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import BadInput

# Who only looks whether a home is held has it in hand for a moment.
_PATIENCE_SECONDS = 0.5


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write, fsync, rename, fsync the folder: after a power cut the file is the old one or the new one."""
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def held(home: Path, holder: str) -> Iterator[None]:
    """Hold a home for this process; when it ends, however it ends, the home is free again.

    Args:
        home: a folder.
        holder: what this process is, for the message.

    Raises:
        BadInput: if another process holds it.
    """
    with (home / ".lock").open("a") as lock:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BadInput(f"a {holder} is already running on this home; stop it first", file=home) from None
                time.sleep(0.02)
        yield


def is_held(home: Path) -> bool:
    """Whether some process holds a home."""
    with (home / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def stamp(file: Path) -> Hashable:
    """Changes whenever the file does; None while there is none."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
