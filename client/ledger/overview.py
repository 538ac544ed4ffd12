"""Who has spent what: the figures of `insitu-client budget`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from client.ledger.entries import SPLIT, Books, Budget, Charged, Decision, merged
from client.ledger.ledger import Ledger
from shared import accounting
from shared.console import when


def overview(ledger: Ledger, datasets: Iterable[str] = ()) -> dict[str, Any]:
    """Budgets, jobs and decisions.

    Args:
        ledger: of the site.
        datasets: to show beside those that were charged or that site.toml names.

    Returns:
        claim: what an ε says.
        datasets: a row for each split that was charged (the training split where none was): dataset, split, epsilon and
            delta of the budget in force, and in ε `spent`, `reserved` (what rounds under way, or whose reply was never
            stored, add to it) and `left`.
        jobs: a row for each job: dataset, split, job, digest, rounds, charges (more than the rounds where some were
            charged again), epsilon (what it spent by itself), last (when), after (the ε of the split after one more
            round of it), at_most (whether that is a looser bound than the one that decides).
        decisions: time, what and reason of every budget that was written and every ledger that was accepted.
        ignored: what site.toml says of budgets that does not count.

    Raises:
        Refused: `ledger`, if the file cannot be trusted.
    """
    books = ledger.read()
    rows: list[dict[str, Any]] = []
    jobs: list[dict[str, Any]] = []
    for dataset in sorted({*books.datasets, *ledger.site.config.datasets, *datasets}):
        rules = ledger.in_force(books, dataset)
        for split in sorted(books.datasets.get(dataset, {SPLIT})):
            total = accounting.epsilon(books.history(dataset, split), delta=rules.delta)
            charges = books.charges(dataset, split)
            settled = [entry for number, entry in charges if number in books.settled or not entry.run]
            spent = min(total, accounting.epsilon(merged(settled), delta=rules.delta))
            row = {"dataset": dataset, "split": split, "epsilon": rules.epsilon, "delta": rules.delta}
            left = max(0.0, rules.epsilon - total)
            rows.append({**row, "spent": spent, "reserved": total - spent, "left": left})
            jobs += _jobs(books, dataset, split, rules.delta)
    return {
        "claim": accounting.CLAIM,
        "datasets": rows,
        "jobs": jobs,
        "decisions": [*_decisions(books)],
        "ignored": ledger.ignored(books),
    }


def _jobs(books: Books, dataset: str, split: str, delta: float) -> Iterator[dict[str, Any]]:
    of_jobs: dict[str, list[Charged]] = {}
    for _, entry in books.charges(dataset, split):
        of_jobs.setdefault(entry.job, []).append(entry)
    for digest, charges in of_jobs.items():
        rounds = [entry for entry in charges if entry.run]
        more = merged([*(entry for _, entry in books.charges(dataset, split)), *rounds[-1:]])
        yield {
            "dataset": dataset,
            "split": split,
            "job": charges[-1].name or "presumed",
            "digest": digest or None,
            "rounds": len({(entry.run, entry.round) for entry in rounds}),
            "charges": len(rounds),
            "epsilon": accounting.epsilon(merged(charges), delta=delta),
            "last": when(charges[-1].time),
            "after": accounting.quick_epsilon(more, delta=delta) if rounds else None,
            "at_most": not accounting.is_quick(more),
        }


def _decisions(books: Books) -> Iterator[dict[str, Any]]:
    for entry in books.entries.values():
        if isinstance(entry, Budget):
            what = f"{entry.dataset}: budget ε = {entry.epsilon:g}, δ = {entry.delta:g}"
        elif isinstance(entry, Decision):
            presumed = ", ".join(f"{name}: ε = {epsilon:g}" for name, epsilon in entry.presumed.items())
            what = f"ledger accepted: {entry.found}" + (f"; counted as spent at least: {presumed}" if presumed else "")
        else:
            continue
        yield {"time": when(entry.time), "what": what, "reason": entry.reason}
