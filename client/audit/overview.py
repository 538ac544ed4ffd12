"""Who was told what: the entries as rows, and their sums by job."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from client.audit.counts import in_words
from client.audit.entries import AnyEntry, Began, Counted, Decided, Mended, Refused, Rekeyed, Released
from client.audit.findings import Numbered
from shared.console import when

COLUMNS = {
    "number": "number",
    "time": "time",
    "what": "what",
    "job": "job",
    "run": "run",
    "round": "round",
    "dataset": "dataset",
    "bytes": "bytes",
    "norm": "norm",
    "epsilon": "ε at most",
    "detail": "detail",
}


@dataclass
class Total:
    """What the record says of one job.

    Attributes:
        job, name: digest and name.
        rounds: of which an update left.
        releases: replies that left, each time they did.
        bytes: of them.
        refusals: messages about the job that were refused.
        epsilon: what its dataset had spent after its last release, at most; None where it cost none.
        private: whether it promises privacy.
    """

    job: str
    name: str
    rounds: set[tuple[str, int]] = field(default_factory=set)
    releases: int = 0
    bytes: int = 0
    refusals: int = 0
    epsilon: float | None = None
    private: bool = True


def chosen(
    entries: Iterable[Numbered], *, job: str = "", since: float = 0.0, last: int | None = None
) -> list[Numbered]:
    """Those about a job (its name, or how its digest begins), from a time on, the last so many of them."""
    found = [one for one in entries if one.entry.time >= since and (not job or _concerns(one.entry, job))]
    return found if last is None else found[max(0, len(found) - last) :]


def row(one: Numbered) -> dict[str, object]:
    """An entry as a row of `COLUMNS`; what it does not say is None."""
    entry = one.entry
    told: dict[str, object] = {
        "number": one.line.number,
        "time": when(entry.time),
        "what": _what(entry),
        "job": getattr(entry, "name", None) or (getattr(entry, "job", "") or "")[:12] or None,
        "run": getattr(entry, "run", None) or None,
        "round": getattr(entry, "round", None) or None,
        "dataset": getattr(entry, "dataset", None) or None,
        "bytes": None,
        "norm": None,
        "epsilon": None,
        "detail": _detail(entry),
    }
    if isinstance(entry, Released):
        told |= {"bytes": entry.bytes, "norm": None if entry.again else entry.norm, "epsilon": entry.epsilon}
    return told


def totals(entries: Iterable[Numbered]) -> list[Total]:
    """The sums by job, in the order in which the jobs came; what concerns none of them is not here."""
    of: dict[str, Total] = {}
    for one in entries:
        entry = one.entry
        if isinstance(entry, Counted):
            for count in entry.answers:
                if count.job:
                    total = of.setdefault(count.job, Total(count.job, count.name))
                    total.refusals += count.times if count.code else 0
                    total.releases += 0 if count.code else count.times
        elif isinstance(entry, Released | Refused | Decided) and entry.job:
            total = of.setdefault(entry.job, Total(entry.job, entry.name))
            total.name = total.name or entry.name
            if isinstance(entry, Refused):
                total.refusals += 1
            elif isinstance(entry, Released):
                _add(total, entry)
    return list(of.values())


def _add(total: Total, entry: Released) -> None:
    total.releases += 1
    total.bytes += entry.bytes
    total.private = entry.private
    if entry.message == "Update":
        total.rounds.add((entry.run, entry.round))
    if entry.epsilon is not None:
        total.epsilon = entry.epsilon


def _concerns(entry: AnyEntry, job: str) -> bool:
    about = [(one.name, one.job) for one in entry.answers] if isinstance(entry, Counted) else []
    if isinstance(entry, Released | Refused | Decided):
        about = [(entry.name, entry.job)]
    return any(name == job or (len(job) >= 4 and digest.startswith(job.lower())) for name, digest in about)


def _what(entry: AnyEntry) -> str:
    if isinstance(entry, Released):
        return f"{entry.message} left" + (" again" if entry.again else "")
    if isinstance(entry, Refused):
        return f"{entry.message} refused ({entry.code})"
    if isinstance(entry, Decided):
        return f"{entry.what}, by {entry.by}"
    return {"began": "the record began", "counted": "counted", "mended": "mended", "rekeyed": "the site's key changed"}[
        entry.kind
    ]


def _detail(entry: AnyEntry) -> str | None:
    if isinstance(entry, Released):
        numbers = ", ".join(f"{name} {value:g}" for name, value in entry.numbers.items())
        charges = ", ".join(str(number) for number, _ in entry.charges)
        paid = f"charges {charges}" if charges else ("" if entry.private else "no privacy")
        return "; ".join(part for part in (numbers, paid) if part) or None
    if isinstance(entry, Decided):
        return entry.reason or None
    if isinstance(entry, Counted):
        return "; ".join(in_words(entry.answers))
    if isinstance(entry, Began):
        return f"{entry.found}; {entry.reason}" if entry.reason else f"key {entry.key[:12]}"
    if isinstance(entry, Rekeyed):
        return "signed by the one before"
    if isinstance(entry, Mended):
        return f"{entry.bytes} bytes of an unfinished entry were cut off"
    return None
