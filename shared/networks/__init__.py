"""MONAI's networks by name, made fit for per-patient gradients and for federated training.

A network built here has no batch statistics, no buffers, no parameter under two names and none that is never used; its
per-sample gradients by `vmap` are those of one sample alone. Nothing heavy is imported until a network is needed.

Jobs name a network and may give MONAI's own options for it, over small defaults (see `shared.networks.catalogue`).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from shared.errors import BadInput
from shared.job import Job
from shared.networks.catalogue import ENTRIES, Entry, Options, find

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NAMES", "build", "check", "describe"]

NAMES: tuple[str, ...] = tuple(ENTRIES)
# The random state that initial weights are drawn from is one for the whole process.
_DRAWING = threading.Lock()


def check(job: Job) -> None:
    """Everything about the job's network that can be known without data: about a second, and nothing is allocated.

    Raises:
        BadInput: for a network that does not exist or is for the other task, an option that it does not have or does
            not take, and a size of images that it cannot take (with the nearest that it can).
    """
    from shared.networks.construction import Oversized, Unfit, attempt
    from shared.networks.sizes import Size, advice

    entry, options = _read(job)

    def takes(size: Size) -> bool:
        try:
            attempt(entry, options, job, size)
        except Unfit:
            return False
        return True

    try:
        attempt(entry, options, job, job.images.size)
    except Oversized as error:
        raise _oversized(entry, job, error) from None
    except Unfit as error:
        if (what := advice(job.images.size, takes)) is not None:
            raise BadInput(f"[images] size: {entry.name} cannot take {list(job.images.size)}; {what}") from None
        raise _bad_option(entry, job, str(error)) from None


def build(job: Job) -> nn.Module:
    """The job's network with its initial weights, on the CPU, in training mode.

    The weights come from `[training] seed` alone, and are the same on every machine; no random state of the process is
    changed.

    Returns:
        A module with forward(x (B, C, *size) float32) → logits, (B, K, *size) for segmentation or (B, K) for
        classification; B images never meet. All parameters are float32 and have one name; there are no buffers.

    Raises:
        BadInput: as `check`, the size aside.
    """
    import torch

    from shared.networks.construction import Oversized, Unfit, construct

    entry, options = _read(job)
    try:
        with torch.device("meta"):  # counted before anything is allocated
            construct(entry, options, job, job.images.size)
        with _DRAWING, torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(job.training.seed)  # torch.manual_seed would reach the GPUs' as well
            return construct(entry, options, job, job.images.size).train()
    except Oversized as error:
        raise _oversized(entry, job, error) from None
    except Unfit as error:
        raise _bad_option(entry, job, str(error)) from None


def describe() -> list[dict[str, Any]]:
    """One row a network: name, task, dimensions, parameters (one channel, two classes), and the default options."""
    return [_row(entry) for entry in ENTRIES.values()]


def _row(entry: Entry) -> dict[str, Any]:
    import torch

    from shared.networks.construction import construct

    counts = {}
    for dimensions, size in ((2, [64, 64]), (3, [64, 64, 64])):
        job = Job.from_dict(
            {"name": "standard", "task": entry.task, "classes": ["0", "1"], "images": {"size": size}}
            | {"network": {"name": entry.name}, "privacy": {"mode": "none"}}
        )
        with torch.device("meta"):
            network = construct(entry, entry.defaults({}, dimensions), job, job.images.size)
        counts[f"parameters_{dimensions}d"] = sum(parameter.numel() for parameter in network.parameters())
    what = {"name": entry.name, "task": entry.task, "dimensions": "2D, 3D"}
    return what | counts | {"options": entry.defaults({}, 2)}


def _read(job: Job) -> tuple[Entry, Options]:
    from shared.networks.options import complete

    entry = find(job)
    return entry, complete(entry, job.network.options, job.images.dimensions)


def _oversized(entry: Entry, job: Job, error: Exception) -> BadInput:
    return BadInput(f"[network] {', '.join(job.network.options)}: {entry.name} cannot be made so: {error}")


def _bad_option(entry: Entry, job: Job, why: str) -> BadInput:
    """Which of the given keys it is: the one without which the network can be made, or any of them."""
    from shared.networks.construction import Unfit, attempt

    given = job.network.options
    culprits = []
    for key in given:
        rest = {name: value for name, value in given.items() if name != key}
        try:
            attempt(entry, entry.defaults(rest, job.images.dimensions) | rest, job, job.images.size)
        except Unfit:
            continue
        culprits.append(key)
    keys = ", ".join(culprits or given) or "name"
    return BadInput(f"[network] {keys}: {entry.name} cannot be made so: {why}")
