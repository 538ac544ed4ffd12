"""The coordinator's half of each federated algorithm.

An algorithm adds updates up as they arrive, so that memory does not grow with the number of sites, and steps
the global model once a round:

>>> import numpy as np
>>> from shared.job import Job
>>> job = Job.from_dict({"name": "x", "task": "segmentation", "classes": ["a", "b"], "images": {"size": [8, 8]},
...                      "network": {"name": "UNet"}, "privacy": {"mode": "none"}})
>>> fedavg = of(job)
>>> sums = fedavg.begin({"w": np.zeros(2, np.float32)})
>>> sums.add({"w": np.array([1, 2], np.float32)}, weight=1.0)
>>> sums.add({"w": np.array([3, 4], np.float32)}, weight=3.0)
>>> sums.step()
{'w': array([2.5, 3.5], dtype=float32)}
"""

from __future__ import annotations

from typing import Protocol, Self

from server.algorithms.fedavg import FedAvg
from server.algorithms.fedavgm import FedAvgM
from shared.arrays import Arrays
from shared.errors import BadInput
from shared.job import Job


class Sums(Protocol):
    """One round's updates, added up."""

    def add(self, update: Arrays, *, weight: float) -> None:
        """Take in one site's model; it may be forgotten afterwards."""

    def step(self) -> Arrays:
        """The next global model, of the names, shapes and dtypes of the last one."""


class Algorithm(Protocol):
    """How updates become a model."""

    @classmethod
    def of(cls, job: Job) -> Self:
        """As this job wants it."""

    def begin(self, model: Arrays) -> Sums:
        """Start a round from this global model."""

    def state(self) -> Arrays:
        """What it needs, beside the model, to go on after the last round."""

    def restore(self, state: Arrays) -> None:
        """Go on from there."""


_ALGORITHMS: dict[str, type[Algorithm]] = {"fedavg": FedAvg, "fedavgm": FedAvgM}


def describe() -> list[dict[str, str]]:
    """Name and one line of each, for `insitu-sim algorithms`."""
    return [{"name": name, "what": (cls.__doc__ or "").strip().splitlines()[0]} for name, cls in _ALGORITHMS.items()]


def check(job: Job) -> None:
    """Whether there is such an algorithm.

    Raises:
        BadInput: naming those there are.
    """
    if job.federation.algorithm not in _ALGORITHMS:
        known = ", ".join(_ALGORITHMS)
        raise BadInput(f"[federation] algorithm: got {job.federation.algorithm!r}, expected one of {known}")


def of(job: Job) -> Algorithm:
    """The job's algorithm."""
    check(job)
    return _ALGORITHMS[job.federation.algorithm].of(job)
