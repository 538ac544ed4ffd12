"""What must hold of a job before anybody is asked to train it; the coordinator and the simulations check the same."""

from __future__ import annotations

from server import algorithms
from shared import accounting, networks
from shared.errors import BadInput
from shared.job import Job


def check(job: Job, *, file: object) -> None:
    """Everything about a job that can be known without any data.

    Args:
        job: as it was read.
        file: where from, for the message.

    Raises:
        BadInput: naming the file, the field, what was expected and what to do.
    """
    try:
        algorithms.check(job)
        networks.check(job)
        if job.privacy.secure_aggregation:
            raise BadInput(
                "[privacy] secure_aggregation is not there yet, and nothing pretends: remove it, or say false"
            )
        if job.private and job.steps_per_round:
            accounting.noise_for(job)
    except BadInput as error:
        raise BadInput(str(error), file=file) from None
