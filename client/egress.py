"""The one door out: every reply of the site is made here, and nowhere else, and recorded before it leaves.

What may leave is what the message types of `shared.messages` can say, and of that only: arrays with exactly the names,
shapes and dtypes of the incoming model, finite, changed by no more than the policy's norm, and numbers on the list.
The door fails closed: whatever is not as it should be, or cannot be recorded, leaves nothing but a code.

What a model can carry out of the hospital is bounded by that: parameters in single precision, as many as came in. There
are no buffers (running statistics), no integers (counters, indices, text) and nothing of the optimiser among them.

Numbers that describe patients leave rounded as the policy says, and only where they are over at least as many patients
as the policy asks for; under a job with privacy only those that were read from a noised sum (`client.figures.Noised`),
and by what that says of the number of patients.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import RecordDict

from client.audit import Record, Released
from client.audit import Refused as RefusedEntry
from client.figures import Noised
from client.ledger import Paid
from client.site import Policy
from shared import arrays
from shared.arrays import Arrays, StructureError
from shared.errors import RefusalCode, Refused
from shared.job import Job
from shared.messages import (
    Accepted,
    EvaluateRequest,
    Figures,
    Offer,
    Refusal,
    Reply,
    TrainRequest,
    Update,
    content_digest,
    is_listed,
)


def packed(reply: Reply) -> RecordDict:
    """A reply as Flower's records: the only place where one becomes a message."""
    return reply.pack()


def accepted() -> Accepted:
    """The site takes part."""
    return Accepted()


def refusal(code: RefusalCode) -> Refusal:
    """The site does not, and why: a code from the list, never a text."""
    return Refusal(code=RefusalCode(code))


@dataclass(frozen=True)
class Door:
    """The door of one site.

    Attributes:
        policy: of the site.
        record: of what went through.
    """

    policy: Policy
    record: Record

    def refuse(self, code: RefusalCode, *, kind: str, about: Offer | TrainRequest | None) -> Refusal:
        """A refusal, recorded; where that fails, the code says so instead.

        Args:
            code: why.
            kind: of the message that is refused.
            about: the message, where it could be read.
        """
        job = about.job if about else None
        try:
            self.record.append(
                RefusedEntry(
                    code=code,
                    message=kind,
                    job=job.digest if job else "",
                    name=job.name if job else "",
                    run=about.run if about else "",
                    round=about.round if isinstance(about, TrainRequest) else 0,
                )
            )
        except Refused as failed:
            return refusal(failed.code)
        return refusal(code)

    def update(
        self,
        request: TrainRequest,
        trained: Arrays,
        *,
        figures: Mapping[str, float] | Noised,
        training_patients: int,
        dataset: str,
        paid: Paid | None,
    ) -> Update:
        """The trained model, and the figures of the incoming one.

        Args:
            request: what was asked.
            trained: the model after training.
            figures: of the incoming model on the validation patients; `patients` says how many they were. Under
                privacy noised, or none.
            training_patients: how many trained; told only where the job weighs sites by them.
            dataset: whose patients.
            paid: what the ledger was charged for it; None where it costs no privacy.

        Raises:
            Refused: `egress`, if anything is not as it should be; `record`, if it cannot be recorded.
        """
        changed, most = _changed(request.model, trained), self.policy.max_update_norm
        if not changed <= most:
            raise Refused(
                RefusalCode.EGRESS, f"training changed the model by a norm of {changed:g}, the policy allows {most:g}"
            )
        numbers = _released(figures, request.job, self.policy)
        counted = request.job.federation.weights == "patients" and not request.job.private
        if counted and training_patients >= self.policy.min_patients:
            numbers["training_patients"] = float(training_patients)
        if changed and request.job.private and paid is None:
            raise Refused(RefusalCode.EGRESS, "a trained model was to leave that no budget was charged for")
        reply = Update(round=request.round, model=dict(trained), numbers=numbers)
        self._record(request, reply, norm=changed, dataset=dataset, paid=paid)
        return reply

    def figures(
        self, request: EvaluateRequest, found: Mapping[str, float] | Noised, *, dataset: str, paid: Paid | None
    ) -> Figures:
        """The figures of a model on the test patients; under privacy noised, or none.

        Raises:
            Refused: `egress`, if a number is not on the list, not finite, or should have been noised; `record`.
        """
        numbers = _released(found, request.job, self.policy)
        if numbers and request.job.private and paid is None:
            raise Refused(RefusalCode.EGRESS, "figures were to leave that no budget was charged for")
        reply = Figures(numbers=numbers)
        self._record(request, reply, norm=0.0, dataset=dataset, paid=paid)
        return reply

    def again(self, request: TrainRequest, reply: Update | Figures, *, dataset: str) -> Update | Figures:
        """A stored reply, which leaves again as it is; that it does is recorded, too.

        Raises:
            Refused: `record`.
        """
        self._record(request, reply, norm=0.0, dataset=dataset, paid=None, again=True)
        return reply

    def _record(
        self,
        request: TrainRequest,
        reply: Update | Figures,
        *,
        norm: float,
        dataset: str,
        paid: Paid | None,
        again: bool = False,
    ) -> None:
        model = reply.model if isinstance(reply, Update) else {}
        self.record.append(
            Released(
                message=type(reply).__name__,
                job=request.job.digest,
                name=request.job.name,
                run=request.run,
                round=request.round,
                dataset=dataset,
                private=request.job.private,
                arrays=len(model),
                structure=_structure(model),
                bytes=sum(array.nbytes for array in model.values()) + 8 * len(reply.numbers),
                content=content_digest(reply),
                norm=norm,
                numbers=reply.numbers,
                epsilon=paid.epsilon if paid else None,
                charges=paid.charges if paid else (),
                again=again,
            )
        )


