"""Training without privacy: batches of patients, shuffled epoch by epoch.

The same job, round, site and incoming model give the same bits again on the same machine and number of threads:
the order of patients comes from the job's digest, the round and the site's name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from client.site import stable_seed
from client.training import drawing, optimizers, precision
from client.training.drawing import Patients
from client.watch import Watch, nothing
from shared import tasks
from shared.job import Job, Training


def train(
    network: nn.Module,
    cohort: Patients,
    job: Job,
    *,
    round: int,
    site_name: str,
    device: torch.device,
    watch: Watch = nothing,
) -> None:
    """Train the network in place for one round."""
    training, task = job.training, tasks.of(job)
    source = np.random.default_rng(stable_seed(job.digest, round, site_name))
    optimizer = optimizers.fresh(training, network.parameters())
    patients = _batches(len(cohort), training.batch_size, source)
    for _ in range(steps(training, len(cohort))):
        watch()
        drawn = drawing.choose_images(cohort, next(patients), training, source)
        batch = drawing.load(cohort, drawn, training, source, device)
        optimizer.zero_grad()
        with precision.asked(training, device):
            losses = task.loss(network(batch.images), batch.targets)
        torch.autograd.backward((losses * batch.share).sum() / batch.patients)
        optimizer.step()
    optimizer.zero_grad()


def steps(training: Training, patients: int) -> int:
    """Optimiser steps of one round at a site with this many training patients."""
    if training.local_steps is not None:
        return training.local_steps
    return math.ceil((training.local_epochs or 0) * patients / training.batch_size)


def _batches(patients: int, size: int, source: np.random.Generator) -> Iterator[list[int]]:
    """Whole batches without end; everybody has had their turn before anybody has the next."""
    waiting: list[int] = []
    while True:
        while len(waiting) < min(size, patients):
            waiting += source.permutation(patients).tolist()
        yield waiting[: min(size, patients)]
        waiting = waiting[min(size, patients) :]
