"""A receipt of every round: who was asked, who contributed what with which weight, who did not and why.

    runs/<run>/receipts.jsonl        one line a round

Each is chained to the one before (SHA-256) and signed with the coordinator's key, whose certificate is in it: whoever
has the coordinator's CA, as every site does, can check it without asking anybody. A site finds its own contributions in
it by their digests, which are in its record as well (`insitu-client audit check`); that the coordinator did add up what
it says is not proved by it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path

from server.store import RoundRow
from shared.arrays import Arrays
from shared.files import write_atomically
from shared.job import Job
from shared.receipts import Contribution, Line, Receipt, linked

Sign = Callable[[bytes], bytes]
NAME = "receipts.jsonl"


class Receipts:
    """Writes a run's receipts; one of the observers of the round loop.

    Args:
        folder: the run's.
        job: of the run.
        run: its name.
        certificate: of the coordinator (PEM), and
        sign: with its key; None where nobody is to be convinced, in simulations.
    """

    def __init__(self, folder: Path, job: Job, run: str, *, certificate: str = "", sign: Sign | None = None) -> None:
        self._file = folder / NAME
        self._job, self._run = job, run
        self._certificate, self._sign = certificate, sign

    def began(self, model: Arrays) -> None:
        """Nothing has been contributed yet."""

    def standings_changed(self, standings: Mapping[str, str]) -> None:
        """Who takes part is in the rounds."""

    def waits(self, what: str) -> None:
        """Nothing new."""

    def round_ended(self, row: RoundRow, model: Arrays, state: Arrays) -> None:
        """Write the round's receipt; one of a round that broke off before it was in the store is replaced."""
        lines = [line for line in read(self._file.parent) if line.receipt.round < row.round]
        receipt = Receipt(
            job=self._job.digest,
            run=self._run,
            round=row.round,
            ended=row.ended,
            quorum=self._job.federation.min_sites,
            contributed={
                site: Contribution(content=content, weight=weight)
                for site, (content, weight) in row.contributions.items()
            },
            missing=dict(row.missing),
            model=row.model,
        )
        link = linked(lines[-1].link if lines else "", receipt)
        signature = base64.b64encode(self._sign(link.encode())).decode() if self._sign else ""
        lines.append(Line(receipt=receipt, link=link, certificate=self._certificate, signature=signature))
        text = "".join(f"{line.model_dump_json()}\n" for line in lines)
        write_atomically(self._file, text.encode())

    def ended(self, model: Arrays, figures: Mapping[str, Mapping[str, float]]) -> None:
        """The last round has its receipt already."""


def read(folder: Path) -> list[Line]:
    """The receipts in a run's folder, in order."""
    file = folder / NAME
    if not file.exists():
        return []
    return [Line.model_validate_json(line) for line in file.read_text(encoding="utf-8").splitlines()]
