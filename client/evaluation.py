"""The figures of a model on a cohort: per patient first, then the mean over patients (`shared.tasks` says which)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Protocol

import torch
from torch import nn

from client.training.drawing import Patients
from client.watch import Watch, nothing
from shared import tasks
from shared.job import Job
from shared.tasks import Measure

_MOST_IMAGES = 2**20  # what the images of one pass may hold: numbers, four bytes each


class Held(Patients, Protocol):
    """What evaluation needs of a cohort (`client.data.loading.Cohort` is one)."""

    patients: list[str]

    def spacing(self, i: int, j: int) -> tuple[float, ...] | None:
        """Millimetres between the voxels of the preprocessed image."""


def measured(network: nn.Module, cohort: Held, job: Job, *, device: torch.device, watch: Watch = nothing) -> Measure:
    """What the network says of every patient, gathered in a measure.

    Args:
        network: of the job; moved to the device, and left in evaluation mode.
        cohort: of any split; it may have nobody.
        job: what the network is for.
        device: where to compute.
        watch: called with every pass; it may end the work.
    """
    measure = tasks.of(job).measure()
    network.to(device).eval()
    with torch.inference_mode():
        for images in _passes(cohort, job):
            watch()
            pairs = [cohort.load(i, j) for i, j in images]
            logits = network(torch.stack([image for image, _ in pairs]).to(device)).cpu()
            targets = torch.stack([target for _, target in pairs])
            start = 0
            for spacing, group in groupby(images, key=lambda image: cohort.spacing(*image)):
                patients = [cohort.patients[i] for i, _ in group]
                part = slice(start, start := start + len(patients))
                measure.add(patients, logits[part], targets[part], spacing)
    return measure


def evaluate(
    network: nn.Module,
    cohort: Held,
    job: Job,
    *,
    device: torch.device,
    full: bool = False,
    watch: Watch = nothing,
) -> dict[str, float]:
    """The exact figures of what is `measured`, with `full` also those that take long; nobody gives no figures."""
    return measured(network, cohort, job, device=device, watch=watch).compute(full=full) if len(cohort) else {}


def _passes(cohort: Patients, job: Job) -> Iterator[list[tuple[int, int]]]:
    """All images, in order, so many at a time."""
    size = job.images.channels * int(torch.Size(job.images.size).numel())
    at_once = max(1, _MOST_IMAGES // size)
    images = [(i, j) for i in range(len(cohort)) for j in range(cohort.images(i))]
    for start in range(0, len(images), at_once):
        yield images[start : start + at_once]
