"""One round of training at the site; what leaves it is decided elsewhere (`client.egress`).

`plain` and `private` are the two ways. Both start from the network as it is given, with a fresh optimiser, and change
its parameters in place.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from client import watch
from client.site import stable_seed
from client.training import plain, private
from client.training.drawing import Patients
from client.training.noise import Stream
from client.watch import Watch
from shared.errors import RefusalCode, Refused
from shared.job import Job


def train(
    network: nn.Module,
    cohort: Patients,
    job: Job,
    *,
    round: int,
    site_name: str,
    device: torch.device,
    noise_multiplier: float | None = None,
    log: logging.Logger | None = None,
    watch: Watch = watch.nothing,
) -> None:
    """Train the network in place for one round.

    Args:
        network: of the job, with the incoming model's parameters.
        cohort: the training patients, at least one unless the job trains nothing.
        job: private or not.
        round: from 1.
        site_name: with the job and the round it gives the order of patients, without privacy.
        device: where to compute; the network is moved there.
        noise_multiplier: for a private job that trains; what it costs has to be reserved before.
        log: the site's own, for warnings.
        watch: called with every step; it may end the training.

    Raises:
        Refused: `failed`, if the parameters are not finite afterwards; what `watch` raises.
    """
    if job.steps_per_round == 0:
        return
    network.to(device).train()
    if job.private:
        if noise_multiplier is None:
            raise ValueError("a private job needs its noise multiplier")
        seed = int(Stream().random(1)[0] * 2**53)
        with _torch_seeded(seed, device):
            private.train(network, cohort, job, device=device, noise_multiplier=noise_multiplier, log=log, watch=watch)
    else:
        with _torch_seeded(stable_seed("torch", job.digest, round, site_name), device):
            plain.train(network, cohort, job, round=round, site_name=site_name, device=device, watch=watch)
    if not all(bool(torch.isfinite(parameter).all()) for parameter in network.parameters()):
        raise Refused(
            RefusalCode.FAILED,
            f"after round {round} the model's parameters are not finite; a smaller learning_rate may help",
        )


@contextmanager
def _torch_seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's own generators, which dropout uses, seeded here and put back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
