"""Federated averaging with momentum at the coordinator.

Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
2019 (arXiv:1909.06335), section 4: v ← βv + Δ, w ← w + v, where Δ is FedAvg's mean update and β the job's momentum.

A site's optimiser begins anew in every round. Where a round is a step or a few, as under differential privacy with
every patient in every step, that leaves no momentum; here it goes on over the rounds, and over all sites' noise.
Under differential privacy it is post-processing of what the sites release: it costs nothing.
"""

from __future__ import annotations

from typing import Self

import numpy as np

from server.algorithms.fedavg import Change, WeightedSum, moved
from shared.arrays import Arrays
from shared.job import Job

_MOMENTUM = 0.9


class FedAvgM:
    """Federated averaging with momentum at the coordinator (Hsu et al. 2019), for rounds of few steps."""

    def __init__(self, momentum: float) -> None:
        self._momentum = momentum
        self._velocity: Change = {}

    @classmethod
    def of(cls, job: Job) -> Self:
        """With the job's momentum, or .9."""
        return cls(_MOMENTUM if job.federation.momentum is None else job.federation.momentum)

    def begin(self, model: Arrays) -> _Moving:
        """Start a round from this global model."""
        return _Moving(self._velocity, self._momentum, model)

    def state(self) -> Arrays:
        """The velocity v."""
        return dict(self._velocity)

    def restore(self, state: Arrays) -> None:
        """Go on with this velocity."""
        self._velocity.update({name: array.astype(np.float64) for name, array in state.items()})


class _Moving:
    def __init__(self, velocity: Change, momentum: float, model: Arrays) -> None:
        self._velocity, self._momentum, self._model = velocity, momentum, model
        self._sum = WeightedSum(model)

    def add(self, update: Arrays, *, weight: float) -> None:
        """Take in one site's model."""
        self._sum.add(update, weight=weight)

    def step(self) -> Arrays:
        """The next global model."""
        for name, change in self._sum.mean().items():
            self._velocity[name] = self._momentum * self._velocity.get(name, np.zeros_like(change)) + change
        return moved(self._model, self._velocity)
