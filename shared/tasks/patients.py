"""Rows of figures, one an image, averaged for each patient first; importing this imports numpy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Figures = npt.NDArray[np.float64]


class PerPatient:
    """Gathers a row of figures for each image; NaN stands for a figure that is not defined for it."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Figures]] = {}

    def __len__(self) -> int:
        """How many patients there are."""
        return len(self._rows)

    def add(self, patients: Iterable[str], rows: Figures) -> None:
        """One row (figures,) for each of the names."""
        for patient, row in zip(patients, rows, strict=True):
            self._rows.setdefault(patient, []).append(row)

    def means(self) -> Figures:
        """(patients, figures): each patient's mean over their images, without the undefined ones."""
        return np.stack([mean(np.stack(rows)) for rows in self._rows.values()])


def names(patient: str | Sequence[str], images: int) -> Sequence[str]:
    """One name for each of the images."""
    return [patient] * images if isinstance(patient, str) else patient


def mean(values: Figures, axis: int = 0) -> Figures:
    """The mean of what is defined (not NaN) along an axis; NaN where nothing is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis)
    total = np.where(defined, values, 0.0).sum(axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def finite(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures that are numbers, as Python's own."""
    return {name: float(value) for name, value in figures.items() if math.isfinite(value)}
