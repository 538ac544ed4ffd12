"""The model that a run starts from: random weights, or weights that have seen phantoms (`start_from = "phantoms"`).

Pretraining happens at the coordinator, on pictures that a generator draws (see `phantoms`): nobody's data, no privacy
cost, no weights fetched from anywhere. That a private training is far ahead if it starts from something is the finding
of De et al. 2022 (arXiv:2204.13650) and, with random processes for data, of Tang et al. 2023 (arXiv:2306.06076).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from server.pretraining.phantoms import Phantoms
from shared import arrays, networks, tasks
from shared.arrays import Arrays
from shared.job import Images, Job
from shared.preprocessing import Preprocessing

STEPS = 600
# Of one step: at most so many images, and voxels, so that volumes take no longer than pictures.
_MOST_IMAGES, _MOST_VOXELS = 16, 2**19
_LEARNING_RATE = 0.003
_SAY_EVERY = 10

Say = Callable[[int], Any]

# The last pretrained model, by what it depends on: the arms of a comparison start from the same one.
_last: tuple[str, Arrays] | None = None


def initial(job: Job, say: Say | None = None) -> Arrays:
    """The model of round 0; on the same machine the same for every job of the same network, images, classes and seed.

    Args:
        job: says where to start from.
        say: called now and then with the steps of pretraining that are done, of `STEPS`.
    """
    global _last
    if job.training.start_from == "scratch":
        return arrays.of_network(networks.build(job))
    neutral = _neutral(job)
    if _last is None or _last[0] != neutral.digest:
        _last = neutral.digest, _pretrained(neutral, say)
    return dict(_last[1])


def _neutral(job: Job) -> Job:
    """The job without all that pretraining does not depend on."""
    kept = job.model_dump(mode="json", exclude_none=True, include={"task", "classes", "images", "network"})
    rest = {"name": "phantoms", "training": {"seed": job.training.seed}, "privacy": {"mode": "none"}}
    return Job.from_dict(kept | rest)


def _pretrained(job: Job, say: Say | None) -> Arrays:
    network, task, preprocessing = networks.build(job), tasks.of(job), Preprocessing(job.images)
    phantoms = Phantoms.of(job)
    # A map of places, if there is one, stays zero: where things are in phantoms is not where they are in people.
    learning = [parameter for name, parameter in network.named_parameters() if name != "atlas"]
    optimizer = torch.optim.Adam(learning, lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    count = max(1, min(_MOST_IMAGES, _MOST_VOXELS // math.prod(job.images.size)))
    for step in range(STEPS):
        if say is not None and step % _SAY_EVERY == 0:
            say(step)
        images, targets = phantoms.draw(count)
        images = torch.stack([preprocessing.scaled(image) for image in _in_units(images, job.images)])
        optimizer.zero_grad()
        torch.autograd.backward(task.loss(network(images), targets).mean())
        optimizer.step()
        schedule.step()
    return arrays.of_network(network)


def _in_units(images: torch.Tensor, of: Images) -> torch.Tensor:
    """Intensities from 0 to 1 in the units of the job's images, where these have a meaning."""
    if of.window is None:
        return images
    centre, width = of.window
    return centre + width * (images - 0.5)
