"""The round loop: ask the sites, add up what comes, step the model, tell the observers.

Ours rather than Flower's `Strategy.start`, which holds all replies of a round at once, waits for ever below its
minimum and can neither start at a later round nor say who was missing and why.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flwr.serverapp import Grid

from server.algorithms import Algorithm
from server.asking import Asking, reasons
from server.membership import Membership
from server.observers import Observer
from server.store import ACCEPTED, RoundRow
from shared import arrays
from shared.arrays import Arrays, StructureError
from shared.errors import InsituError
from shared.job import Job
from shared.messages import EvaluateRequest, Figures, Offer, TrainRequest, Update, content_digest

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.2
_MOST_PATIENTS = 10**7  # that a site can weigh


class RunFailed(InsituError):
    """The run cannot go on; its store has every round up to here."""


@dataclass(frozen=True)
class Federation:
    """One run: who is asked, over which grid, and who watches.

    Attributes:
        grid: Flower's, or the simulation's.
        job: what is trained.
        run: the coordinator's name of the run.
        sites: Flower's node id of each site that may be asked → its name.
        algorithm: of the job; with the state of the rounds before, where there were any.
    """

    grid: Grid
    job: Job
    run: str
    sites: Mapping[int, str]
    algorithm: Algorithm
    observers: Sequence[Observer] = field(default=())

    def train(self, model: Arrays, *, done: int = 0) -> Arrays:
        """The rounds of the job that are left, and one last exchange for the final figures.

        Args:
            model: the initial one, or the one after the rounds that are done.
            done: how many.

        Raises:
            RunFailed: if the run stays below the job's quorum.
        """
        if not done:
            for observer in self.observers:
                observer.began(model)
        membership = Membership(
            grid=self.grid, offer=Offer(job=self.job, run=self.run), sites=self.sites, told=self._tell
        )
        self._gather(membership)
        for number in range(done + 1, self.job.federation.rounds + 1):
            membership.look()
            model, row = self._round(number, model, membership)
            for observer in self.observers:
                observer.round_ended(row, model, self.algorithm.state())
        figures = self._figures(model, membership)
        for observer in self.observers:
            observer.ended(model, figures)
        return model

    def _tell(self, standings: Mapping[str, str]) -> None:
        for observer in self.observers:
            observer.standings_changed(standings)

    def _say(self, what: str) -> None:
        for observer in self.observers:
            observer.waits(what)

    def _gather(self, membership: Membership) -> None:
        """Wait for the quorum: for sites to come, and for their operators to say yes."""
        job = self.job.federation
        deadline = time.monotonic() + job.quorum_deadline.total_seconds()
        while True:
            membership.look()
            here, taking_part = len(self.sites), len(membership.accepted)
            if taking_part >= job.min_sites and not membership.asking:
                return
            if here - len(membership.refused) < job.min_sites or time.monotonic() > deadline:
                apart = {site: code for site, code in membership.standings.items() if code != ACCEPTED}
                raise RunFailed(f"{taking_part} of {here} sites take part, {job.min_sites} needed{reasons(apart)}")
            time.sleep(_PAUSE_SECONDS)

    def _round(self, number: int, model: Arrays, membership: Membership) -> tuple[Arrays, RoundRow]:
        started = time.monotonic()
        sums, structure = self.algorithm.begin(model), arrays.structure(model)
        numbers: dict[str, dict[str, float]] = {}
        contributions: dict[str, tuple[str, float]] = {}
        asking = Asking(
            self.grid,
            TrainRequest(job=self.job, run=self.run, round=number, model=model),
            Update,
            group=str(number),
        )
        asking.ask(membership.accepted)
        while self._waits(number, asking, len(numbers), time.monotonic() - started, membership):
            for node, update in asking.answers():
                weight = self._weight(update, structure)
                if weight is not None:
                    sums.add(update.model, weight=weight)
                    numbers[self.sites[node]] = update.numbers
                    contributions[self.sites[node]] = (content_digest(update), weight)
                else:
                    log.warning("round %d: the update of %s does not count", number, self.sites[node])
                    asking.reject(node)
        model = sums.step()
        row = RoundRow(
            round=number,
            seconds=time.monotonic() - started,
            contributed=tuple(sorted(numbers)),
            missing=asking.close(),
            numbers=numbers,
            model=arrays.digest(model),
            contributions=contributions,
        )
        return model, row

    def _waits(self, number: int, asking: Asking[Update], there: int, seconds: float, membership: Membership) -> bool:
        """Whether a round waits for more updates.

        With its quorum it waits for those that are at work, until the round's deadline. Below it waits for everybody
        who may still come, and says so.

        Raises:
            RunFailed: if nobody may, or the time for that is over.
        """
        job = self.job.federation
        if there >= job.min_sites:
            return asking.open and seconds <= job.round_deadline.total_seconds()
        if asking.open and seconds <= job.round_deadline.total_seconds():
            return True
        missing = asking.missing if asking.hopeful else asking.close()
        what = f"round {number}: {there} of {len(membership.accepted)} sites contributed, {job.min_sites} needed"
        if not asking.hopeful or seconds > job.quorum_deadline.total_seconds():
            raise RunFailed(f"{what}{reasons(missing)}")
        self._say(f"{what}{reasons(missing)}; waiting for more")
        membership.look()
        asking.ask(membership.accepted)
        return True

    def _weight(self, update: Update, structure: arrays.Structure) -> float | None:
        """The weight of an update; None if it is none of this model's, or does not say what the job goes by."""
        try:
            arrays.check(update.model, structure)
        except StructureError:
            return None
        if self.job.federation.weights == "equal":
            return 1.0
        patients = update.numbers.get("training_patients", 0.0)
        return patients if 1 <= patients <= _MOST_PATIENTS and patients.is_integer() else None

    def _figures(self, model: Arrays, membership: Membership) -> dict[str, dict[str, float]]:
        """What the sites say of the final model, where the job asks them."""
        job = self.job.federation
        if not job.evaluate_at_end:
            return {}
        request = EvaluateRequest(job=self.job, run=self.run, round=job.rounds, model=model)
        asking: Asking[Figures] = Asking(self.grid, request, Figures, group="final")
        asking.ask(membership.accepted)
        deadline = time.monotonic() + job.round_deadline.total_seconds()
        figures: dict[str, dict[str, float]] = {}
        while asking.open and time.monotonic() <= deadline:
            figures |= {self.sites[node]: reply.numbers for node, reply in asking.answers()}
        asking.close()
        return figures
