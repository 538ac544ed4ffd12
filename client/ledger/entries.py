"""What the ledger holds: entries, one after the other, of which none is ever changed or taken out.

Each entry is a JSON text with a number and a link, the SHA-256 of the link before, the number and the text. So an
entry that was edited, or one that is missing in the middle, is noticed; that the last ones are missing, the witness
notices. It is no protection against somebody who writes the whole chain anew: who may write in the home may do that.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shared.accounting import Charge

SPLIT = "train"


class Untrusted(Exception):
    """The ledger or its witness is not as it was left; the text says what is wrong, for the operator."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of one run, as the ledger knows it.

    Attributes:
        job: digest.
        name: of the job, for people.
        run: the coordinator's name of it.
        number: of the round.
        model: digest of the incoming model.
    """

    job: str
    name: str
    run: str
    number: int
    model: str


@dataclass(frozen=True, kw_only=True)
class Paid:
    """What one release cost, for the record of what left.

    Attributes:
        charges: number and link of each charge that pays for it.
        epsilon: what the dataset has spent after it, at most.
    """

    charges: tuple[tuple[int, str], ...]
    epsilon: float


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    time: float = Field(default_factory=time.time)


class Charged(_Entry):
    """So many steps on the patients of one split of a dataset.

    Attributes:
        dataset, split: whose patients.
        job, name: digest and name of the job; empty where the operator presumed it.
        run, round, model: as `Round`; empty where the charge sums up others, or was presumed.
        noise_multiplier, sample_rate, steps: what it costs.
    """

    kind: Literal["charged"] = "charged"
    dataset: str
    split: str
    job: str
    name: str
    run: str = ""
    round: int = 0
    model: str = ""
    noise_multiplier: Annotated[float, Field(ge=0)]
    sample_rate: Annotated[float, Field(gt=0, le=1)]
    steps: Annotated[int, Field(ge=0)]


class Budget(_Entry):
    """The budget of each split of a dataset from now on, and why: as it was at first use, or raised."""

    kind: Literal["budget"] = "budget"
    dataset: str
    epsilon: Annotated[float, Field(gt=0)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    reason: str


class Decision(_Entry):
    """The operator went on with a ledger that was not trusted.

    Attributes:
        found: what was wrong with it.
        reason: what the operator says of it.
        presumed: dataset → the ε it counts as having spent at least.
    """

    kind: Literal["decision"] = "decision"
    found: str
    reason: str
    presumed: dict[str, float] = {}


Entry = Annotated[Charged | Budget | Decision, Field(discriminator="kind")]
_entry: TypeAdapter[Charged | Budget | Decision] = TypeAdapter(Entry)


@lru_cache(maxsize=2**16)
def _parsed(body: str) -> Charged | Budget | Decision:
    return _entry.validate_json(body)


@dataclass
class Books:
    """The entries of a ledger, in order.

    Attributes:
        entries: by number; a gap says that the entries of these numbers were lost, and accepted as lost.
        links: by number.
        settled: numbers of the charges whose reply is stored; for people, since a charge counts either way.
    """

    entries: dict[int, Charged | Budget | Decision] = field(default_factory=dict)
    links: dict[int, str] = field(default_factory=lambda: {0: ""})
    settled: set[int] = field(default_factory=set)

    @property
    def last(self) -> int:
        """The number of the last entry; 0 where there is none."""
        return next(reversed(self.links))

    def take(self, number: int, body: str, link: str) -> None:
        """Add an entry as it was read.

        Raises:
            Untrusted: if it is not what was written, or not after this one.
        """
        last = self.last
        if number <= last or link != _chained(self.links[last], number, body):
            raise Untrusted(f"entry {number} is not what was written, or one before it was taken out")
        try:
            self.entries[number] = _parsed(body)
        except ValidationError:
            raise Untrusted(f"entry {number} is none of this version's") from None
        self.links[number] = link

    def append(self, entry: Charged | Budget | Decision, *, after: int = 0) -> int:
        """Add a new entry; its number, above that of every other and above `after`."""
        number = max(self.last, after) + 1
        self.links[number] = _chained(self.links[self.last], number, entry.model_dump_json())
        self.entries[number] = entry
        return number

    @property
    def datasets(self) -> dict[str, set[str]]:
        """The splits of every dataset to which anything was charged."""
        found: dict[str, set[str]] = {}
        for entry in self.entries.values():
            if isinstance(entry, Charged):
                found.setdefault(entry.dataset, set()).add(entry.split)
        return found

    def charges(
        self, dataset: str, split: str = SPLIT, *, job: str | None = None, run: str | None = None
    ) -> Iterator[tuple[int, Charged]]:
        """What was charged to a split of a dataset, or that of one job (its digest), or of one run, with its number."""
        for number, entry in self.entries.items():
            if (
                isinstance(entry, Charged)
                and (entry.dataset, entry.split) == (dataset, split)
                and job in (None, entry.job)
                and run in (None, entry.run)
            ):
                yield number, entry

    def history(
        self, dataset: str, split: str = SPLIT, *, job: str | None = None, run: str | None = None
    ) -> list[Charge]:
        """The same as σ, q and steps, merged."""
        return merged(entry for _, entry in self.charges(dataset, split, job=job, run=run))

    def rounds(self, of: Round) -> Iterator[tuple[int, Charged]]:
        """The charges of one round; more than one where it was charged again, or uses more than one split."""
        for number, entry in self.entries.items():
            if isinstance(entry, Charged) and (entry.job, entry.run, entry.round, entry.model) == (
                of.job,
                of.run,
                of.number,
                of.model,
            ):
                yield number, entry

    def newest(self, of: Round) -> list[int]:
        """The numbers of the last charge of one round to each split: those that its reply is paid by."""
        return list({(entry.dataset, entry.split): number for number, entry in self.rounds(of)}.values())

    def budget(self, dataset: str) -> Budget | None:
        """The last one written of this dataset; None where it was never charged."""
        for number in reversed(self.entries):
            entry = self.entries[number]
            if isinstance(entry, Budget) and entry.dataset == dataset:
                return entry
        return None

    def condensed(self) -> list[Charged | Budget | Decision]:
        """What must not be forgotten: every dataset's budget, its charges added up by job, and all decisions."""
        budgets = {entry.dataset: entry for entry in self.entries.values() if isinstance(entry, Budget)}
        decisions = [entry for entry in self.entries.values() if isinstance(entry, Decision)]
        steps: Counter[tuple[object, ...]] = Counter()
        charges: dict[tuple[object, ...], Charged] = {}
        for entry in self.entries.values():
            if isinstance(entry, Charged):
                key = same(entry)
                charges[key] = entry
                steps[key] += entry.steps
        sums = [
            entry.model_copy(update={"run": "", "round": 0, "model": "", "steps": steps[key]})
            for key, entry in charges.items()
        ]
        return [*budgets.values(), *decisions, *sums]


def same(charge: Charged) -> tuple[object, ...]:
    """What charges that can be added up have in common."""
    return charge.dataset, charge.split, charge.job, charge.noise_multiplier, charge.sample_rate


def merged(charges: Iterable[Charged]) -> list[Charge]:
    """σ, q and steps; of equal σ and q the steps are added up, which is all that composition needs."""
    steps: Counter[tuple[float, float]] = Counter()
    for charge in charges:
        steps[charge.noise_multiplier, charge.sample_rate] += charge.steps
    return [(*key, count) for key, count in sorted(steps.items())]


def _chained(before: str, number: int, body: str) -> str:
    return hashlib.sha256(f"{before}\n{number}\n{body}".encode()).hexdigest()
