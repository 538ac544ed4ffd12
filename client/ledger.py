"""The privacy ledger: what every dataset of this site has spent, over all jobs for ever, on disk.

A charge is written, and is on the disk, before the first gradient of its round is computed. Whatever happens after
that (the process killed, the reply lost, the training failed) it counts as spent, for the site cannot know what has
left. Asked again for a round whose reply is stored, a site answers with the stored bytes and charges nothing; where
there is none it draws new noise, and that is a new charge.

ε is composed over the whole history of a dataset at the dataset's own δ, whatever the jobs declared: budgets are the
hospital's. No message can raise one; only `site.toml` says what they are.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.site import DatasetRules, Site
from shared import accounting
from shared.accounting import Charge
from shared.errors import RefusalCode, Refused

_WAIT_SECONDS = 60.0
_APPLICATION = 0x1E46E2  # SQLite's mark of whose file it is
_SCHEMA = """
CREATE TABLE charges (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    dataset TEXT NOT NULL,
    job TEXT NOT NULL,
    run TEXT NOT NULL,
    round INTEGER NOT NULL,
    model TEXT NOT NULL,
    noise_multiplier REAL NOT NULL CHECK (noise_multiplier >= 0),
    sample_rate REAL NOT NULL CHECK (sample_rate > 0 AND sample_rate <= 1),
    steps INTEGER NOT NULL CHECK (steps >= 0),
    state TEXT NOT NULL CHECK (state IN ('reserved', 'spent')),
    reserved REAL NOT NULL
) STRICT;
CREATE INDEX charges_of ON charges (dataset, job, run);
"""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of one run, as the ledger knows it.

    Attributes:
        job: digest.
        run: the coordinator's name of it.
        number: of the round.
        model: digest of the incoming model.
    """

    job: str
    run: str
    number: int
    model: str


class Ledger:
    """The ledger of one site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.file = site.home / "ledger.sqlite"

    def reserve(self, dataset: str, charge: Charge, *, of: Round, planned: int) -> int:
        """Charge a round to a dataset, durably, or refuse.

        Args:
            dataset: its name; its budget is what site.toml says.
            charge: σ, q and the steps of this round.
            of: the round.
            planned: steps of the whole job. Nothing is charged for them: once all of them fit, each round does.

        Returns:
            The charge's number, for `settle`.

        Raises:
            Refused: `over_budget`, if everything charged to the dataset together with this would exceed its budget;
                `ledger`, if the file cannot be written or trusted.
        """
        budget = self._site.rules(dataset)
        with self._open(write=True) as database:
            everything = _history(database, dataset)
            taken = sum(steps for *_, steps in _history(database, dataset, of.job, of.run))
            _check(everything, charge, planned - taken, dataset, budget)
            row = database.execute(
                "INSERT INTO charges (dataset, job, run, round, model, noise_multiplier, sample_rate, steps, state,"
                " reserved) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'reserved', ?)",
                (dataset, of.job, of.run, of.number, of.model, *charge, time.time()),
            )
            return int(row.lastrowid or 0)

    def check(self, dataset: str, charge: Charge, *, planned: int) -> None:
        """Whether the first round of a new run could be charged; nothing is.

        Raises:
            Refused: as `reserve`.
        """
        _check(self.history(dataset), charge, planned, dataset, self._site.rules(dataset))

    def settle(self, number: int) -> None:
        """Note that the reply of a reserved round is stored. It is charged either way.

        Raises:
            Refused: `ledger`, as `reserve`.
        """
        with self._open(write=True) as database:
            database.execute("UPDATE charges SET state = 'spent' WHERE id = ?", (number,))

    def history(self, dataset: str, job: str | None = None, run: str | None = None) -> list[Charge]:
        """Everything charged to a dataset, or that of one job (its digest), or of one run: σ, q, steps, merged.

        Raises:
            Refused: `ledger`, if the file cannot be trusted.
        """
        with self._open() as database:
            return _history(database, dataset, job, run)

    def spent(self, dataset: str, delta: float | None = None) -> float:
        """The ε that all jobs together have spent of a dataset, at this δ or at its budget's.

        Raises:
            Refused: `ledger`, if the file cannot be trusted.
        """
        return accounting.epsilon(self.history(dataset), delta=delta or self._site.rules(dataset).delta)

    @contextmanager
    def _open(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction; whatever is written in it is on the disk afterwards.

        Raises:
            Refused: `ledger`.
        """
        try:
            if not self.file.exists():
                _create(self.file)
            elif not self.file.stat().st_size:
                raise sqlite3.DatabaseError("the file is empty")
            database = sqlite3.connect(f"file:{self.file}?mode=rw", uri=True, timeout=_WAIT_SECONDS)
            try:
                _trust(database)
                database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                yield database
                database.commit()
            finally:
                database.close()  # without the commit above: as if nothing had been written
        except (sqlite3.Error, OSError, ValueError) as error:
            raise Refused(
                RefusalCode.LEDGER,
                f"{self.file} cannot be written or trusted ({type(error).__name__}: {error}); nothing is trained under "
                "privacy until it is restored from a back-up of the home",
            ) from None


def _check(everything: list[Charge], charge: Charge, planned: int, dataset: str, budget: DatasetRules) -> None:
    """Refuse a charge that does not fit into the budget beside everything charged before.

    Whether all that is left of the run fits is asked first: the answer is the same for every round of it, so that it is
    worked out once.
    """
    noise_multiplier, sample_rate, steps = charge
    rest = (noise_multiplier, sample_rate, max(steps, planned))
    for more in (rest, charge):
        if accounting.within([*everything, more], delta=budget.delta, epsilon=budget.epsilon):
            return
    spent = accounting.epsilon(everything, delta=budget.delta)
    raise Refused(
        RefusalCode.OVER_BUDGET,
        f"dataset {dataset}: ε = {spent:.3f} of {budget.epsilon:g} is spent (δ = {budget.delta:g}), and {steps} steps "
        f"with σ = {noise_multiplier:g} at sample rate {sample_rate:g} would exceed it",
    )


def _trust(database: sqlite3.Connection) -> None:
    database.isolation_level = None
    database.execute("PRAGMA synchronous = EXTRA")
    (application,) = database.execute("PRAGMA application_id").fetchone()
    if application != _APPLICATION:
        raise sqlite3.DatabaseError("it is not a ledger")
    (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if state != "ok":
        raise sqlite3.DatabaseError("it is damaged")


def _create(file: Path) -> None:
    """A ledger appears whole: an empty or half-made file is always a damaged one, never a new one."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    database = sqlite3.connect(draft)
    try:
        database.executescript(f"PRAGMA application_id = {_APPLICATION}; PRAGMA synchronous = EXTRA; {_SCHEMA}")
    finally:
        database.close()
    draft.chmod(0o600)
    try:
        file.hardlink_to(draft)  # not `rename`: a ledger that another process has just made must stay
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _history(
    database: sqlite3.Connection, dataset: str, job: str | None = None, run: str | None = None
) -> list[Charge]:
    """Charges of equal σ and q added up, which is all that composition needs."""
    rows = database.execute(
        "SELECT noise_multiplier, sample_rate, SUM(steps) FROM charges"
        " WHERE dataset = ?1 AND (?2 IS NULL OR job = ?2) AND (?3 IS NULL OR run = ?3)"
        " GROUP BY noise_multiplier, sample_rate ORDER BY noise_multiplier, sample_rate",
        (dataset, job, run),
    )
    return [(float(noise), float(rate), int(steps)) for noise, rate, steps in rows]
