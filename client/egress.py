"""The one door out: every reply of the site is made here, and nowhere else.

What may leave is what the message types of `shared.messages` can say, and of that only: arrays with exactly the names,
shapes and dtypes of the incoming model, finite, and numbers on the list. The door fails closed: whatever is not as it
should be leaves nothing but a code.

Numbers that describe patients leave rounded to three decimals, and only where they are over at least as many patients
as the policy asks for; under a job with privacy only those that were read from a noised sum (`client.figures.Noised`),
and by what that says of the number of patients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from client.figures import Noised
from client.site import Policy
from shared import arrays
from shared.arrays import Arrays, StructureError
from shared.errors import RefusalCode, Refused
from shared.job import Job
from shared.messages import Accepted, EvaluateRequest, Figures, Refusal, TrainRequest, Update, is_listed

_DECIMALS = 3


def accepted() -> Accepted:
    """The site takes part."""
    return Accepted()


def refusal(code: RefusalCode) -> Refusal:
    """The site does not, and why: a code from the list, never a text."""
    return Refusal(code=RefusalCode(code))


def update(
    request: TrainRequest,
    trained: Arrays,
    *,
    figures: Mapping[str, float] | Noised,
    training_patients: int,
    policy: Policy,
) -> Update:
    """The trained model, and the figures of the incoming one.

    Args:
        request: what was asked.
        trained: the model after training.
        figures: of the incoming model on the validation patients; `patients` says how many they were. Under privacy
            noised, or none.
        training_patients: how many trained; told only where the job weighs sites by them.
        policy: the site's.

    Raises:
        Refused: `egress`, if anything is not as it should be.
    """
    try:
        arrays.check(trained, arrays.structure(request.model))
    except StructureError as error:
        raise Refused(
            RefusalCode.EGRESS, f"the trained model is not of the incoming model's structure: {error}"
        ) from None
    for name, array in trained.items():
        if type(array) is not np.ndarray or not np.issubdtype(array.dtype, np.floating):
            raise Refused(RefusalCode.EGRESS, f"{name} is no plain array of floating-point numbers")
    numbers = _released(figures, request.job, policy)
    counted = request.job.federation.weights == "patients" and not request.job.private
    if counted and training_patients >= policy.min_patients:
        numbers["training_patients"] = float(training_patients)
    return Update(round=request.round, model=dict(trained), numbers=numbers)


def figures(request: EvaluateRequest, found: Mapping[str, float] | Noised, *, policy: Policy) -> Figures:
    """The figures of a model on the test patients; under privacy noised, or none.

    Raises:
        Refused: `egress`, if a number is not on the list, not finite, or should have been noised.
    """
    return Figures(numbers=_released(found, request.job, policy))


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
    return {name: round(float(value), _DECIMALS) for name, value in found.items()}


def _has_class(name: str, job: Job) -> bool:
    _, point, index = name.partition(".")
    return not point or int(index) < len(job.classes)
