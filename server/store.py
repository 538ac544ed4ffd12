"""The run store: runs and what happened in each round, in the coordinator's SQLite file.

HOME/store.sqlite
HOME/runs/<run>/initial.safetensors, rounds/0001.safetensors …, model.safetensors
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from server.database import Database, now
from server.sites import Sites
from shared.errors import BadInput
from shared.job import Job

Status = Literal["submitted", "running", "stopping", "completed", "failed", "stopped"]
ENDED: frozenset[Status] = frozenset({"completed", "failed", "stopped"})

ACCEPTED = "accepted"  # how a site stands that takes part in a run; another standing is the code of why not


@dataclass(frozen=True)
class RunRow:
    """One run of a job; times are ISO 8601 in UTC."""

    id: str
    job: Job
    digest: str
    flower_run_id: int | None
    status: Status
    message: str
    submitted: str
    ended: str | None


@dataclass(frozen=True)
class RoundRow:
    """What one round came to.

    Attributes:
        round: from 1.
        seconds: from asking to the new global model.
        contributed: the sites whose updates are in the model.
        missing: the other sites that were asked, each with the code of why.
        numbers: what the sites said of the incoming model, by site.
        model: SHA-256 of the new global model.
        contributions: of each site that contributed the digest of its reply and the weight it was added up with.
        ended: when, ISO 8601 in UTC.
    """

    round: int
    seconds: float
    contributed: tuple[str, ...]
    missing: Mapping[str, str]
    numbers: Mapping[str, Mapping[str, float]]
    model: str
    contributions: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    ended: str = field(default_factory=now)


class Store(Database):
    """Runs, and what happened in each."""

    schema = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, job TEXT NOT NULL, digest TEXT NOT NULL, flower_run_id TEXT,
    status TEXT NOT NULL, message TEXT NOT NULL DEFAULT '', submitted TEXT NOT NULL, ended TEXT);
CREATE TABLE IF NOT EXISTS rounds (
    run TEXT NOT NULL REFERENCES runs(id), round INTEGER NOT NULL, seconds REAL NOT NULL,
    contributed TEXT NOT NULL, missing TEXT NOT NULL, numbers TEXT NOT NULL, model TEXT NOT NULL, ended TEXT NOT NULL,
    contributions TEXT NOT NULL,
    PRIMARY KEY (run, round));
CREATE TABLE IF NOT EXISTS standings (
    run TEXT NOT NULL REFERENCES runs(id), site TEXT NOT NULL, standing TEXT NOT NULL, since TEXT NOT NULL,
    PRIMARY KEY (run, site));
CREATE TABLE IF NOT EXISTS figures (
    run TEXT NOT NULL REFERENCES runs(id), site TEXT NOT NULL, numbers TEXT NOT NULL, PRIMARY KEY (run, site));
"""

    @property
    def home(self) -> Path:
        """The coordinator's home."""
        return self.path.parent

    @property
    def sites(self) -> Sites:
        """The sites, which are in the same file."""
        return Sites(self.path)

    # Runs

    def create_run(self, job: Job) -> str:
        """A new run of this job; its id begins with the job's name."""
        run = f"{job.name}-{secrets.token_hex(4)}"
        with self._transaction() as db:
            db.execute(
                "INSERT INTO runs (id, job, digest, status, submitted) VALUES (?, ?, ?, 'submitted', ?)",
                (run, job.canonical(), job.digest, now()),
            )
        return run

    def set_flower_run(self, run: str, flower_run_id: int) -> None:
        """Remember Flower's name of the run."""
        with self._transaction() as db:
            db.execute("UPDATE runs SET flower_run_id = ? WHERE id = ?", (str(flower_run_id), run))

    def set_status(self, run: str, status: Status, message: str = "") -> None:
        """Remember how the run stands; the message is for the coordinator's operator."""
        ended = now() if status in ENDED else None
        # What is to be stopped is not said to run any more, whatever its process still does.
        kept = "stopping" if status in ("running", "submitted") else ""
        with self._transaction() as db:
            db.execute(
                "UPDATE runs SET status = ?, message = ?, ended = ? WHERE id = ? AND status <> ?",
                (status, message, ended, run, kept),
            )

    def run(self, run: str) -> RunRow:
        """One run, by its id.

        Raises:
            BadInput: if there is none.
        """
        with self._transaction() as db:
            row = db.execute("SELECT * FROM runs WHERE id = ?", (run,)).fetchone()
        if row is None:
            raise BadInput(f"there is no run {run!r} here; `insitu-server runs` lists them")
        return _run_row(row)

    def runs(self) -> list[RunRow]:
        """All runs, the newest first."""
        with self._transaction() as db:
            return [_run_row(row) for row in db.execute("SELECT * FROM runs ORDER BY submitted DESC, rowid DESC")]

    def waiting(self) -> list[str]:
        """The ids of the runs that nobody has begun, the oldest first; cheap enough to ask for all the time."""
        with self._transaction() as db:
            return [row["id"] for row in db.execute("SELECT id FROM runs WHERE status = 'submitted' ORDER BY rowid")]

    def stopping(self) -> list[str]:
        """The ids of the runs that are to be stopped."""
        with self._transaction() as db:
            return [row["id"] for row in db.execute("SELECT id FROM runs WHERE status = 'stopping'")]

    def stop(self, run: str, message: str) -> Status:
        """Stop a run: at once if nobody has begun it, else its process is still to be ended.

        Returns:
            How it stands now; an ended run stays as it was.
        """
        with self._transaction() as db:
            db.execute(
                "UPDATE runs SET message = ?1, ended = CASE status WHEN 'submitted' THEN ?2 END, "
                "status = CASE status WHEN 'submitted' THEN 'stopped' ELSE 'stopping' END "
                "WHERE id = ?3 AND status IN ('submitted', 'running')",
                (message, now(), run),
            )
        return self.run(run).status

    def folder(self, run: str) -> Path:
        """Where the run's models are; made if it is not there yet."""
        folder = self.home / "runs" / run
        (folder / "rounds").mkdir(parents=True, exist_ok=True)
        return folder

    # Who takes part

    def set_standings(self, run: str, standings: Mapping[str, str]) -> None:
        """Remember what the sites said of taking part: `accepted`, or the code of why not."""
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO standings VALUES (?, ?, ?, ?) ON CONFLICT (run, site) DO UPDATE "
                "SET standing = excluded.standing, since = excluded.since WHERE standing <> excluded.standing",
                [(run, site, standing, now()) for site, standing in standings.items()],
            )

    def standings(self, run: str) -> dict[str, dict[str, str]]:
        """By site: `standing` (`accepted`, or a code) and `since`."""
        with self._transaction() as db:
            rows = db.execute("SELECT * FROM standings WHERE run = ? ORDER BY site", (run,)).fetchall()
        return {row["site"]: {"standing": row["standing"], "since": row["since"]} for row in rows}

    # Rounds

    def add_round(self, run: str, row: RoundRow) -> None:
        """Remember what a round came to."""
        values = asdict(row)
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO rounds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run,
                    row.round,
                    row.seconds,
                    *(json.dumps(values[key]) for key in ("contributed", "missing", "numbers")),
                    row.model,
                    row.ended,
                    json.dumps(values["contributions"]),
                ),
            )

    def rounds(self, run: str) -> list[RoundRow]:
        """The rounds of a run, in order."""
        with self._transaction() as db:
            rows = db.execute("SELECT * FROM rounds WHERE run = ? ORDER BY round", (run,)).fetchall()
        return [
            RoundRow(
                round=row["round"],
                seconds=row["seconds"],
                contributed=tuple(json.loads(row["contributed"])),
                missing=json.loads(row["missing"]),
                numbers=json.loads(row["numbers"]),
                model=row["model"],
                ended=row["ended"],
                contributions={site: (one[0], one[1]) for site, one in json.loads(row["contributions"]).items()},
            )
            for row in rows
        ]

    def set_figures(self, run: str, figures: Mapping[str, Mapping[str, float]]) -> None:
        """Remember what the sites said of the final model."""
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO figures VALUES (?, ?, ?)",
                [(run, site, json.dumps(dict(numbers))) for site, numbers in figures.items()],
            )

    def figures(self, run: str) -> dict[str, dict[str, float]]:
        """What the sites said of the final model, by site."""
        with self._transaction() as db:
            rows: Sequence[Any] = db.execute(
                "SELECT site, numbers FROM figures WHERE run = ? ORDER BY site", (run,)
            ).fetchall()
        return {row["site"]: json.loads(row["numbers"]) for row in rows}


def _run_row(row: sqlite3.Row) -> RunRow:
    return RunRow(
        id=row["id"],
        job=Job.from_dict(json.loads(row["job"]), file=f"run {row['id']}"),
        digest=row["digest"],
        flower_run_id=None if row["flower_run_id"] is None else int(row["flower_run_id"]),
        status=row["status"],
        message=row["message"],
        submitted=row["submitted"],
        ended=row["ended"],
    )
