"""Federated averaging with momentum at the server.

Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
2019 (arXiv:1909.06335), section 4: v ← βv + Δ, w ← w + v, where Δ is FedAvg's mean update and β the job's momentum.

A site's optimiser begins anew in every round. Where a round is a step or a few, as under differential privacy with
every patient in every step, that leaves no momentum; here it goes on over the rounds, and over all sites' noise.
Under differential privacy it is post-processing of what the sites release: it costs nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from server.algorithms.fedavg import FedAvg
from shared.arrays import Arrays


class FedAvgM:
    """Federated averaging with momentum at the server (Hsu et al. 2019), for rounds of few steps."""

    def __init__(self, momentum: float) -> None:
        self._momentum = momentum
        self._velocity: dict[str, npt.NDArray[np.float64]] = {}

    def begin(self, model: Arrays) -> _Moving:
        """Start a round from this global model."""
        return _Moving(self._velocity, self._momentum, model)


class _Moving:
    def __init__(self, velocity: dict[str, npt.NDArray[np.float64]], momentum: float, model: Arrays) -> None:
        self._velocity, self._momentum, self._model = velocity, momentum, model
        self._sums = FedAvg().begin(model)

    def add(self, update: Arrays, *, weight: float) -> None:
        """Take in one site's model."""
        self._sums.add(update, weight=weight)

    def step(self) -> Arrays:
        """The next global model."""
        result = {}
        for name, change in self._sums.mean().items():
            self._velocity[name] = self._momentum * self._velocity.get(name, np.zeros_like(change)) + change
            result[name] = (self._model[name] + self._velocity[name]).astype(self._model[name].dtype)
        return result
