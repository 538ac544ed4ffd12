"""Reserve, settle, refuse: what may be charged to a dataset, and the budget that is in force.

ε is composed over the whole history of a dataset at the dataset's own δ, whatever the jobs declared: budgets are the
hospital's, and no message can raise one. The splits of a dataset are different patients, so that each has the whole
budget by itself (parallel composition), and the dataset has spent what the split that spent most has.

A dataset's budget is what site.toml said when it was first charged, and is an entry of the ledger from then on.
site.toml may lower it at any time; only `raise_budget`, an entry too, raises it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from pydantic import ValidationError

from client.ledger import journal, witness
from client.ledger.entries import SPLIT, Books, Budget, Charged, Decision, Paid, Round, Untrusted
from client.site import DatasetRules, Site
from shared import accounting
from shared.accounting import Charge
from shared.declared import explain
from shared.errors import BadInput, RefusalCode, Refused


class Ledger:
    """The ledger of one site.

    Attributes:
        site: whose it is.
        file: where it is.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.file = site.home / "ledger.sqlite"

    def reserve(
        self, dataset: str, charge: Charge, *, of: Round, planned: int, split: str = SPLIT, again: int | None = None
    ) -> int:
        """Charge a round to a dataset, durably, or refuse.

        Args:
            dataset: its name.
            charge: σ, q and the steps of this round.
            of: the round.
            planned: steps of the whole job. Nothing is charged for them: once all of them fit, each round does.
            split: whose patients are used.
            again: how many rounds of a run may be charged beyond the planned steps, because they were charged before
                and never answered; None for any number.

        Returns:
            The charge's number.

        Raises:
            Refused: `over_budget`, if everything charged to the split together with this would exceed the budget;
                `ledger`, if the file cannot be written or trusted.
        """
        with self.writing() as books:
            taken = sum(steps for *_, steps in books.history(dataset, split, job=of.job, run=of.run))
            noise_multiplier, sample_rate, steps = charge
            if again is not None and taken + steps > planned + again * steps:
                raise Refused(
                    RefusalCode.OVER_BUDGET,
                    f"run {of.run} has been charged {taken} steps of the {planned} that its job declares, and {again} "
                    "rounds may be charged again: a further one is none that was approved",
                )
            # First whether all that is left of the run fits: the answer is the same for every round of it, so that it
            # is worked out once.
            rest = (noise_multiplier, sample_rate, max(steps, planned - taken))
            self._check(books, (rest, charge), dataset, split)
            if books.budget(dataset) is None:
                rules = self.in_force(books, dataset)
                reason = "as site.toml had it when the dataset was first charged"
                books.append(Budget(dataset=dataset, epsilon=rules.epsilon, delta=rules.delta, reason=reason))
            return books.append(
                Charged(
                    dataset=dataset,
                    split=split,
                    job=of.job,
                    name=of.name,
                    run=of.run,
                    round=of.number,
                    model=of.model,
                    noise_multiplier=noise_multiplier,
                    sample_rate=sample_rate,
                    steps=steps,
                )
            )

    def check(self, dataset: str, charge: Charge, *, planned: int, split: str = SPLIT) -> None:
        """Whether a new run could be charged as a whole; nothing is.

        Raises:
            Refused: as `reserve`.
        """
        noise_multiplier, sample_rate, steps = charge
        whole = (noise_multiplier, sample_rate, max(steps, planned))
        self._check(self.read(), (whole,), dataset, split)

    def settle(self, of: Round) -> None:
        """Note that the reply of a reserved round is stored. It is charged either way.

        Raises:
            Refused: `ledger`, as `reserve`; and if this round was never charged here, unless what was charged is no
                longer known by rounds (see `acceptance`).
        """
        with self.writing() as books:
            last = books.newest(of)
            if not last and not any(isinstance(entry, Decision) for entry in books.entries.values()):
                raise Untrusted(f"round {of.number} of {of.run} was answered here, and it knows of no such round")
            books.settled.update(last)

    def paid(self, of: Round, dataset: str) -> Paid | None:
        """What a round of a job was charged to a dataset last, for the record; None if it was charged nothing.

        Raises:
            Refused: `ledger`, if the file cannot be trusted.
        """
        books = self.read()
        if not (numbers := books.newest(of)):
            return None
        delta = self.in_force(books, dataset).delta
        histories = [books.history(dataset, split) for split in books.datasets.get(dataset, ())]
        return Paid(
            charges=tuple((number, books.links[number]) for number in numbers),
            epsilon=max((accounting.quick_epsilon(history, delta=delta) for history in histories), default=0.0),
        )

    def history(
        self, dataset: str, job: str | None = None, run: str | None = None, *, split: str = SPLIT
    ) -> list[Charge]:
        """Everything charged to a dataset, or that of one job (its digest), or of one run: σ, q, steps, merged.

        Raises:
            Refused: `ledger`, if the file cannot be trusted.
        """
        return self.read().history(dataset, split, job=job, run=run)

    def spent(self, dataset: str, delta: float | None = None) -> float:
        """The ε that all jobs together have spent of a dataset, at this δ or at its budget's.

        Raises:
            Refused: `ledger`, if the file cannot be trusted.
        """
        books = self.read()
        delta = delta or self.in_force(books, dataset).delta
        splits = books.datasets.get(dataset, {SPLIT})
        return max(accounting.epsilon(books.history(dataset, split), delta=delta) for split in splits)

    def rules(self, dataset: str) -> DatasetRules:
        """What may be done with this dataset, with the budget that is in force.

        Raises:
            Refused: `ledger`, if the file cannot be trusted.
        """
        return self.in_force(self.read(), dataset)

    def in_force(self, books: Books, dataset: str) -> DatasetRules:
        """The same, of these books."""
        rules, budget = self.site.rules(dataset), books.budget(dataset)
        if budget is None:
            return rules
        ours = {"epsilon": budget.epsilon, "delta": budget.delta}
        said = {name: min(ours[name], getattr(rules, name)) for name in ours if name in rules.model_fields_set}
        return rules.model_copy(update={**ours, **said})

    def ignored(self, books: Books) -> list[str]:
        """What site.toml says of budgets that does not count, and what to do; a sentence a dataset."""
        return [note for dataset in self.site.config.datasets for note in self._ignored(books, dataset)]

    def troubles(self) -> list[str]:
        """What the operator should know: that the ledger is not trusted, or what site.toml says in vain."""
        try:
            return self.ignored(self.read())
        except Refused as refused:
            return [refused.detail]

    def raise_budget(self, dataset: str, *, epsilon: float, delta: float | None, reason: str) -> Budget:
        """Raise the budget of a dataset: the operator's decision, which the ledger keeps.

        Args:
            dataset: that has been charged before; until then site.toml says what its budget is.
            epsilon: from now on.
            delta: from now on; None for what it is.
            reason: in the operator's words.

        Raises:
            BadInput: if there is nothing to raise, or this would lower it.
            Refused: `ledger`, if the file cannot be written or trusted.
        """
        with self.writing() as books:
            now = books.budget(dataset)
            if now is None:
                raise BadInput(
                    f"nothing was ever charged to {dataset!r}: until then its budget is what site.toml says; change "
                    f"[datasets.{dataset}] epsilon there (charged: {', '.join(books.datasets) or 'none'})"
                )
            delta = now.delta if delta is None else delta
            if epsilon < now.epsilon or delta < now.delta or (epsilon, delta) == (now.epsilon, now.delta):
                raise BadInput(
                    f"the budget of {dataset} is ε = {now.epsilon:g}, δ = {now.delta:g}: got ε = {epsilon:g}, "
                    f"δ = {delta:g}, expected more; to lower it, change [datasets.{dataset}] in site.toml"
                )
            try:
                raised = Budget(dataset=dataset, epsilon=epsilon, delta=delta, reason=reason)
            except ValidationError as error:
                raise BadInput(explain(error)) from None
            books.append(raised)
            return raised

    def read(self) -> Books:
        """The books as they are.

        Raises:
            Refused: `ledger`, if they cannot be read or trusted.
        """
        with self._refusing():
            books, seen = Books(), witness.read(self.site.witness)  # first: the ledger may go on meanwhile
            if self.file.exists():
                with journal.opened(self.file, write=False) as database:
                    books = journal.read(database)
            witness.check(seen, books)
            return books

    @contextmanager
    def writing(self, *, trusting: bool = False) -> Iterator[Books]:
        """The books, for one process at a time; what is added to them is on the disk afterwards, and witnessed.

        Args:
            trusting: whatever the witness says; only for the operator's decision.

        Raises:
            Refused: `ledger`, if they cannot be written or trusted.
        """
        folder = self.site.witness
        with self._refusing(), journal.opened(self.file, write=True) as database:
            books = journal.read(database)
            before = books.last
            if not trusting:
                witness.check(witness.read(folder), books)
            yield books
            with witness.renewed(folder, books) if books.last > before else nullcontext():
                journal.save(database, books)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except Untrusted as error:
            raise Refused(
                RefusalCode.LEDGER,
                f"{self.file} is not trusted: {error}. Nothing is trained under privacy until the operator has "
                f"decided: `insitu-client budget accept --home {self.site.home}` says what is known and what to do",
            ) from None
        except OSError as error:
            raise journal.unreachable(self.file, error) from None

    def _check(self, books: Books, either: Sequence[Charge], dataset: str, split: str) -> None:
        """Refuse where none of these charges fits into the budget beside everything charged before."""
        noise_multiplier, sample_rate, steps = either[-1]
        budget = self.in_force(books, dataset)
        everything = books.history(dataset, split)
        for more in either:
            if accounting.within([*everything, more], delta=budget.delta, epsilon=budget.epsilon):
                return
        spent = accounting.epsilon(everything, delta=budget.delta)
        raise Refused(
            RefusalCode.OVER_BUDGET,
            f"dataset {dataset}: ε = {spent:.3f} of {budget.epsilon:g} is spent (δ = {budget.delta:g}), and {steps} "
            f"steps with σ = {noise_multiplier:g} at sample rate {sample_rate:g} would exceed it"
            + "".join(f"; {note}" for note in self._ignored(books, dataset)),
        )

    def _ignored(self, books: Books, dataset: str) -> list[str]:
        rules, budget = self.site.rules(dataset), books.budget(dataset)
        higher = [
            f"{name} = {getattr(rules, name):g}"
            for name in ("epsilon", "delta")
            if budget is not None and name in rules.model_fields_set and getattr(rules, name) > getattr(budget, name)
        ]
        if budget is None or not higher:
            return []
        return [
            f"site.toml: [datasets.{dataset}] {' and '.join(higher)} does not count: the budget is ε = "
            f"{budget.epsilon:g}, δ = {budget.delta:g}, until `insitu-client budget raise {dataset}` raises it"
        ]
