"""The lines of a record: each by itself, then their order, whatever is in the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from client.audit import files, keys
from client.audit.chain import Line, Untrusted, parse
from client.audit.entries import Began, parsed
from client.audit.findings import ASK, PUT_BACK, Findings, Numbered


def read(findings: Findings, data: bytes, ours: Ed25519PublicKey | None) -> tuple[int, bytes]:
    """Read every line by itself, then look at their order.

    Args:
        findings: to which entries and faults are added.
        data: of record.jsonl.
        ours: the site's key; None where it is gone.

    Returns:
        The highest number that is accounted for, and what stands behind the last line.
    """
    raws, torn = files.whole_lines(data)
    findings.lines = len(raws)
    key = _signing(findings, raws, ours)
    expected, broken = 1, set()
    for position, raw in enumerate(raws, start=1):
        number = expected
        try:
            line = parse(raw)
        except Untrusted:
            findings.fault(
                number, f"cannot be read (line {position}): it was changed, or is damaged", f"{ASK}; {PUT_BACK}"
            )
            broken.add(number)
            expected += 1
            continue
        if key is None or not line.genuine(key):
            what = f"is not what was written (line {position}): its text, its number or its signature was changed"
            findings.fault(number, what, f"{ASK}; {PUT_BACK}")
            broken.add(number)
            expected += 1
            continue
        try:
            findings.entries.append(Numbered(line, parsed.validate_json(line.body)))
        except ValidationError:
            do = "read the record with the version that wrote it"
            findings.fault(line.number, "was signed here, and is none of this version's", do)
            broken.add(line.number)
        expected = line.number + 1
    _order(findings, broken)
    return max(broken | {one.line.number for one in findings.entries}, default=0), torn


def _signing(findings: Findings, raws: Sequence[bytes], ours: Ed25519PublicKey | None) -> Ed25519PublicKey | None:
    """The key that the lines are signed with: the site's, unless the first entry has another and is signed with it."""
    if ours is not None:
        findings.key = keys.text(ours)
    try:
        first = parse(raws[0]) if raws else None
        entry = parsed.validate_json(first.body) if first is not None else None
        if first is None or not isinstance(entry, Began) or (ours is not None and first.genuine(ours)):
            return ours
        theirs = keys.public(entry.key)
        if not first.genuine(theirs):
            return ours
    except (Untrusted, ValueError):
        return ours
    if ours is not None:
        what = "and the whole record are signed with another key than the site's keys/record.pem"
        findings.fault(first.number, what, f"{ASK}; {PUT_BACK}")
    findings.key = entry.key
    return theirs


def _order(findings: Findings, broken: set[int]) -> None:
    """The numbers, and what each line says it follows."""
    seen: dict[int, Line] = {}
    highest = 0
    for one in findings.entries:
        line = one.line
        if line.number in seen:
            findings.fault(line.number, "stands there a second time", f"{ASK}; {PUT_BACK}")
            continue
        if line.number < highest:
            findings.fault(line.number, f"stands after entry {highest}: the order was changed", f"{ASK}; {PUT_BACK}")
        seen[line.number] = line
        highest = max(highest, line.number)
    began = findings.began
    first = began.after.number + 1 if began is not None and began.after is not None else 1
    for begin, end in _gaps({*seen, *broken}, first):
        findings.fault(begin, f"{are(begin, end)} missing: taken out", f"{ASK}; {PUT_BACK}")
    for number, line in seen.items():
        before = seen.get(number - 1)
        if before is not None and line.before != before.link:
            what = f"follows on another entry {number - 1} than the one that is there"
            findings.fault(number, what, f"a copy of this home has gone on beside it, or its key is known; {ASK}")
    if findings.entries and began is None and not _is_missing(findings, first):
        findings.fault(first, "does not begin the record: what a first entry says is missing", f"{ASK}; {PUT_BACK}")
    if began is not None and findings.entries[0].line.before:
        findings.fault(first, "follows on another entry, and a first one cannot", f"{ASK}; {PUT_BACK}")


def _is_missing(findings: Findings, number: int) -> bool:
    return any(fault.number == number for fault in findings.faults)


def _gaps(numbers: set[int], first: int) -> Iterator[tuple[int, int]]:
    """The spans that are missing, from the first number that there should be."""
    expected = first
    for number in sorted(numbers):
        if number > expected:
            yield expected, number - 1
        expected = max(expected, number + 1)


def are(begin: int, end: int) -> str:
    """What follows on "entry 4": "is", or "to 6 are"."""
    return "is" if begin == end else f"to {end} are"