def _structure(model: Arrays) -> str:
    """SHA-256 over the names, shapes and dtypes of a model."""
    return hashlib.sha256(json.dumps(arrays.structure(model), sort_keys=True).encode()).hexdigest()


def _changed(incoming: Arrays, trained: Arrays) -> float:
    """The L2 norm of what training changed.

    Raises:
        Refused: `egress`, if the trained model is not of the incoming one's structure, or no plain finite numbers.
    """
    try:
        arrays.check(trained, arrays.structure(incoming))
    except StructureError as error:
        raise Refused(
            RefusalCode.EGRESS, f"the trained model is not of the incoming model's structure: {error}"
        ) from None
    for name, array in trained.items():
        if type(array) is not np.ndarray or not np.issubdtype(array.dtype, np.floating):
            raise Refused(RefusalCode.EGRESS, f"{name} is no plain array of floating-point numbers")
    return arrays.norm({name: np.subtract(array, incoming[name], dtype=np.float64) for name, array in trained.items()})


def _released(figures: Mapping[str, float] | Noised, job: Job, policy: Policy) -> dict[str, float]:
    """The numbers that may leave, rounded; none over too few patients."""
    found = figures.numbers if isinstance(figures, Noised) else figures
    if found and job.private and not isinstance(figures, Noised):
        raise Refused(RefusalCode.EGRESS, "figures were to leave without noise under a job with privacy")
    for name, value in found.items():
        if not isinstance(name, str) or not is_listed(name) or not _has_class(name, job):
            raise Refused(RefusalCode.EGRESS, "a number that is not on the list was to leave")
        if not isinstance(value, float | int) or isinstance(value, bool) or not math.isfinite(value):
            raise Refused(RefusalCode.EGRESS, f"{name} is no finite number")
    if found.get("patients", 0) < policy.min_patients:
        return {}
    return {name: round(float(value), policy.decimals) for name, value in found.items()}


def _has_class(name: str, job: Job) -> bool:
    _, point, index = name.partition(".")
    return not point or int(index) < len(job.classes)
