"""The two tasks: what is minimised, and the figures by which a model is known.

Every figure is computed for each patient first, as the mean over the patient's images, and then averaged over patients:
a patient with forty slices counts as much as one with one. Nothing heavy is imported until a task is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from shared.job import Job

if TYPE_CHECKING:
    from torch import Tensor

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


class Task(Protocol):
    """What a job is about."""

    @property
    def main(self) -> str:
        """The name of the figure by which models are compared; more is better."""
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


def of(job: Job) -> Task:
    """The job's task; imports torch."""
    if job.task == "segmentation":
        from shared.tasks.segmentation import Segmentation

        return Segmentation(job)
    from shared.tasks.classification import Classification

    return Classification(job)
