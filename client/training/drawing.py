"""Which images a step sees: some patients, some images of each, as one batch that remembers whose image is whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    """M images of P patients.

    Attributes:
        images: float32 (M, channels, *size).
        targets: int64 (M, 1, *size), or (M,) for classification.
        owner: int64 (M,), of each image the patient it belongs to, 0 to P - 1.
        share: float32 (M,), of each image 1 over the number of images of its patient.
        patients: P.
    """

    images: Tensor
    targets: Tensor
    owner: Tensor
    share: Tensor
    patients: int

    @property
    def one_image_each(self) -> bool:
        """Whether image m is the only one of patient m."""
        return len(self.owner) == self.patients


def choose_images(cohort: Patients, patients: Sequence[int], training: Training, source: Source) -> list[Drawn]:
    """For each of the patients `images_per_patient` different images, or all where there are no more."""
    drawn = []
    for patient in patients:
        there, wanted = cohort.images(patient), training.images_per_patient
        chosen = range(there) if there <= wanted else np.argsort(source.random(there))[:wanted].tolist()
        drawn.append(Drawn(int(patient), tuple(chosen)))
    return drawn


def load(cohort: Patients, drawn: Sequence[Drawn], training: Training, source: Source, device: torch.device) -> Batch:
    """The drawn images, augmented as the job says, on the device."""
    pairs = [cohort.load(one.patient, image) for one in drawn for image in one.images]
    images, targets = torch.stack([image for image, _ in pairs]), torch.stack([target for _, target in pairs])
    if training.augmentation == "light":
        images, targets = augmentation.light(images, targets, source)
    counts = torch.tensor([len(one.images) for one in drawn])
    owner = torch.repeat_interleave(torch.arange(len(drawn)), counts)
    share = (1.0 / counts)[owner]
    return Batch(images.to(device), targets.to(device), owner.to(device), share.to(device), len(drawn))
