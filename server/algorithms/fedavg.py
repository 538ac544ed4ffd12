"""Federated averaging.

McMahan, Moore, Ramage, Hampson and Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017, Algorithm 1: w ← Σ_k (n_k / n) w_k, with the weights n_k of the job: equal ones,
or the sites' numbers of patients.

Under differential privacy the average is post-processing of what the sites release: it costs nothing.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt

from shared.arrays import Arrays
from shared.job import Job

Change = dict[str, npt.NDArray[np.float64]]


class FedAvg:
    """Federated averaging (McMahan et al. 2017): the weighted mean of the sites' models."""

    @classmethod
    def of(cls, job: Job) -> Self:
        """It has nothing to choose."""
        return cls()

    def begin(self, model: Arrays) -> WeightedSum:
        """Start a round from this global model."""
        return WeightedSum(model)

    def state(self) -> Arrays:
        """Nothing but the model."""
        return {}

    def restore(self, state: Arrays) -> None:
        """Nothing to restore."""


class WeightedSum:
    """Σ weight·(update − model) in float64, so that the order of arrival leaves no trace in the float32 result."""

    def __init__(self, model: Arrays) -> None:
        self._model = model
        self._sums: Change = {n: np.zeros(a.shape) for n, a in model.items()}
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
        return moved(self._model, self.mean())

    def mean(self) -> Change:
        """The weighted mean of what the updates change; zeros if nothing with weight came in."""
        return {name: total / (self._weight or 1.0) for name, total in self._sums.items()}


def moved(model: Arrays, change: Change) -> Arrays:
    """A model with a change added, in its own dtypes."""
    return {name: (array + change[name]).astype(array.dtype) for name, array in model.items()}
