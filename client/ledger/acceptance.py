"""What becomes of a ledger that is not trusted: the operator's decision, after which nothing known counts for less.

Two may know what was spent: ledger.sqlite, where it can be read, and the witness, which holds the sums. Of each job's
steps the higher number counts, of each budget the stricter one. Where the witness is the one that was written last,
nothing is lost but which round was which. Where it is gone, damaged or a copy, nobody knows what was spent since: a
dataset counts as spent in full, unless the operator says how much it is to count as having spent at least.

A decision is an entry of the ledger, with what was found and the operator's reason, and its number is above every one
that was ever witnessed: the gap stays visible. A file that cannot be read is set aside, never deleted. Killed at any
point, the ledger is still not trusted, and the same command does the rest.

To put back the ledger that is missing, where it still is somewhere, needs no decision. Of two copies of a home that
both went on, neither knows the other's rounds: their sum is for the operator to say.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from client.data.records import SPLITS
from client.ledger import journal, witness
from client.ledger.entries import Books, Budget, Charged, Decision, Untrusted, same
from client.ledger.ledger import Ledger
from shared import accounting
from shared.errors import BadInput

_MOST_NOISE = 1_000_000  # in thousandths; above, the ε is nothing


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is known of a ledger that is not trusted.

    Attributes:
        trouble: what is wrong; None where nothing is.
        ledger: what ledger.sqlite says; None where it cannot be read.
        witnessed: the sums that the witness holds; None where there are none.
        complete: whether the two together know everything that was spent.
    """

    trouble: str | None
    ledger: Books | None
    witnessed: Books | None
    complete: bool

    def known(self) -> Books:
        """The higher of what ledger and witness know."""
        books = Books()
        for entry in self.ledger.condensed() if self.ledger is not None else ():
            books.append(entry)
        for entry in self.missing():
            books.append(entry)
        return books

    def missing(self) -> Iterator[Charged | Budget | Decision]:
        """What the witness knows beyond the ledger."""
        known = self.ledger.condensed() if self.ledger is not None else []
        charged = {same(entry): entry.steps for entry in known if isinstance(entry, Charged)}
        budgets = {entry.dataset: entry for entry in known if isinstance(entry, Budget)}
        for entry in self.witnessed.condensed() if self.witnessed is not None else ():
            if isinstance(entry, Charged):
                steps = entry.steps - charged.get(same(entry), 0)
                if steps > 0:
                    yield entry.model_copy(update={"steps": steps})
            elif isinstance(entry, Budget) and entry.dataset in budgets:
                ours = budgets[entry.dataset]
                if entry.epsilon < ours.epsilon or entry.delta < ours.delta:
                    stricter = {"epsilon": min(entry.epsilon, ours.epsilon), "delta": min(entry.delta, ours.delta)}
                    yield entry.model_copy(update=stricter)
            elif entry not in known:
                yield entry


def examine(ledger: Ledger) -> Findings:
    """Look at a ledger and its witness; nothing is changed.

    Raises:
        Refused: `ledger`, if they cannot be read for the time being.
    """
    books: Books | None = Books()
    newest, troubles = None, []
    try:
        newest = witness.read(ledger.site.witness)
    except Untrusted as error:
        troubles.append(str(error))
    except OSError as error:
        raise journal.unreachable(ledger.site.witness, error) from None
    try:
        if ledger.file.exists():
            books = None
            with journal.opened(ledger.file, write=False) as database:
                books = journal.read(database)
        if books is not None and not troubles:
            witness.check(newest, books)
    except Untrusted as error:
        troubles.append(str(error))
    witnessed = None
    if newest is not None:
        witnessed = Books()
        for entry in newest.said.entries:
            witnessed.append(entry)
    return Findings(
        trouble="; ".join(troubles) or None,
        ledger=books,
        witnessed=witnessed,
        complete=newest is not None and newest.original,
    )


def accept(
    ledger: Ledger, findings: Findings, *, reason: str, at_least: Mapping[str, float], datasets: Iterable[str]
) -> None:
    """Go on with what is known.

    Args:
        ledger: that is not trusted.
        findings: of it.
        reason: in the operator's words.
        at_least: dataset → the ε that it counts as having spent at least, in each split.
        datasets: that the site has, whether or not anything was charged to them.

    Raises:
        BadInput: if there is no such dataset.
        Refused: `ledger`, if the disk does not let us.
    """
    folder, known = ledger.site.witness, findings.known()
    names = sorted({*known.datasets, *datasets})
    if unknown := sorted({*at_least} - {*names}):
        raise BadInput(f"there is no dataset {unknown[0]!r} here; there are: {', '.join(names) or 'none'}")
    if not names and not findings.complete:
        raise BadInput(
            "no dataset is known here that could count as spent; register them first: insitu-client data add"
        )
    if findings.ledger is None:
        _set_aside(ledger.file)
    with ledger.writing(trusting=True) as books:
        presumed = {
            dataset: at_least.get(dataset, ledger.in_force(known, dataset).epsilon)
            for dataset in names
            if dataset in at_least or not findings.complete
        }
        decision = Decision(found=str(findings.trouble), reason=reason, presumed=presumed)
        books.append(decision, after=witness.last(folder))
        for entry in findings.missing():
            books.append(entry)
        for dataset, epsilon in presumed.items():
            _presume(ledger, books, dataset, epsilon)


def _presume(ledger: Ledger, books: Books, dataset: str, epsilon: float) -> None:
    """Charge what brings every split of a dataset to this ε: one release of Gaussian noise, over all its patients."""
    rules = ledger.in_force(books, dataset)
    if books.budget(dataset) is None:
        reason = "as site.toml had it when spending was presumed"
        books.append(Budget(dataset=dataset, epsilon=rules.epsilon, delta=rules.delta, reason=reason))
    for split in SPLITS:
        spent = books.history(dataset, split)

        def too_little(thousandths: int, spent: list[accounting.Charge] = spent) -> bool:
            return accounting.epsilon([*spent, (thousandths / 1000, 1.0, 1)], delta=rules.delta) < epsilon

        if accounting.epsilon(spent, delta=rules.delta) >= epsilon:
            continue
        noise = bisect_left(range(_MOST_NOISE), True, key=too_little) - 1
        books.append(
            Charged(
                dataset=dataset,
                split=split,
                job="",
                name="",
                noise_multiplier=noise / 1000,
                sample_rate=1.0,
                steps=1,
            )
        )


def _set_aside(file: Path) -> None:
    """Rename a ledger that cannot be read, and SQLite's journal beside it, which is for no other file."""
    aside = file.with_name(f"{file.name}.{time.strftime('%Y%m%dT%H%M%S')}.damaged")
    for suffix in ("-journal", ""):
        part = file.with_name(file.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    journal.sync(file.parent)
