"""jobs.sqlite: every job that was offered, under its digest, and the operator's word on it.

A yes is for one job, as its digest says it, and for so many runs of it: a job that was changed is another one, and a
run that comes after them needs another yes. A rule of site.toml (`[[approve]]`) is a yes in advance to any number of
runs. A no (`revoke`) stands against every rule until the operator says yes again, and stops what is under way.

A coordinator can make neither the file nor the operator's list grow without end: so many jobs may wait, and of those
that the policy refused only the last are remembered. What the operator decided is never forgotten.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from client.jobs.database import Database
from client.site import Site
from shared.errors import BadInput, RefusalCode, Refused
from shared.job import Job

State = Literal["pending", "approved", "revoked", "refused"]
OPERATOR = "operator"

MOST_PENDING = 100
MOST_REFUSED = 100
MOST_RUNS = 10_000  # of one job


Note = Callable[[str], None]  # told who decided


def _unnoted(by: str) -> None:
    """Nobody keeps a record."""


@dataclass(frozen=True)
class Entry:
    """One job.

    Attributes:
        job: as it was offered.
        offered: when it first was, or the operator said something of it (seconds since 1970); None for neither.
        state: `pending` (waits for the operator's word), `approved`, `revoked`, or `refused` by the policy.
        code, detail: what was answered last, if it was a refusal, and why, in words for the operator.
        allowed: how many runs the operator has said yes to.
        runs: that take or took part, each with who said yes: `operator`, or `rule 1`.
        decided, by, reason: the last decision.
    """

    job: Job
    offered: float | None = None
    state: State = "pending"
    code: str | None = None
    detail: str = ""
    allowed: int = 0
    runs: Mapping[str, str] = field(default_factory=dict)
    decided: float | None = None
    by: str = ""
    reason: str = ""

    @property
    def left(self) -> int:
        """Runs that the operator has said yes to and that have not begun."""
        return self.allowed - sum(by == OPERATOR for by in self.runs.values())


class Inbox:
    """The jobs of one site."""

    def __init__(self, site: Site) -> None:
        self.file = site.home / "jobs.sqlite"
        self._database = Database(self.file, durable=site.config.durable)
        self._seen: Hashable = None
        self._entries: dict[str, Entry] = {}

    def entries(self) -> list[Entry]:
        """All jobs, the last offered first."""
        return sorted(self._read().values(), key=lambda entry: entry.offered or 0.0, reverse=True)

    def pending(self) -> list[Entry]:
        """Those that wait for the operator's word."""
        return [entry for entry in self.entries() if entry.state == "pending"]

    def find(self, text: str) -> Entry:
        """The one job of this name, or whose digest begins so.

        Raises:
            BadInput: if there is none, or more than one.
        """
        found = [
            entry
            for digest, entry in self._read().items()
            if entry.job.name == text or (len(text) >= 4 and digest.startswith(text.lower()))
        ]
        if not found:
            raise BadInput(f"no job {text!r} was offered; see `insitu-client jobs`, or give its file, a job.toml")
        if len(found) > 1:
            digests = ", ".join(entry.job.digest[:12] for entry in found)
            raise BadInput(f"{len(found)} jobs are called {text!r}; say which by its digest: {digests}")
        return found[0]

    def admit(self, job: Job, run: str, *, rule: int | None, note: Note = _unnoted) -> str | None:
        """Let a run take part, if the operator has said yes to it.

        Args:
            job: which the policy allows.
            run: the coordinator's name of the run.
            rule: the number of the rule of site.toml that says yes to the job in advance, if one does.
            note: told who said yes, before that counts; where it raises the run is not let in.

        Returns:
            Who said yes, where this run is let in now; None where it was before.

        Raises:
            Refused: `pending`, `revoked` or `inbox_full`.
            InsituError: if the file cannot be used.
        """
        entry = self._read().get(job.digest)
        if entry is not None and entry.state == "revoked":
            raise Refused(RefusalCode.REVOKED, f"the operator said no to job {job.name}: {entry.reason}")
        if entry is not None and run in entry.runs:
            return None
        by = f"rule {rule}" if rule else OPERATOR
        if entry is not None and len(entry.runs) >= MOST_RUNS:
            raise Refused(RefusalCode.INBOX_FULL, f"job {job.name} has had {MOST_RUNS} runs here")
        if (rule or (entry is not None and entry.left > 0)) and self._enter(job, run, by, note):
            return by
        if entry is None or entry.state != "pending":
            pending = sum(other.state == "pending" for other in self._read().values())
            if pending >= MOST_PENDING:
                raise Refused(RefusalCode.INBOX_FULL, f"{pending} jobs wait for the operator already")
            with self._database.writing() as database:
                self._put(database, job, "pending")
        raise Refused(
            RefusalCode.PENDING,
            f"job {job.name} ({job.digest[:12]}) waits for `insitu-client approve`"
            + (", for a further run of it" if entry is not None and entry.runs else ""),
        )

    def _enter(self, job: Job, run: str, by: str, note: Note) -> bool:
        """Let a run in; whether it was still so that it may come in."""
        with self._database.writing() as database:
            now = database.execute(
                "SELECT state, allowed - (SELECT count(*) FROM runs WHERE digest = ?1 AND by = ?2) AS left FROM jobs "
                "WHERE digest = ?1",
                (job.digest, OPERATOR),
            ).fetchone()
            if now is not None and now["state"] == "revoked":
                return False
            if by == OPERATOR and (now is None or now["left"] <= 0):
                return False
            self._put(database, job, "approved")
            at = time.time()
            database.execute("INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?)", (job.digest, run, by, at))
            database.execute(
                "UPDATE jobs SET by = ?, decided = ? WHERE digest = ? AND decided IS NULL", (by, at, job.digest)
            )
            note(by)
        return True

    def answered(self, job: Job, code: RefusalCode | None, detail: str = "") -> None:
        """Remember what was answered last; a job that only the policy has seen becomes known by it.

        Args:
            job: that was offered.
            code: of the refusal; None for a yes.
            detail: why, in words for the operator.
        """
        entry = self._read().get(job.digest)
        if entry is None and code is None:
            return
        if entry is not None and (entry.code, entry.detail) == (code, detail):
            return
        if code in (RefusalCode.PENDING, RefusalCode.REVOKED, RefusalCode.INBOX_FULL):
            return  # which the state says already
        with self._database.writing() as database:
            database.execute(
                "INSERT OR IGNORE INTO jobs (digest, job, offered, state) VALUES (?, ?, ?, 'refused')",
                (job.digest, job.canonical(), time.time()),
            )
            database.execute("UPDATE jobs SET code = ?, detail = ? WHERE digest = ?", (code, detail, job.digest))
            database.execute(
                "DELETE FROM jobs WHERE state = 'refused' AND decided IS NULL AND digest NOT IN "
                "(SELECT digest FROM jobs WHERE state = 'refused' ORDER BY offered DESC LIMIT ?)",
                (MOST_REFUSED,),
            )

    def of(self, job: Job) -> Entry:
        """The entry of a job; one that waits, where it was not offered yet."""
        return self._read().get(job.digest) or Entry(job=job)

    def approve(self, job: Job, *, runs: int, reason: str, note: Note = _unnoted) -> None:
        """The operator's yes to so many further runs of a job, offered or not; it is noted before it counts."""
        self._decide(job, "approved", reason, further=runs, note=note)

    def revoke(self, job: Job, *, reason: str, note: Note = _unnoted) -> None:
        """The operator's no: to what is under way, and to what would come. It counts even where it cannot be noted."""
        failed: list[Refused] = []

        def attempt(by: str) -> None:
            try:
                note(by)
            except Refused as refused:
                failed.append(refused)

        self._decide(job, "revoked", reason, further=0, note=attempt)
        if failed:
            raise failed[0]

    def revoked(self, job: Job) -> bool:
        """Whether the operator has said no to a job; it costs next to nothing to ask again and again."""
        entry = self._read().get(job.digest)
        return entry is not None and entry.state == "revoked"

    def _decide(self, job: Job, state: State, reason: str, *, further: int, note: Note) -> None:
        with self._database.writing() as database:
            self._put(database, job, "pending")
            database.execute(
                "UPDATE jobs SET state = ?, decided = ?, by = ?, reason = ?, allowed = ? + "
                "(SELECT count(*) FROM runs WHERE runs.digest = jobs.digest AND by = ?) WHERE digest = ?",
                (state, time.time(), OPERATOR, reason, further, OPERATOR, job.digest),
            )
            note(OPERATOR)

    @staticmethod
    def _put(database: sqlite3.Connection, job: Job, state: State) -> None:
        """A job in this state, whether it was known or not; but a no is only taken back by the operator."""
        database.execute(
            "INSERT INTO jobs (digest, job, offered, state) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (digest) DO UPDATE SET state = excluded.state WHERE state <> 'revoked'",
            (job.digest, job.canonical(), time.time(), state),
        )

    def _read(self) -> dict[str, Entry]:
        """Every job, by its digest; read again only if the file has changed."""
        now = self._database.stamp()
        if now is None:
            self._entries = {}
        elif now != self._seen:
            with self._database.opened() as database:
                jobs = database.execute("SELECT * FROM jobs").fetchall()
                runs = database.execute("SELECT digest, run, by FROM runs").fetchall()
            of: dict[str, dict[str, str]] = {}
            for row in runs:
                of.setdefault(row["digest"], {})[row["run"]] = row["by"]
            self._entries = {row["digest"]: _entry(row, of.get(row["digest"], {})) for row in jobs}
        self._seen = now
        return self._entries


def _entry(row: sqlite3.Row, runs: dict[str, str]) -> Entry:
    return Entry(
        job=Job.from_dict(json.loads(row["job"])),
        offered=row["offered"],
        state=row["state"],
        code=row["code"],
        detail=row["detail"],
        allowed=row["allowed"],
        runs=runs,
        decided=row["decided"],
        by=row["by"],
        reason=row["reason"],
    )
