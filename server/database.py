"""The coordinator's SQLite file, HOME/store.sqlite: several processes share it, and what was written stays written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from shared.errors import InsituError


class Database:
    """Some tables of the file. Every call opens, writes durably and closes.

    Attributes:
        path: of the file.
        schema: of the tables, which are made where they are not there yet.
    """

    schema: ClassVar[str]

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        with self._transaction() as db:
            db.executescript(self.schema)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            db = sqlite3.connect(self.path, timeout=30)
        except sqlite3.OperationalError as error:
            raise InsituError(f"{self.path}: cannot be opened ({error})") from None
        db.row_factory = sqlite3.Row
        try:
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA synchronous = EXTRA")  # a row that is there stays there, whatever is cut
            with db:
                yield db
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError):
                raise
            raise InsituError(f"{self.path}: {error}") from None
        finally:
            db.close()


def now() -> str:
    """The time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
