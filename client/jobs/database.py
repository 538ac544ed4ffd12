"""jobs.sqlite: its tables, and transactions on them."""

from __future__ import annotations

import sqlite3
from collections.abc import Hashable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from shared.errors import InsituError
from shared.files import stamp

_WAIT_SECONDS = 60.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    digest TEXT PRIMARY KEY, job TEXT NOT NULL, offered REAL NOT NULL, state TEXT NOT NULL,
    code TEXT, detail TEXT NOT NULL DEFAULT '', allowed INTEGER NOT NULL DEFAULT 0,
    decided REAL, by TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '') STRICT;
CREATE TABLE IF NOT EXISTS runs (
    digest TEXT NOT NULL REFERENCES jobs(digest), run TEXT NOT NULL, by TEXT NOT NULL, admitted REAL NOT NULL,
    PRIMARY KEY (digest, run)) STRICT;
"""


class Database:
    """The file, for any number of processes.

    Args:
        file: where; made, whole, where it is not there yet.
        durable: whether a transaction waits for the disk.
    """

    def __init__(self, file: Path, *, durable: bool) -> None:
        self._file = file
        self._synchronous = "EXTRA" if durable else "OFF"

    def stamp(self) -> Hashable:
        """Changes whenever the file does: with SQLite's own counter of changes, which is finer than any clock."""
        if (seen := stamp(self._file)) is None:
            return None
        with self._file.open("rb") as stream:
            return seen, stream.read(100)[24:28]

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all that is done in it is kept, or nothing; nobody else writes meanwhile.

        Raises:
            InsituError: if the file cannot be used.
        """
        with self.opened() as database:
            database.execute("BEGIN IMMEDIATE")
            with database:
                yield database

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """A connection.

        Raises:
            InsituError: if the file cannot be used.
        """
        try:
            new = not self._file.exists() or not self._file.stat().st_size
            with closing(sqlite3.connect(self._file, timeout=_WAIT_SECONDS)) as database:
                database.row_factory = sqlite3.Row
                database.execute("PRAGMA foreign_keys = ON")
                database.execute(f"PRAGMA synchronous = {self._synchronous}")
                if new:
                    database.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
                    self._file.chmod(0o600)
                yield database
        except sqlite3.Error as error:
            raise InsituError(f"{self._file}: cannot be used ({error}); no job is worked on until it can") from None
