"""The sites that are admitted, and the keys that never are again."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from server.database import Database, now
from shared.errors import BadInput


@dataclass(frozen=True)
class SiteRow:
    """A hospital the coordinator admits; `node_id` is Flower's name of it."""

    name: str
    node_id: int
    public_key: str
    admitted: str


@dataclass(frozen=True)
class RevokedRow:
    """A key that was admitted once, and never is again."""

    name: str
    public_key: str
    admitted: str
    revoked: str


class Sites(Database):
    """Who may take part."""

    schema = """
CREATE TABLE IF NOT EXISTS sites (
    name TEXT PRIMARY KEY, node_id TEXT UNIQUE NOT NULL, public_key TEXT NOT NULL, admitted TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS revoked (
    name TEXT NOT NULL, public_key TEXT PRIMARY KEY, admitted TEXT NOT NULL, revoked TEXT NOT NULL);
"""

    def admit(self, name: str, *, node_id: int, public_key: str) -> None:
        """Remember a site under its name.

        Raises:
            BadInput: if the name or the key is taken.
        """
        try:
            with self._transaction() as db:
                db.execute("INSERT INTO sites VALUES (?, ?, ?, ?)", (name, str(node_id), public_key, now()))
        except sqlite3.IntegrityError:
            raise BadInput(f"a site named {name!r}, or one with this key, is already admitted") from None

    def revoke(self, name: str) -> None:
        """Forget a site, and remember its key as one that is not admitted again."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO revoked SELECT name, public_key, admitted, ? FROM sites WHERE name = ?",
                (now(), name),
            )
            db.execute("DELETE FROM sites WHERE name = ?", (name,))

    def revoked(self) -> list[RevokedRow]:
        """The keys that are not admitted again, the last revoked first."""
        with self._transaction() as db:
            return [RevokedRow(**row) for row in db.execute("SELECT * FROM revoked ORDER BY revoked DESC")]

    def rekey(self, name: str, public_key: str) -> None:
        """Put another key in the place of a site's."""
        with self._transaction() as db:
            db.execute("UPDATE sites SET public_key = ? WHERE name = ?", (public_key, name))

    def admit_virtual(self, nodes: Mapping[int, str]) -> None:
        """Remember the virtual hospitals of a simulation, node id → name; no key stands for them, and none could."""
        with self._transaction() as db:
            rows = [(name, str(node), f"none: {name} is virtual", now()) for node, name in nodes.items()]
            db.executemany("INSERT INTO sites VALUES (?, ?, ?, ?)", rows)

    def admitted(self) -> dict[str, SiteRow]:
        """All admitted sites, by name."""
        with self._transaction() as db:
            rows = db.execute("SELECT * FROM sites ORDER BY name").fetchall()
        return {
            row["name"]: SiteRow(row["name"], int(row["node_id"]), row["public_key"], row["admitted"]) for row in rows
        }
