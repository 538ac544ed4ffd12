"""A coordinator's receipts held against this site's record: was what left here counted, and was it what left?"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from client.audit.entries import AnyEntry, Released
from shared import identity
from shared.errors import BadInput
from shared.receipts import Line, linked

_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Compared:
    """What came of it.

    Attributes:
        rounds: one row a round: round, standing (`contributed`, a code, or `not asked`), sites (how many contributed),
            agrees (None where there is nothing to compare).
        faults: what is wrong, in words.
    """

    rounds: list[dict[str, object]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read(file: Path) -> list[Line]:
    """The receipts of one run.

    Raises:
        BadInput: if it is no such file.
    """
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise BadInput("is too large for a file of receipts", file=file)
        lines = [Line.model_validate_json(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise BadInput("no such file; `insitu-server receipts RUN --out FILE` writes one", file=file) from None
    except (OSError, UnicodeDecodeError, ValidationError):
        what = "is no file of receipts as `insitu-server receipts RUN --out FILE` writes it"
        raise BadInput(what, file=file) from None
    if not lines:
        raise BadInput("has no receipts", file=file)
    return lines


def compare(lines: Sequence[Line], entries: Sequence[AnyEntry], *, site: str, ca: bytes) -> Compared:
    """Hold receipts against a record.

    Args:
        lines: the receipts of one run, of every round from the first on.
        entries: of the record, as they were written.
        site: the name by which the coordinator knows this site.
        ca: the coordinator's certificate authority (PEM).
    """
    compared = Compared()
    run, job = lines[0].receipt.run, lines[0].receipt.job
    left: dict[int, set[str]] = {}
    for entry in entries:
        if isinstance(entry, Released) and entry.message == "Update" and (entry.run, entry.job) == (run, job):
            left.setdefault(entry.round, set()).add(entry.content)
    before = ""
    for number, line in enumerate(lines, start=1):
        compared.faults.extend(f"round {number}: {what}" for what in _wrong(line, number, run, job, before, ca))
        before = line.link
        _compare(compared, line, left.pop(line.receipt.round, set()), site)
    for number in sorted(left):
        compared.faults.append(f"round {number}: an update left here, and there is no receipt of that round")
    return compared


def _wrong(line: Line, number: int, run: str, job: str, before: str, ca: bytes) -> list[str]:
    """What is wrong with a receipt by itself, and with its place."""
    receipt, wrong = line.receipt, []
    if (receipt.run, receipt.job) != (run, job):
        wrong.append("it is of another run")
    if receipt.round != number:
        wrong.append(f"it is of round {receipt.round}: one is missing, or they are in another order")
    if line.link != linked(before, receipt):
        wrong.append("it was changed, or the one before it was")
    try:
        signature = base64.b64decode(line.signature, validate=True)
    except binascii.Error:
        signature = b""
    if not identity.is_certified(line.certificate.encode(), signature, line.link.encode(), ca_pem=ca):
        wrong.append("it is not signed by the coordinator of this site's ca.pem")
    if len(receipt.contributed) < receipt.quorum:
        wrong.append(f"{len(receipt.contributed)} sites contributed, and the job asks for {receipt.quorum}")
    return wrong


def _compare(compared: Compared, line: Line, left: set[str], site: str) -> None:
    receipt = line.receipt
    contribution, agrees = receipt.contributed.get(site), None
    standing = "contributed" if contribution else receipt.missing.get(site, "not asked")
    if contribution is not None:
        agrees = contribution.content in left
        if not agrees:
            what = "what left here then was something else" if left else "nothing left here then"
            compared.faults.append(f"round {receipt.round}: this site is said to have contributed, and {what}")
    elif left and site not in receipt.missing:
        agrees = False
        compared.faults.append(f"round {receipt.round}: an update left here, and the receipt does not name this site")
    compared.rounds.append(
        {"round": receipt.round, "standing": standing, "sites": len(receipt.contributed), "agrees": agrees}
    )
