"""Figures of held-out patients as they may leave under privacy: a noised sum over patients, and what it says.

The Gaussian mechanism (Dwork and Roth 2014, appendix A): every patient adds one row of bounded length to a sum (see
`shared.tasks`), and noise of the noise multiplier times that bound is added, from the same cryptographic stream as that
of training. Whatever is read from the noised sum costs nothing more. The held-out patients are charged for it, as for a
step with sample rate 1; the training patients are other people.
"""

from __future__ import annotations

from dataclasses import dataclass

from client.training.noise import Stream
from shared import accounting
from shared.accounting import Charge
from shared.job import Job
from shared.tasks import Measure, Task


@dataclass(frozen=True)
class Noised:
    """Figures that were read from a noised sum; nothing else may leave under privacy."""

    numbers: dict[str, float]


def charge(job: Job, releases: int) -> Charge:
    """What one release costs the patients it is of, so that `releases` of them together stay within the job's (ε, δ).

    Raises:
        BadInput: if no noise is enough.
        ValueError: if the job is not private.
    """
    privacy = job.privacy
    if privacy.epsilon is None or privacy.delta is None:
        raise ValueError("a job without privacy has no noise")
    noise = accounting.calibrate(epsilon=privacy.epsilon, delta=privacy.delta, sample_rate=1.0, steps=releases)
    return noise, 1.0, 1


def noised(measure: Measure, task: Task, *, noise_multiplier: float) -> Noised:
    """The figures of a measure, noised; what this costs has to be reserved before."""
    rows = measure.rows()
    noise = Stream().normal(rows.shape[1]).numpy() * (noise_multiplier * task.bound)
    return Noised(task.figures(rows.sum(0) + noise))
