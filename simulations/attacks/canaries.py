"""Canaries: patients that are made to be found, and what a coordinator sees of a site that trains on them.

Nothing of the training is replaced, left out or done again: `updates` calls `client.training.train`, round after round,
as a site does, on a cohort of canaries. What is the job's: its `[privacy]`, rounds, steps, divisor (`batch_size`) and
`images_per_patient`. What is not is its network, nor its images. The guarantee holds whatever the gradients are, and an
audit wants the worst: the gradient of canary i points along axis i alone, so that no canary is in another's way (the
Dirac canaries of Steinke, Nasr and Jagielski 2023, arXiv:2305.08846), and is a hundred times the clipping norm long.
To have such a gradient a canary is an image with one bright voxel, and the network one whose gradient is its image.

The optimiser is SGD, with a learning rate that makes an update the noised sum itself; what any other optimiser would
make of that sum tells no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client import device, training
from client.site import Policy
from shared.job import Job

_LENGTH = 100.0  # of a canary's gradient, in clipping norms
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Canaries:
    """A cohort of canaries (`client.training.drawing.Patients`).

    Attributes:
        axes: of each canary that is there, the voxel that is bright in all of its images, and that alone.
        job: see `job_on`.
    """

    axes: npt.NDArray[np.int64]
    job: Job

    def __len__(self) -> int:
        return len(self.axes)

    def images(self, i: int) -> int:
        """One more than a step draws of a patient, so that some have to be chosen."""
        return self.job.training.images_per_patient + 1

    def load(self, i: int, j: int) -> tuple[Tensor, Tensor]:
        """A dark image with one bright voxel, float32 (1, *size), of class 0."""
        image = torch.zeros(1, *self.job.images.size)
        # Half of the image is its gradient.
        image.view(-1)[self.axes[i]] = 2 * _LENGTH * (self.job.privacy.clipping_norm or 0.0)
        return image, torch.tensor(0)


class ImageIsGradient(nn.Module):
    """Two classes, and a loss whose gradient is half the image (with a minus, for class 0), at all parameters.

    Args:
        voxels: of an image.
    """

    def __init__(self, voxels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, voxels))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 2) of images (B, 1, *size): all 0, the first with the slope of a linear classifier."""
        score = F.linear(images.flatten(1), self.weight)
        # Less its own value: wherever training leads, both classes stay as likely, and the slope of the loss is ½.
        flat = score - score.detach()
        return torch.cat([flat, torch.zeros_like(flat)], dim=1)


def job_on(job: Job, canaries: int) -> Job:
    """The job, with images that have a voxel for every canary, and the optimiser described above."""
    side = max(4, math.isqrt(canaries - 1) + 1)
    data = job.model_dump(mode="json", exclude_none=True)
    lengths = ("local_steps", "local_epochs", "batch_size", "images_per_patient")
    same = {key: value for key, value in data["training"].items() if key in lengths}
    return Job.from_dict(
        {"name": job.name, "task": "classification", "classes": ["canary", "other"], "images": {"size": [side, side]}}
        | {"network": {"name": "canaries"}, "privacy": data["privacy"], "federation": data["federation"]}
        | {"training": {**same, "optimizer": "sgd", "learning_rate": job.training.batch_size}}
    )


def updates(cohort: Canaries, *, noise_multiplier: float) -> Iterator[npt.NDArray[np.float64]]:
    """What the coordinator sees of each round: the model that came back less the one that was sent.

    Args:
        cohort: who is there; nobody may be.
        noise_multiplier: σ, above 0.

    Yields:
        (voxels,): along the axis of a canary that is drawn n times in the round n clipping norms C, along any other 0,
        and everywhere noise of standard deviation σC√steps.
    """
    device.bound_threads(Policy(threads=1))  # steps this small are over before a second thread has begun
    job = cohort.job
    network = ImageIsGradient(math.prod(job.images.size))
    sent = network.weight.detach().double().numpy().copy()
    for number in range(1, job.federation.rounds + 1):
        training.train(
            network, cohort, job, round=number, site_name="canaries", device=_CPU, noise_multiplier=noise_multiplier
        )
        came_back = network.weight.detach().double().numpy().copy()
        yield (came_back - sent)[0]
        sent = came_back
