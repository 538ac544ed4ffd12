"""Segmentation: Dice and cross-entropy; Dice, Hausdorff distance and lesions found, without the background."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from shared.job import Job
from shared.tasks.masks import Mask, Pair, dice, most_likely
from shared.tasks.patients import Figures, PerPatient, finite, mean, names

_Figure = Callable[[Pair, int], float]
# Of MONAI's DiceLoss: keeps the loss of an absent class defined.
_SMOOTH = 1e-5


class Segmentation:
    """The loss and the figures of segmentation.

    Args:
        job: says the classes, the loss (`dice_ce` by default, `dice` or `ce`) and the class weights.
    """

    main = "dice"
    bound = math.hypot(1.0, 0.5)

    def __init__(self, job: Job) -> None:
        self.classes = len(job.classes)
        self._parts = {"dice_ce": ("dice", "ce"), "dice": ("dice",), "ce": ("ce",)}[job.training.loss or "dice_ce"]
        weights = job.training.class_weights
        self._weights = None if weights is None else torch.tensor(weights)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The sum of the parts asked for, (B,).

        - Dice (Milletari et al. 2016; MONAI's DiceLoss): 1 - 2 Σpt / (Σp + Σt) over the image, of the softmax, averaged
          over the foreground classes; the background is no part of it.
        - Cross-entropy averaged over the image's voxels, weighted by their class where the job has class weights.

        Args:
            logits: (B, K, *size).
            target: int64 (B, 1, *size), from 0 to K - 1.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = [
            self._dice(logits, target) if part == "dice" else self._entropy(logits, target) for part in self._parts
        ]
        return torch.stack(losses).sum(0)

    def measure(self) -> SegmentationMeasure:
        """A new, empty measure."""
        return SegmentationMeasure(self)

    def figures(self, total: Figures) -> dict[str, float]:
        """`patients` and `dice`, over the patients who have one."""
        count, above_half = (float(value) for value in total)
        figures = {"patients": float(max(0, round(count)))}
        if count >= 1:
            figures["dice"] = min(max(0.5 + above_half / count, 0.0), 1.0)
        return figures

    def _dice(self, logits: Tensor, target: Tensor) -> Tensor:
        index = torch.arange(1, self.classes, device=target.device).view(-1, *[1] * (target.ndim - 2))
        truth = (target == index).to(logits.dtype).flatten(2)  # (B, K - 1, voxels)
        likely = logits.softmax(1)[:, 1:].flatten(2)
        both, either = (likely * truth).sum(2), likely.sum(2) + truth.sum(2)
        return (1 - (2 * both + _SMOOTH) / (either + _SMOOTH)).mean(1)

    def _entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        voxels = target[:, 0]
        if self._weights is None:
            return F.cross_entropy(logits, voxels, reduction="none").flatten(1).mean(1)
        weights = self._weights.to(logits)
        total = F.cross_entropy(logits, voxels, weight=weights, reduction="none").flatten(1).sum(1)
        return total / weights[voxels].flatten(1).sum(1)


class SegmentationMeasure:
    """The figures of segmentation, for each patient first.

    A patient's `dice.k` is the mean over their images in which class k is, in the truth or in the prediction; their
    `dice` is the mean of these over the foreground classes. An image without the class in either counts for nothing,
    and a patient with only such images is left out of the mean over patients. `hausdorff95` and `lesion_f1` are
    averaged in the same way; see `shared.tasks.masks` for what they are where one mask is empty.
    """

    def __init__(self, task: Segmentation) -> None:
        self._task = task
        self._losses = PerPatient()
        self._dice = PerPatient()
        self._pairs: list[tuple[str, Pair]] = []

    def add(
        self, patient: str | Sequence[str], logits: Tensor, target: Tensor, spacing: Sequence[float] | None = None
    ) -> None:
        """Take B images: see `shared.tasks.Measure`."""
        patients = names(patient, len(logits))
        with torch.no_grad():
            losses = self._task.loss(logits, target).nan_to_num(nan=torch.inf)
            prediction = most_likely(logits)
            scores = dice(prediction, target[:, 0], self._task.classes)
        self._losses.add(patients, _array(losses)[:, None])
        self._dice.add(patients, _array(scores))
        for name, one, other in zip(patients, _mask(prediction), _mask(target[:, 0]), strict=True):
            self._pairs.append((name, Pair.of(one, other, spacing)))

    def compute(self, full: bool = False) -> dict[str, float]:
        """`patients`, `loss`, `dice`, `dice.k`; with `full` also `hausdorff95` and `lesion_f1`, likewise."""
        if not len(self._losses):
            return {"patients": 0.0}
        figures = {"patients": float(len(self._losses)), "loss": float(mean(self._losses.means())[0])}
        figures |= _summary("dice", self._dice)
        if full:
            figures |= _summary("hausdorff95", self._of_each_pair(Pair.hausdorff95))
            figures |= _summary("lesion_f1", self._of_each_pair(Pair.lesion_f1))
        return finite(figures)

    def rows(self) -> Figures:
        """Of each patient 1, and by how much their `dice` is above one half; zeros for one who has none."""
        if not len(self._dice):
            return np.zeros((0, 2))
        score = mean(self._dice.means(), axis=1)
        defined = ~np.isnan(score)
        return np.stack([defined.astype(float), np.where(defined, score - 0.5, 0.0)], axis=1)

    def _of_each_pair(self, figure: _Figure) -> PerPatient:
        rows = PerPatient()
        for name, pair in self._pairs:
            rows.add([name], np.array([[figure(pair, index) for index in range(1, self._task.classes)]]))
        return rows


def _summary(name: str, rows: PerPatient) -> dict[str, float]:
    """Over all patients: of each class, and of each patient's mean over the classes."""
    of_patients = rows.means()
    each = {f"{name}.{index}": value for index, value in enumerate(mean(of_patients), start=1)}
    return {name: float(mean(mean(of_patients, axis=1)))} | each


def _array(values: Tensor) -> Figures:
    return values.detach().double().cpu().numpy()


def _mask(indices: Tensor) -> Mask:
    return indices.to(torch.uint8).cpu().numpy()
