"""Invitations and refused tries, in the coordinator's file (HOME/store.sqlite), so that a restart forgets none.

Of a ticket only a hash is here: what can be read here lets nobody join.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass

from server.database import Database

MOST_WRONG_PROOFS = 5
_KEPT_TRIES = 2000


@dataclass(frozen=True)
class Invitation:
    """A ticket, as the coordinator knows it; times are seconds since 1970.

    Attributes:
        ticket: its hash.
        site: who was invited.
        made, expires: when.
        public_key: of the site that used it first (PEM): only that one can use it again.
        wrong: proofs that were not valid.
        used: when the site was admitted.
        withdrawn: when the operator took it back.
    """

    ticket: str
    site: str
    made: float
    expires: float
    public_key: str | None
    wrong: int
    used: float | None
    withdrawn: float | None

    def standing(self, now: float) -> str:
        """How it stands, in a word or two for the operator."""
        if self.used is not None:
            return "used"
        if self.withdrawn is not None:
            return "withdrawn"
        if self.wrong >= MOST_WRONG_PROOFS:
            return "dead: too many wrong proofs"
        return "expired" if now >= self.expires and self.public_key is None else "open"


@dataclass(frozen=True)
class Try:
    """A try to join that was refused.

    Attributes:
        time: seconds since 1970.
        peer: the address it came from.
        site: whose ticket it was; empty where it was none of ours.
        why: for the operator.
    """

    time: float
    peer: str
    site: str
    why: str


class Register(Database):
    """Invitations and tries; the commands and the service share it."""

    schema = """
CREATE TABLE IF NOT EXISTS invitations (
    ticket TEXT PRIMARY KEY, site TEXT NOT NULL, made REAL NOT NULL, expires REAL NOT NULL,
    public_key TEXT, wrong INTEGER NOT NULL DEFAULT 0, used REAL, withdrawn REAL);
CREATE TABLE IF NOT EXISTS refused_tries (
    time REAL NOT NULL, peer TEXT NOT NULL, site TEXT NOT NULL, why TEXT NOT NULL);
"""

    def invite(self, ticket: str, site: str, *, expires: float) -> None:
        """Remember a ticket; earlier ones of the same site are no longer good."""
        now = time.time()
        with self._transaction() as db:
            _withdraw(db, site, now)
            db.execute(
                "INSERT INTO invitations (ticket, site, made, expires) VALUES (?, ?, ?, ?)",
                (ticket, site, now, expires),
            )

    def withdraw(self, site: str) -> bool:
        """Take back a site's tickets that were not used; whether there were any."""
        with self._transaction() as db:
            return _withdraw(db, site, time.time()) > 0

    def find(self, ticket: str) -> Invitation | None:
        """The invitation of a ticket, by its hash."""
        with self._transaction() as db:
            row = db.execute("SELECT * FROM invitations WHERE ticket = ?", (ticket,)).fetchone()
        return Invitation(**row) if row is not None else None

    def invitations(self) -> list[Invitation]:
        """All of them, the newest first."""
        with self._transaction() as db:
            rows = db.execute("SELECT * FROM invitations ORDER BY made DESC").fetchall()
        return [Invitation(**row) for row in rows]

    def bind(self, ticket: str, public_key: str) -> bool:
        """Give a ticket to the key that proved it first; whether it is this key's now."""
        with self._transaction() as db:
            db.execute(
                "UPDATE invitations SET public_key = ? WHERE ticket = ? AND public_key IS NULL", (public_key, ticket)
            )
            row = db.execute("SELECT public_key FROM invitations WHERE ticket = ?", (ticket,)).fetchone()
        return row is not None and row["public_key"] == public_key

    def use(self, ticket: str) -> None:
        """The site of this ticket is admitted."""
        with self._transaction() as db:
            db.execute("UPDATE invitations SET used = ? WHERE ticket = ? AND used IS NULL", (time.time(), ticket))

    def refuse(self, one: Try, *, ticket: str | None = None) -> None:
        """Remember a try that was refused.

        Args:
            one: what there is to remember.
            ticket: the hash of the ticket whose proof was wrong.
        """
        with self._transaction() as db:
            db.execute("INSERT INTO refused_tries VALUES (?, ?, ?, ?)", (one.time, one.peer, one.site, one.why))
            # Whoever tries for ever must not fill the disk.
            db.execute(
                "DELETE FROM refused_tries WHERE rowid <= (SELECT MAX(rowid) FROM refused_tries) - ?", (_KEPT_TRIES,)
            )
            if ticket is not None:
                db.execute("UPDATE invitations SET wrong = wrong + 1 WHERE ticket = ?", (ticket,))

    def refused(self, peer: str, since: float) -> int:
        """How many tries from this address were refused since then."""
        with self._transaction() as db:
            row = db.execute("SELECT COUNT(*) FROM refused_tries WHERE peer = ? AND time > ?", (peer, since)).fetchone()
        return int(row[0])

    def tries(self, since: float) -> list[Try]:
        """The tries that were refused since then, the newest first."""
        with self._transaction() as db:
            rows = db.execute("SELECT * FROM refused_tries WHERE time > ? ORDER BY time DESC", (since,)).fetchall()
        return [Try(**row) for row in rows]


def _withdraw(db: sqlite3.Connection, site: str, now: float) -> int:
    return db.execute(
        "UPDATE invitations SET withdrawn = ? WHERE site = ? AND used IS NULL AND withdrawn IS NULL", (now, site)
    ).rowcount
