"""Where a SuperNode that runs as another user meets the executor: a socket and a secret in the SuperNode's folder.

FOLDER/              the SuperNode's user alone writes here; its group, which the site's user is in, may look
  supernode.toml     the site's name, the coordinator's address and its CA certificate
  ca.pem
  keys/site.pem      the site's private key (P-384): not even the group may look
  secret             32 bytes that whoever asks for a message has to know
  socket             where the SuperNode listens
  state/             what it says of itself
  log/               its log

The executor hands its replies to whoever listens, so it matters who can. A port of the loopback interface could be
taken by any process on the machine while the SuperNode is down. A socket in the file system cannot: only who writes in
the folder could put another in its place, and that is the SuperNode's user, and root.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel

from shared.errors import BadInput

SECRET_BYTES = 32
_LONGEST_PATH = 107  # of a socket, in bytes; the operating system's
_LONGEST_STATE = 65536
_LONGEST_PROBLEM = 300
_PATIENCE_SECONDS = 1.0


def path(folder: Path) -> Path:
    """The socket's.

    Raises:
        BadInput: if the operating system cannot have one there.
    """
    file = folder / "socket"
    if len(os.fsencode(file)) > _LONGEST_PATH:
        raise BadInput(f"is too long a path for a socket, which may have {_LONGEST_PATH} bytes", file=file)
    return file


def secret(folder: Path) -> bytes:
    """What both ends know.

    Raises:
        BadInput: if it cannot be read, or is none.
    """
    file = folder / "secret"
    try:
        content = _read(file, SECRET_BYTES + 1)
    except OSError as error:
        raise BadInput(
            f"cannot be read ({error.strerror}): is the folder there, and this user in the group of the SuperNode's?",
            file=file,
        ) from None
    if len(content) != SECRET_BYTES:
        raise BadInput(f"is not a secret of {SECRET_BYTES} bytes", file=file)
    return content


def _read(file: Path, longest: int) -> bytes:
    """Read what another user wrote, whatever lies there now: a link is not followed, a pipe not waited for."""
    handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as stream:
        return stream.read(longest) if stat.S_ISREG(os.fstat(handle).st_mode) else b""


@contextmanager
def listening(folder: Path) -> Iterator[socket.socket]:
    """The socket, bound, for the owner of the folder and its group; who holds the folder may do this.

    It listens as long as this lasts: who asks while the SuperNode is being started again waits, and is not refused.
    """
    file = path(folder)
    file.unlink(missing_ok=True)  # left behind by one that was killed
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        bound.bind(str(file))
        file.chmod(0o660)
        bound.listen()
        try:
            yield bound
        finally:
            file.unlink(missing_ok=True)


def check(folder: Path) -> None:
    """Make sure that nobody but the SuperNode's user, and root, can put another socket in its place.

    Raises:
        BadInput: if somebody can, or the folder is not there.
    """
    try:
        if folder.resolve(strict=True) != folder:
            raise BadInput(f"a link leads to it; write {folder.resolve()} in site.toml", file=folder)
        owner = folder.stat().st_uid
        for one in (folder, *folder.parents):
            status = one.stat()
            # Above it, as in /tmp, others may write where they cannot rename what is not theirs.
            kept = one != folder and status.st_mode & stat.S_ISVTX
            others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not kept
            if others or status.st_uid not in {0, owner}:
                raise BadInput(
                    "others than the SuperNode's user can write here: they could take its place, and get the replies",
                    file=one,
                )
    except OSError as error:
        raise BadInput(f"the SuperNode's folder cannot be reached ({error.strerror})", file=folder) from None


def problem(folder: Path) -> str | None:
    """Why nobody answers at the socket; None where somebody does."""
    file = path(folder)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PATIENCE_SECONDS)
        try:
            probe.connect(str(file))
        except PermissionError:
            return f"this user may not reach {file}: it has to be in the group of the SuperNode's user"
        except OSError:
            return f"the SuperNode does not answer at {file}; `insitu-client supernode` starts it"
    return None


def _shown(text: str | None) -> str | None:
    return "".join(sign for sign in text if sign.isprintable())[:_LONGEST_PROBLEM] if text else None


class Process(BaseModel):
    """How the SuperNode's process stands, as `state` has it of every process."""

    pid: int | None = None
    since: float | None = None
    restarts: int = 0
    last_exit: int | None = None


class Keeper(BaseModel):
    """What `insitu-client supernode` says of itself."""

    coordinator: Annotated[str | None, AfterValidator(_shown)] = None
    supernode: Process = Process()


class Contact(BaseModel):
    """What the SuperNode says of the coordinator."""

    pid: int | None = None
    contact: float | None = None
    problem: Annotated[str | None, AfterValidator(_shown)] = None


def standing(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the SuperNode's keeper and the SuperNode say. They are another user: nothing but these facts is taken."""
    return _said(folder, "daemon", Keeper).model_dump(), _said(folder, "supernode", Contact).model_dump()


_Model = TypeVar("_Model", bound=BaseModel)


def _said(folder: Path, part: str, kind: type[_Model]) -> _Model:
    with suppress(OSError, ValueError, RecursionError):
        return kind.model_validate(json.loads(_read(folder / "state" / f"{part}.json", _LONGEST_STATE)))
    return kind()
