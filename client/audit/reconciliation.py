"""That the record agrees with the ledger, which knows what was charged, and with the replies that are kept.

Every release under privacy names the charges that pay for it; each is in the ledger, is of this round, and pays for no
other. Every charge whose reply was stored has a release. Every reply that is kept, and would be sent again, was
recorded when it was made. What was before the record began, or before the operator accepted a ledger of which something
is missing, cannot be asked for; it is said that it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from client.audit.entries import Released
from client.audit.findings import Findings
from client.ledger import Ledger
from client.ledger.entries import Books, Charged, Decision
from client.site import Site
from shared import errors

_Round = tuple[str, str, int, str]  # job, run, number, model

_WATCH = "stop the daemon, and find out which version or which hand did this; tell the data protection officer"


def books(site: Site, findings: Findings) -> Books | None:
    """The ledger; None where it is not trusted, which is a fault."""
    try:
        return Ledger(site).read()
    except errors.Refused as refused:
        do = f"`insitu-client budget accept --home {site.home}` says what is known; then verify again"
        findings.fault(None, refused.detail, do)
        return None


def kept(site: Site) -> list[Path]:
    """The files of the stored replies."""
    return sorted(path for path in (site.home / "replies").glob("*/*") if not path.name.startswith("."))


def with_ledger(findings: Findings, books: Books) -> None:
    """Hold the record against the ledger."""
    accepted = max((entry.time for entry in books.entries.values() if isinstance(entry, Decision)), default=0.0)
    paid_for: dict[tuple[int, str], int] = {}
    answered: set[_Round] = set()
    lost = 0
    for one in findings.entries:
        entry, number = one.entry, one.line.number
        if not isinstance(entry, Released) or entry.again:
            continue
        known = {charge: found for charge in entry.charges if (found := _charge(books, charge)) is not None}
        answered |= {_round(found) for found in known.values()}
        for charge, found in known.items():
            if (found.job, found.run, found.round, found.dataset) != (entry.job, entry.run, entry.round, entry.dataset):
                findings.fault(number, f"names charge {charge[0]}, which is of another round or dataset", _WATCH)
        if unknown := [charge for charge in entry.charges if charge not in known]:
            if entry.time <= accepted:
                lost += len(unknown)
            else:
                names = ", ".join(f"{charge} ({link[:12]})" for charge, link in unknown)
                what = f"names what is not in the ledger: charge {names}"
                findings.fault(number, what, f"the ledger was changed or exchanged: {_WATCH}")
            continue
        _paid(findings, number, entry, {found.split: charge for charge, found in known.items()}, paid_for)
    if lost:
        findings.notes.append(
            f"{lost} charges that releases name are not in the ledger any more, which the operator accepted later "
            "(`insitu-client budget` shows the decision)"
        )
    _settled(findings, books, answered)


def _paid(
    findings: Findings,
    number: int,
    entry: Released,
    splits: Mapping[str, tuple[int, str]],
    paid_for: dict[tuple[int, str], int],
) -> None:
    """Whether a release is paid for, by charges that pay for no other."""
    for split in _needed(entry):
        charge = splits.get(split)
        if charge is None:
            what = f"is a release of round {entry.round} of run {entry.run} under privacy, and names no charge to its "
            findings.fault(number, f"{what}{split} patients: it was not paid for", _WATCH)
        elif charge in paid_for:
            what = f"is paid for by charge {charge[0]}, which paid for entry {paid_for[charge]} already"
            findings.fault(number, what, _WATCH)
        else:
            paid_for[charge] = number


def _settled(findings: Findings, books: Books, answered: set[_Round]) -> None:
    """Every charge whose reply was stored has a release."""
    since = findings.began.settled if findings.began is not None else 0
    if since:
        findings.notes.append(f"the ledger's charges up to number {since} were answered before this record began")
    for number in sorted(books.settled):
        entry = books.entries.get(number)
        if number <= since or not isinstance(entry, Charged):
            continue
        if _round(entry) not in answered:
            which = f"round {entry.round} of run {entry.run}"
            what = f"charge {number} of the ledger was answered ({which}), and no entry of the record names it"
            findings.fault(None, what, f"a reply may have left unrecorded, or its entry was taken out: {_WATCH}")


def with_replies(findings: Findings, kept: list[Path]) -> None:
    """Every reply that would be sent again was recorded when it was made."""
    recorded, again = set(), []
    for one in findings.entries:
        if isinstance(one.entry, Released):
            if not one.entry.again:
                recorded.add(one.entry.content)
            elif one.entry.content not in recorded:
                again.append(one.line.number)
    began = findings.began
    older = began is not None and (began.after is not None or bool(began.settled))
    for number in again:
        if not older:
            what = "is a reply that was sent again, and that it was sent before is not recorded"
            findings.fault(number, what, _WATCH)
    if again and older:
        findings.notes.append(f"{len(again)} replies were sent again that were first sent before this record began")
    missing = [path for path, content in _contents(kept) if content not in recorded]
    if older and missing:
        findings.notes.append(f"{len(missing)} kept replies are not in the record: they may be from before it began")
    else:
        for path in missing:
            what = f"the kept reply {path.parent.name}/{path.name} is not in the record"
            findings.fault(None, what, f"it would be sent to whoever asks again: remove it, and {_WATCH}")


def _contents(kept: list[Path]) -> Iterator[tuple[Path, str]]:
    """The digest of what each says; one that cannot be read is never sent."""
    if not kept:
        return
    from client import replies  # torch comes with it
    from shared.messages import content_digest

    for path in kept:
        try:
            reply = replies.read(path.read_bytes())
        except (OSError, ValueError, KeyError, TypeError):
            continue
        yield path, content_digest(reply)


def _charge(books: Books, charge: tuple[int, str]) -> Charged | None:
    number, link = charge
    entry = books.entries.get(number)
    return entry if isinstance(entry, Charged) and books.links.get(number) == link else None


def _needed(entry: Released) -> list[str]:
    """The splits whose patients have to be paid for: those who trained, and those whose figures left."""
    if not entry.private:
        return []
    if entry.message == "Update":
        return ["train"] * (entry.norm > 0) + ["validation"] * bool(entry.numbers)
    return ["test"] * (entry.message == "Figures" and bool(entry.numbers))


def _round(charge: Charged) -> _Round:
    return charge.job, charge.run, charge.round, charge.model
