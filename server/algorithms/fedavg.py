"""Federated averaging.

McMahan, Moore, Ramage, Hampson and Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017, Algorithm 1: w ← Σ_k (n_k / n) w_k, with the weights n_k of the job: equal ones,
or the sites' numbers of patients.

Under differential privacy the average is post-processing of what the sites release: it costs nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shared.arrays import Arrays


class FedAvg:
    """Federated averaging (McMahan et al. 2017): the weighted mean of the sites' models."""

    def begin(self, model: Arrays) -> _WeightedSum:
        """Start a round from this global model."""
        return _WeightedSum(model)


class _WeightedSum:
    """Σ weight·(update − model) in float64, so that the order of arrival leaves no trace in the float32 result."""

    def __init__(self, model: Arrays) -> None:
        self._model = model
        self._sums: dict[str, npt.NDArray[np.float64]] = {n: np.zeros(a.shape) for n, a in model.items()}
        self._weight = 0.0

    def add(self, update: Arrays, *, weight: float) -> None:
        """Take in one site's model."""
        for name, total in self._sums.items():
            total += weight * (update[name].astype(np.float64) - self._model[name])
        self._weight += weight

    def step(self) -> Arrays:
        """The next global model; the same as the last one if nothing with weight came in."""
        if not self._weight:
            return self._model
        return {name: (self._model[name] + change).astype(self._model[name].dtype) for name, change in self.mean().items()}

    def mean(self) -> dict[str, npt.NDArray[np.float64]]:
        """The weighted mean of the updates' changes; zeros if nothing with weight came in."""
        return {name: total / (self._weight or 1.0) for name, total in self._sums.items()}
