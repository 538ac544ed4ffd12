"""ledger.sqlite: the entries, whole or not at all, and on the disk when `save` returns."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from client.ledger.entries import Books, Untrusted
from shared.errors import RefusalCode, Refused

_WAIT_SECONDS = 60.0
_APPLICATION = 0x1E46E2  # SQLite's mark of whose file it is
_SCHEMA = """
CREATE TABLE entries (number INTEGER PRIMARY KEY, body TEXT NOT NULL, link TEXT NOT NULL) STRICT;
CREATE TABLE settled (number INTEGER PRIMARY KEY REFERENCES entries) STRICT;
"""
# What says nothing against the file's contents.
_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}


@contextmanager
def opened(file: Path, *, write: bool) -> Iterator[sqlite3.Connection]:
    """A transaction on a ledger; what is not saved in it is as if it had never been written.

    Raises:
        Untrusted: if the file is damaged, or no ledger.
        Refused: `ledger`, if it cannot be read or written for the time being.
    """
    try:
        if write and not file.exists():
            _create(file)
        if not file.stat().st_size:
            raise Untrusted("the file is empty")
        with closing(sqlite3.connect(f"file:{file}?mode=rw", uri=True, timeout=_WAIT_SECONDS)) as database:
            database.isolation_level = None
            database.execute("PRAGMA synchronous = EXTRA")
            database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            if database.execute("PRAGMA application_id").fetchone() != (_APPLICATION,):
                raise Untrusted("it is not a ledger")
            if database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise Untrusted("the file is damaged")
            yield database
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING:
            raise unreachable(file, error) from None
        raise Untrusted(f"the file is damaged ({error})") from None
    except OSError as error:
        raise unreachable(file, error) from None


def read(database: sqlite3.Connection) -> Books:
    """Every entry, of which each must be the one that was written after the one before.

    Raises:
        Untrusted: if one is not.
    """
    books = Books()
    for number, body, link in database.execute("SELECT number, body, link FROM entries ORDER BY number"):
        books.take(number, body, link)
    books.settled = {number for (number,) in database.execute("SELECT number FROM settled")}
    return books


def save(database: sqlite3.Connection, books: Books) -> None:
    """Write what the books have beyond the file, to the disk."""
    (last,) = database.execute("SELECT coalesce(max(number), 0) FROM entries").fetchone()
    entries = [
        (number, entry.model_dump_json(), books.links[number])
        for number, entry in books.entries.items()
        if number > last
    ]
    settled = books.settled - {number for (number,) in database.execute("SELECT number FROM settled")}
    if entries or settled:
        database.executemany("INSERT INTO entries VALUES (?, ?, ?)", entries)
        database.executemany("INSERT INTO settled VALUES (?)", [(number,) for number in settled])
        database.commit()


def unreachable(file: Path, error: Exception) -> Refused:
    """What is said where the disk, the rights or another process are in the way."""
    return Refused(
        RefusalCode.LEDGER,
        f"{file} cannot be read or written ({error}); nothing is trained under privacy until it can",
    )


def _create(file: Path) -> None:
    """A ledger appears whole: an empty or half-made file is always a damaged one, never a new one."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with closing(sqlite3.connect(draft)) as database:
        database.executescript(f"PRAGMA application_id = {_APPLICATION}; PRAGMA synchronous = EXTRA; {_SCHEMA}")
    draft.chmod(0o600)
    try:
        file.hardlink_to(draft)  # not `rename`: a ledger that another process has just made must stay
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    sync(file.parent)


def sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
