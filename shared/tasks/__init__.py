"""The two tasks: what is minimised, and the figures by which a model is known.

Every figure is computed for each patient first, as the mean over the patient's images, and then averaged over patients:
a patient with forty slices counts as much as one with one. Nothing heavy is imported until a task is asked for.

Under privacy a figure leaves a site only as what a noised sum over patients says: `Measure.rows` has one bounded row a
patient, and `Task.figures` reads the sum of them, exact or noised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from shared.job import Job

if TYPE_CHECKING:
    from torch import Tensor

    from shared.tasks.patients import Figures

__all__ = ["Measure", "Task", "of"]


class Measure(Protocol):
    """Gathers a model's outputs, patient by patient, and says the figures at the end."""

    def add(
        self, patient: str | Sequence[str], logits: Tensor, target: Tensor, spacing: Sequence[float] | None = None
    ) -> None:
        """Take B images.

        Args:
            patient: whose they are: one name for all of them, or B names. Names are only compared.
            logits: (B, K, *size) for segmentation, (B, K) for classification, on any device.
            target: int64, (B, 1, *size) or (B,): class indices.
            spacing: millimetres per voxel along each axis of size, of all of these images; None for voxels.
        """
        ...

    def compute(self, full: bool = False) -> dict[str, float]:
        """The figures of all images so far: `patients`, `loss`, the main one and those beside it.

        What is not defined, or not finite, is left out.

        Args:
            full: also those that take long (Hausdorff distance, lesions).
        """
        ...

    def rows(self) -> Figures:
        """What each patient adds to the sum that `Task.figures` reads: (patients, numbers), no row longer (L2) than
        `Task.bound`, and each from that patient's images alone.
        """
        ...


class Task(Protocol):
    """What a job is about."""

    @property
    def main(self) -> str:
        """The name of the figure by which models are compared; more is better."""
        ...

    @property
    def bound(self) -> float:
        """The largest L2 norm of a row of `Measure.rows`: how much one patient can change their sum."""
        ...

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """One number per image, (B,), each from its own image alone; may be used under `torch.func.vmap` and `grad`.

        Args:
            logits: (B, K, *size) for segmentation, (B, K) for classification.
            target: int64, (B, 1, *size) or (B,): class indices from 0 to K - 1.
        """
        ...

    def measure(self) -> Measure:
        """A new, empty measure."""
        ...

    def figures(self, total: Figures) -> dict[str, float]:
        """What the sum of all patients' rows says, whether it is exact or noised: `patients`, and the main figure.

        A figure is left out where the sum says nothing of it. Those there are lie between 0 and 1, and `patients`, a
        whole number, is not below 0.
        """
        ...


def of(job: Job) -> Task:
    """The job's task; imports torch."""
    if job.task == "segmentation":
        from shared.tasks.segmentation import Segmentation

        return Segmentation(job)
    from shared.tasks.classification import Classification

    return Classification(job)
