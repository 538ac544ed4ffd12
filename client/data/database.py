"""The registry's SQLite file: its tables, and transactions on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from shared.errors import InsituError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS datasets (
    name TEXT PRIMARY KEY,
    path TEXT NOT NULL,
    labels TEXT,
    mapping TEXT NOT NULL,
    added REAL NOT NULL,
    seconds REAL NOT NULL,
    files_used INTEGER NOT NULL,
    notes TEXT NOT NULL,
    profile TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS items (
    dataset TEXT NOT NULL REFERENCES datasets(name) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    patient TEXT NOT NULL,
    split TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (dataset, number)
);
CREATE INDEX IF NOT EXISTS items_by_split ON items (dataset, split, patient);
CREATE TABLE IF NOT EXISTS left_out (
    dataset TEXT NOT NULL REFERENCES datasets(name) ON DELETE CASCADE,
    file TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (dataset, file)
);
"""
_VERSION = 1


@contextmanager
def transaction(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection in a transaction: all that is done in it is kept, or nothing. The file is made where there is none.

    Raises:
        InsituError: if the file is damaged, or of a newer version.
    """
    try:
        with closing(sqlite3.connect(file, timeout=60)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise InsituError(f"{file}: was written by a newer version of insitu; update this one")
            if version < _VERSION:
                connection.executescript(_SCHEMA)
                connection.execute(f"PRAGMA user_version = {_VERSION}")
                file.chmod(0o600)
            with connection:
                yield connection
    except sqlite3.DatabaseError as error:
        raise InsituError(f"{file}: cannot be used ({error}); restore it, or remove it and add again") from None
