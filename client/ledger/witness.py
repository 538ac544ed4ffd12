"""The witness: outside ledger.sqlite, how far it had got, so that a ledger that was put back or lost is noticed.

    HOME/witness/000000057.json        the last entry was number 57: its link, and all that must not be forgotten

**Written after the ledger, before the charge is acted on**, and there from a home's first day. A process killed in
between leaves a ledger that is ahead of its witness: the charge was never acted on, and there is nothing to notice. A
ledger that is behind its witness, or that has another entry of this number, was deleted, or put back, or is another.

**It notices that the whole home was put back**, too, for each has a file name of its own, and says when the file was
made (statx(2), `btime`), which a copy cannot take along. Whoever copies an older home over a newer one leaves the newer
witness there; whoever removes the newer home first, and whoever goes on with a copy of a home, has a witness that was
made later than it says.

**What it cannot notice**: a disk or a machine that was put back as a whole (a snapshot), for nothing is left then that
knows better, unless the witness is on another disk (`witness` in site.toml); a copied home, on a file system that does
not tell when a file was made; and somebody who makes ledger and witness anew, though not even then is a stored reply
sent again whose round the ledger does not know. What a coordinator says of rounds is no witness: a site may have missed
any of them.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from client.ledger.entries import Books, Entry, Untrusted
from client.ledger.journal import sync
from shared.errors import BadInput

_NAME = re.compile(r"\d{9,}\.json")


class Statement(BaseModel):
    """What a witness says.

    Attributes:
        number, link: of the ledger's last entry.
        born: when this very file was made (ns), if the file system tells.
        entries: as `Books.condensed`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    link: str
    born: int | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True, kw_only=True)
class Witness:
    """The newest witness.

    Attributes:
        file: where it is.
        said: in it.
        original: whether it is the very file that was written, not a copy of it.
    """

    file: Path
    said: Statement
    original: bool


def read(folder: Path) -> Witness | None:
    """The newest witness; None where there is none.

    Raises:
        Untrusted: if it is damaged.
    """
    while files := _files(folder):
        file = files[-1]
        try:
            said, born = Statement.model_validate_json(file.read_bytes()), _born(file)
            file.stat()  # raises if another process has just written a newer one, and removed this
        except FileNotFoundError:  # another process has just written a newer one
            continue
        except ValidationError:
            raise Untrusted(f"its witness {file} is damaged") from None
        if said.number != _number(file):
            raise Untrusted(f"its witness {file} has another's name")
        return Witness(file=file, said=said, original=said.born in (None, born))
    return None


def check(newest: Witness | None, books: Books) -> None:
    """Hold a ledger against its witness.

    Raises:
        Untrusted: if it is not the ledger that was witnessed last, or one that went on from there.
    """
    if newest is None:
        raise Untrusted("its witness is gone, which every home has had from its first day")
    said = newest.said
    if books.last < said.number:
        raise Untrusted(
            f"it ends with entry {books.last}, and {newest.file} has seen entry {said.number}: it was deleted, or put "
            "back from a back-up"
        )
    if books.links.get(said.number) != said.link:
        raise Untrusted(f"its entry {said.number} is not the one that {newest.file} has seen: it is another ledger")
    if not newest.original:
        raise Untrusted(
            f"its witness {newest.file} is a copy: this home was put back from a back-up, or moved, and what was spent "
            "since then, or elsewhere, is not known"
        )


def begin(folder: Path) -> None:
    """The witness of a new home, whose ledger has no entry: where there is none, there is no new home either.

    Raises:
        BadInput: if another home's is there.
    """
    if _files(folder):
        raise BadInput("holds the witness of another home; choose another folder", file=folder)
    with renewed(folder, Books()):
        pass


@contextmanager
def renewed(folder: Path, books: Books) -> Iterator[None]:
    """Say how far the ledger has got, once what is done in between has been done.

    It is drafted before, so that a disk that is full is noticed before anything is charged, and counts after, on the
    disk, when the older ones go.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = folder / f".{os.getpid()}"
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            said = Statement(
                number=books.last, link=books.links[books.last], born=_born(draft), entries=tuple(books.condensed())
            )
            stream.write(said.model_dump_json().encode())
            stream.flush()
            os.fsync(stream.fileno())
        yield
        draft.replace(folder / f"{books.last:09d}.json")
    finally:
        draft.unlink(missing_ok=True)
    sync(folder)
    for file in _files(folder):
        if _number(file) < books.last:
            file.unlink()


def last(folder: Path) -> int:
    """The highest number that is witnessed, by the name of the file; 0 where there is none."""
    return max(map(_number, _files(folder)), default=0)


def _files(folder: Path) -> list[Path]:
    """The witnesses, the newest last."""
    return sorted((file for file in folder.glob("*.json") if _NAME.fullmatch(file.name)), key=_number)


def _number(file: Path) -> int:
    return int(file.stem)


_AT_FDCWD, _STATX_BTIME = -100, 0x800


def _born(file: Path) -> int | None:
    """When a file was made (ns); None where the file system does not tell. Python's os.stat does not on Linux."""
    status = ctypes.create_string_buffer(256)
    try:
        failed = ctypes.CDLL(None).statx(_AT_FDCWD, os.fsencode(file), 0, _STATX_BTIME, status)
    except AttributeError:  # another C library
        return None
    (known,) = struct.unpack_from("=I", status)
    seconds, rest = struct.unpack_from("=qI", status, 80)
    return seconds * 10**9 + rest if not failed and known & _STATX_BTIME else None
