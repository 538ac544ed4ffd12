"""The round loop: ask the sites, add up what comes, step the model, tell the observers.

Ours rather than Flower's `Strategy.start`, which holds all replies of a round at once, waits for ever below its
minimum and can neither start at a later round nor say who was missing and why.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from flwr.app import Message
from flwr.serverapp import Grid

from server import algorithms
from server.membership import REJECTED, UNAVAILABLE, Membership
from server.observers import Observer
from server.store import ACCEPTED, RoundRow
from shared import arrays
from shared.arrays import Arrays, StructureError
from shared.errors import InsituError, Refused
from shared.job import Job
from shared.messages import (
    EvaluateRequest,
    Figures,
    Offer,
    Refusal,
    TrainRequest,
    Update,
    read_reply,
)

log = logging.getLogger(__name__)

# Why a site is missing, beside the codes of its own refusals.
LATE = "late"

_POLL_SECONDS = 0.02

_R = TypeVar("_R", Update, Figures)


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
    """

    grid: Grid
    job: Job
    run: str
    sites: Mapping[int, str]
    observers: Sequence[Observer] = field(default=())

    def train(self, model: Arrays) -> Arrays:
        """All rounds of the job, from this initial model, and one last exchange for the final figures.

        Raises:
            RunFailed: if a round stays below the job's quorum.
        """
        algorithm = algorithms.of(self.job)
        for observer in self.observers:
            observer.began(model)
        membership = Membership(
            grid=self.grid, offer=Offer(job=self.job, run=self.run), sites=self.sites, told=self._tell
        )
        self._gather(membership)
        for number in range(1, self.job.federation.rounds + 1):
            membership.look()
            members = membership.accepted
            model, row = self._round(algorithm, number, model, members)
            for observer in self.observers:
                observer.round_ended(row, model)
        figures = self._figures(model, membership.accepted)
        for observer in self.observers:
            observer.ended(model, figures)
        return model

    def _tell(self, standings: Mapping[str, str]) -> None:
        for observer in self.observers:
            observer.standings_changed(standings)

    def _gather(self, membership: Membership) -> None:
        """Wait for the quorum: for sites to come, and for their operators to say yes."""
        job = self.job.federation
        deadline = time.monotonic() + job.join_deadline.total_seconds()
        while True:
            membership.look()
            here, taking_part, refused = len(self.sites), len(membership.accepted), membership.refused
            if taking_part >= job.min_sites and not membership.asking:
                return
            if here - len(refused) < job.min_sites or time.monotonic() > deadline:
                raise RunFailed(
                    f"{taking_part} of {here} sites take part, {job.min_sites} needed"
                    f"{_reasons({site: code for site, code in membership.standings.items() if code != ACCEPTED})}"
                )
            time.sleep(10 * _POLL_SECONDS)

    def _round(
        self, algorithm: algorithms.Algorithm, number: int, model: Arrays, members: Mapping[int, str]
    ) -> tuple[Arrays, RoundRow]:
        job = self.job.federation
        started = time.monotonic()
        deadline = started + job.round_deadline.total_seconds()
        structure = arrays.structure(model)
        sums = algorithm.begin(model)
        contributed: list[str] = []
        missing: dict[str, str] = {}
        numbers: dict[str, dict[str, float]] = {}
        request = TrainRequest(job=self.job, run=self.run, round=number, model=model)
        for node, reply in self._ask(members, request, Update, group=str(number), deadline=deadline):
            site = members[node]
            if not isinstance(reply, Update):
                missing[site] = reply
                continue
            try:
                arrays.check(reply.model, structure)
                weight = self._weight(reply)
            except (StructureError, KeyError) as error:
                log.warning("round %d: the update of %s does not count: %s", number, site, error)
                missing[site] = REJECTED
                continue
            sums.add(reply.model, weight=weight)
            contributed.append(site)
            numbers[site] = reply.numbers
        if len(contributed) < job.min_sites:
            raise RunFailed(
                f"round {number}: {len(contributed)} of {len(members)} sites contributed, "
                f"{job.min_sites} needed{_reasons(missing)}"
            )
        model = sums.step()
        row = RoundRow(
            round=number,
            seconds=time.monotonic() - started,
            contributed=tuple(sorted(contributed)),
            missing=missing,
            numbers=numbers,
            model=arrays.digest(model),
        )
        return model, row

    def _weight(self, update: Update) -> float:
        return 1.0 if self.job.federation.weights == "equal" else update.numbers["training_patients"]

    def _figures(self, model: Arrays, members: Mapping[int, str]) -> dict[str, dict[str, float]]:
        """What the sites say of the final model, where the job asks them."""
        if not self.job.federation.evaluate_at_end:
            return {}
        request = EvaluateRequest(job=self.job, run=self.run, round=self.job.federation.rounds, model=model)
        deadline = time.monotonic() + self.job.federation.round_deadline.total_seconds()
        replies = self._ask(members, request, Figures, group="final", deadline=deadline)
        return {members[node]: reply.numbers for node, reply in replies if isinstance(reply, Figures)}

    def _ask(
        self, nodes: Collection[int], request: TrainRequest, expected: type[_R], *, group: str, deadline: float
    ) -> Iterator[tuple[int, _R | str]]:
        """Ask these nodes, and yield each one's reply, or the code of why there is none, as it comes.

        A reply is forgotten once the next one is asked for: memory does not grow with the number of sites.
        """
        content = request.pack()
        messages = [
            Message(content, dst_node_id=node, message_type=request.flower_type, group_id=group) for node in nodes
        ]
        waiting = dict(zip(self.grid.push_messages(messages), nodes, strict=True))
        del messages, content
        while waiting and time.monotonic() <= deadline:
            arrived = list(self.grid.pull_messages(list(waiting)))
            if not arrived:
                time.sleep(_POLL_SECONDS)
            while arrived:
                message = arrived.pop()
                node = waiting.pop(message.metadata.reply_to_message_id)
                yield node, self._read(message, node, expected)
        for node in waiting.values():
            yield node, LATE

    def _read(self, message: Message, node: int, expected: type[_R]) -> _R | str:
        if message.has_error():
            log.warning("%s cannot be reached (code %s)", self.sites[node], message.error.code)
            return UNAVAILABLE
        try:
            reply = read_reply(message.content, expected)
        except Refused as error:
            log.warning("the reply of %s does not count: %s", self.sites[node], error)
            return REJECTED
        return str(reply.code) if isinstance(reply, Refusal) else reply


def _reasons(missing: Mapping[str, str]) -> str:
    return f" ({', '.join(f'{site}: {code}' for site, code in sorted(missing.items()))})" if missing else ""
