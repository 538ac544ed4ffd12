"""Classification of images: cross-entropy; AUROC, balanced accuracy and calibration error over patients."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F

from shared.job import Job
from shared.tasks.patients import Figures, PerPatient, finite, mean, names

Labels = npt.NDArray[np.int64]
_BINS = 15
# Where probabilities are told apart in a noised sum: finely at both ends, where a rare class has its cases.
_EDGES = np.array([0.02, 0.05, 0.12, 0.27, 0.5, 0.73, 0.88, 0.95, 0.98])


class Classification:
    """The loss and the figures of classification.

    Args:
        job: says the classes and the class weights.
    """

    main = "auroc"

    def __init__(self, job: Job) -> None:
        self.classes = len(job.classes)
        weights = job.training.class_weights
        self._weights = None if weights is None else torch.tensor(weights)

    @property
    def bound(self) -> float:
        """Of a row: one count in the histogram of each class that has an area of its own."""
        return math.sqrt(len(self.compared))

    @property
    def compared(self) -> range:
        """The classes that are held against the rest: with two of them, the second one alone."""
        return range(1, 2) if self.classes == 2 else range(self.classes)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy, (B,), times the weight of the image's class where the job has class weights.

        The weights are not normalised: over a single image, that would undo them.

        Args:
            logits: (B, K).
            target: int64 (B,), from 0 to K - 1.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        weights = None if self._weights is None else self._weights.to(logits)
        return F.cross_entropy(logits, target, weight=weights, reduction="none")

    def measure(self) -> ClassificationMeasure:
        """A new, empty measure."""
        return ClassificationMeasure(self)

    def figures(self, total: Figures) -> dict[str, float]:
        """`patients` and `auroc`, the mean over the classes that have cases; with two classes `balanced_accuracy` too.

        The area is that between ten bins of probability, cases in the same bin counting half.
        """
        histograms = total.reshape(len(self.compared), 2, len(_EDGES) + 1)  # of the rest, and of the class
        figures = {"patients": float(max(0, round(float(histograms.sum((1, 2)).mean()))))}
        areas = [area for rest, own in histograms if (area := _area(rest, own)) is not None]
        if areas:
            figures["auroc"] = float(np.mean(areas))
        if self.classes == 2 and areas:
            (rest, own), half = histograms[0], len(_EDGES) // 2 + 1  # bins from one half on
            right = np.array([rest[:half].sum() / rest.sum(), own[half:].sum() / own.sum()])
            figures["balanced_accuracy"] = float(right.clip(0, 1).mean())
        return figures


class ClassificationMeasure:
    """The figures of classification.

    A case is a patient: the probabilities of their images are averaged first. Where a patient's images have different
    labels, those of each label are a case of its own; `patients` counts the patient once.
    """

    def __init__(self, task: Classification) -> None:
        self._task = task
        self._losses = PerPatient()
        self._cases: dict[tuple[str, int], list[Figures]] = {}

    def add(
        self, patient: str | Sequence[str], logits: Tensor, target: Tensor, spacing: Sequence[float] | None = None
    ) -> None:
        """Take B images: see `shared.tasks.Measure`; the spacing does not matter here."""
        patients = names(patient, len(logits))
        with torch.no_grad():
            losses = self._task.loss(logits, target).nan_to_num(nan=torch.inf).double().cpu().numpy()
            rows = logits.detach().double().softmax(1).cpu().numpy()
        self._losses.add(patients, losses[:, None])
        for name, label, row in zip(patients, target.tolist(), rows, strict=True):
            self._cases.setdefault((name, label), []).append(row)

    def compute(self, full: bool = False) -> dict[str, float]:
        """`patients`, `loss`, `auroc` (with more than two classes also `auroc.k`), `balanced_accuracy`,
        `calibration_error`; nothing here takes long, so `full` changes nothing.
        """
        if not self._cases:
            return {"patients": 0.0}
        likely = np.stack([np.mean(rows, axis=0) for rows in self._cases.values()])
        labels = np.array([label for _, label in self._cases])
        figures = {"patients": float(len(self._losses)), "loss": float(mean(self._losses.means())[0])}
        if np.isfinite(likely).all():
            figures |= _areas(likely, labels)
            figures["balanced_accuracy"] = balanced_accuracy(likely, labels)
            figures["calibration_error"] = calibration_error(likely, labels)
        return finite(figures)

    def rows(self) -> Figures:
        """Of each patient, for each class that is compared, a histogram of their cases' probabilities of it, adding up
        to 1.
        """
        counted = Counter(name for name, _ in self._cases)
        places = {name: place for place, name in enumerate(counted)}
        compared = self._task.compared
        rows = np.zeros((len(places), len(compared), 2, len(_EDGES) + 1))
        for (name, label), found in self._cases.items():
            likely = np.nan_to_num(np.mean(found, axis=0))
            for block, index in enumerate(compared):
                place = np.searchsorted(_EDGES, likely[index], side="right")
                rows[places[name], block, int(label == index), place] += 1 / counted[name]
        return rows.reshape(len(places), math.prod(rows.shape[1:]))


def _area(rest: Figures, own: Figures) -> float | None:
    """The area under the ROC curve between two histograms; None where one of them has no cases.

    Counts below 0, which noise makes, are left as they are: cut off, they would pull the area towards one half.
    """
    if rest.sum() < 1 or own.sum() < 1:
        return None
    below = np.cumsum(rest) - rest / 2
    return float(np.clip((own * below).sum() / (own.sum() * rest.sum()), 0, 1))


def auroc(scores: Figures, positive: npt.NDArray[np.bool_]) -> float:
    """The area under the ROC curve: how often a positive case scores above a negative one, ties counting half.

    The Mann-Whitney form (Hanley and McNeil 1982). NaN without cases of both kinds.

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True]))
    0.875
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def balanced_accuracy(likely: Figures, labels: Labels) -> float:
    """The mean, over the classes that occur, of the share of their cases whose most likely class is right.

    Args:
        likely: probabilities (N, K).
        labels: (N,).
    """
    right = likely.argmax(1) == labels
    return float(np.mean([right[labels == index].mean() for index in np.unique(labels)]))


def calibration_error(likely: Figures, labels: Labels) -> float:
    """The expected calibration error (Guo et al. 2017) over 15 bins of equal width.

    Of the cases in a bin of confidence (the probability of the most likely class), the gap between the mean confidence
    and the share that is right, averaged over the bins by their cases. From 0 to 1.

    Args:
        likely: probabilities (N, K).
        labels: (N,).
    """
    confidence = likely.max(1)
    right = likely.argmax(1) == labels
    # Bins are open below and closed above.
    bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def _areas(likely: Figures, labels: Labels) -> dict[str, float]:
    """Of class 1, with two classes; else of each class against the rest, and their mean without the undefined ones."""
    if likely.shape[1] == 2:
        return {"auroc": auroc(likely[:, 1], labels == 1)}
    each = np.array([auroc(likely[:, index], labels == index) for index in range(likely.shape[1])])
    return {"auroc": float(mean(each))} | {f"auroc.{index}": value for index, value in enumerate(each)}
