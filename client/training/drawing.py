"""Which images a step sees: some patients, some images of each, as one batch that remembers whose image is whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from client.training import augmentation
from shared.job import Training


class Patients(Protocol):
    """What training needs of a cohort (`client.data.loading.Cohort` is one)."""

    def __len__(self) -> int:
        """Patients."""

    def images(self, i: int) -> int:
        """Images of patient i, at least one."""

    def load(self, i: int, j: int) -> tuple[Tensor, Tensor]:
        """Image j of patient i: float32 (channels, *size), and its target."""


class Source(Protocol):
    """Where randomness comes from: a seeded NumPy generator without privacy, the operating system's with it."""

    def random(self, size: int) -> npt.NDArray[np.float64]:
        """This many independent uniform numbers, 0 ≤ u < 1."""


@dataclass(frozen=True)
class Drawn:
    """One patient drawn into a step, and which of the patient's images."""

    patient: int
    images: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """M images of P patients, each patient's together.

    Attributes:
        images: float32 (M, channels, *size).
        targets: int64 (M, 1, *size), or (M,) for classification.
        counts: of each patient how many of the images are theirs, P numbers whose sum is M.
    """

    images: Tensor
    targets: Tensor
    counts: tuple[int, ...]

    @property
    def patients(self) -> int:
        """P."""
        return len(self.counts)

    @property
    def one_image_each(self) -> bool:
        """Whether image m is the only one of patient m."""
        return len(self.images) == self.patients

    @cached_property
    def owner(self) -> Tensor:
        """int64 (M,), of each image the patient it belongs to, 0 to P - 1."""
        owner = torch.arange(self.patients).repeat_interleave(torch.tensor(self.counts))
        return owner.to(self.images.device)

    @cached_property
    def share(self) -> Tensor:
        """float32 (M,), of each image 1 over the number of images of its patient."""
        share = torch.tensor([1 / count for count in self.counts for _ in range(count)])
        return share.to(self.images.device)

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(self.images.to(device), self.targets.to(device), self.counts)

    def split(self, most: int) -> list[Batch]:
        """In groups of patients as `in_groups` makes them; of one patient alone, in groups of images."""
        if self.patients == 1:
            pairs = zip(torch.split(self.images, most), torch.split(self.targets, most), strict=True)
            return [Batch(images, targets, (len(images),)) for images, targets in pairs]
        groups = [self.counts[group] for group in in_groups(self.counts, most)]
        sizes = [sum(counts) for counts in groups]
        parts = zip(torch.split(self.images, sizes), torch.split(self.targets, sizes), groups, strict=True)
        return [Batch(images, targets, counts) for images, targets, counts in parts]


def in_groups(counts: Sequence[int], most: int) -> list[slice]:
    """Patients in a row together, each whole, up to so many images; a patient with more is a group alone.

    >>> in_groups([2, 1, 9, 1], most=3)
    [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    groups, start = [], 0
    for end in range(1, len(counts) + 1):
        if end == len(counts) or sum(counts[start : end + 1]) > most:
            groups.append(slice(start, end))
            start = end
    return groups


def choose_images(cohort: Patients, patients: Sequence[int], training: Training, source: Source) -> list[Drawn]:
    """For each of the patients `images_per_patient` different images, or all where there are no more."""
    drawn = []
    for patient in patients:
        there, wanted = cohort.images(patient), training.images_per_patient
        chosen = range(there) if there <= wanted else np.argsort(source.random(there))[:wanted].tolist()
        drawn.append(Drawn(int(patient), tuple(chosen)))
    return drawn


def load(cohort: Patients, drawn: Sequence[Drawn], training: Training, source: Source, device: torch.device) -> Batch:
    """The drawn images, in as many views and augmented as the job says, on the device."""
    loaded = [cohort.load(one.patient, image) for one in drawn for image in one.images]
    pairs = [pair for pair in loaded for _ in range(training.views)]
    images, targets = torch.stack([image for image, _ in pairs]), torch.stack([target for _, target in pairs])
    if training.augmentation == "light":
        images, targets = augmentation.light(images, targets, source)
    counts = tuple(training.views * len(one.images) for one in drawn)
    return Batch(images, targets, counts).to(device)
