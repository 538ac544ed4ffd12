"""Figures of one mask of classes against another: Dice, Hausdorff distance, lesions found.

The background, class 0, has no figures of its own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Mask = npt.NDArray[np.uint8]


def most_likely(logits: Tensor) -> Tensor:
    """The class of the largest logit, (B, K, *size) → int64 (B, *size); the first of equals.

    `argmax` over an axis that is not the last takes a hundred times as long on the CPU.
    """
    best, index = logits[:, 0], torch.zeros_like(logits[:, 0], dtype=torch.int64)
    for k in range(1, logits.shape[1]):
        better = logits[:, k] > best
        best, index = torch.where(better, logits[:, k], best), index.masked_fill(better, k)
    return index


def dice(prediction: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Dice 1945: 2 |P ∩ T| / (|P| + |T|) of each foreground class of each image.

    Args:
        prediction: int64 (B, *size), class indices below `classes`.
        truth: the same.
        classes: K, with the background.

    Returns:
        float64 (B, K - 1) from 0 to 1; NaN where the class is neither in the prediction nor in the truth.
    """
    pairs = (prediction * classes + truth).flatten(1)
    image = torch.arange(len(pairs), device=pairs.device)[:, None] * classes**2
    counts = torch.bincount((pairs + image).flatten(), minlength=len(pairs) * classes**2)
    table = counts.view(-1, classes, classes).double()  # (B, predicted class, true class)
    both = table.diagonal(dim1=1, dim2=2)
    return (2 * both / (table.sum(1) + table.sum(2)))[:, 1:]


@dataclass(frozen=True)
class Pair:
    """A predicted and a true mask, of which only the box around both foregrounds is kept.

    Attributes:
        prediction, truth: class indices, of the same shape.
        extent: of the whole image along each axis, in the unit of `spacing`.
        spacing: between voxels along each axis.
    """

    prediction: Mask
    truth: Mask
    extent: tuple[float, ...]
    spacing: tuple[float, ...]

    @classmethod
    def of(cls, prediction: Mask, truth: Mask, spacing: Sequence[float] | None) -> Pair:
        """Crop; without a spacing the unit is the voxel."""
        steps = tuple(float(step) for step in spacing) if spacing is not None else (1.0,) * truth.ndim
        box = _box((prediction != 0) | (truth != 0))
        extent = tuple(count * step for count, step in zip(truth.shape, steps, strict=True))
        return cls(prediction[box].copy(), truth[box].copy(), extent, steps)

    def hausdorff95(self, index: int) -> float:
        """The 95th percentile Hausdorff distance of one class, in the unit of the spacing.

        The larger of the two directed 95th percentiles between the masks' edges, as MONAI computes it (after DeepMind's
        surface-distance). NaN if the class is in neither mask; if it is in one only, the diagonal of the image, as the
        BraTS challenge counts a miss.
        """
        prediction, truth = self.prediction == index, self.truth == index
        if not prediction.any() or not truth.any():
            return math.hypot(*self.extent) if prediction.any() or truth.any() else math.nan
        from monai.metrics.hausdorff_distance import compute_hausdorff_distance

        one, other = (torch.from_numpy(mask[None, None]) for mask in (prediction, truth))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # MONAI's own call of a function it has deprecated
            distance = compute_hausdorff_distance(
                one, other, include_background=True, percentile=95, spacing=list(self.spacing)
            )
        return float(distance)

    def lesion_f1(self, index: int) -> float:
        """F1 of the lesions of one class: 2 TP / (2 TP + FP + FN).

        A lesion is a connected component (voxels that touch at a corner are connected). A true lesion is found (TP) if
        any predicted voxel of the class lies in it, else missed (FN); a predicted component that touches no true voxel
        is a false alarm (FP). This is the lesion-wise F1 of ISLES 2022 (Hernandez Petzsche et al. 2022). NaN if the
        class is in neither mask.
        """
        from skimage.measure import label

        prediction, truth = self.prediction == index, self.truth == index
        predicted, alarms = label(prediction, return_num=True, connectivity=prediction.ndim)
        true, lesions = label(truth, return_num=True, connectivity=truth.ndim)
        if not alarms and not lesions:
            return math.nan
        found = len(np.unique(true[prediction & truth]))
        false = alarms - len(np.unique(predicted[prediction & truth]))
        return 2 * found / (2 * found + false + (lesions - found)) if found else 0.0


def _box(foreground: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box around it; empty where there is none."""
    box = []
    for axis in range(foreground.ndim):
        others = tuple(other for other in range(foreground.ndim) if other != axis)
        inside = np.flatnonzero(foreground.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0))
    return tuple(box)
