"""From options to a network, and the trial of one on the meta device, where nothing is computed or allocated.

Importing this module imports torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from shared.job import Job
from shared.networks import bounds
from shared.networks.atlas import Atlas
from shared.networks.catalogue import Entry
from shared.networks.options import constructor


class Unfit(Exception):
    """These options, or this size, do not make a network; the text says why in a line."""


class Oversized(Unfit):
    """These options make too large a network, whatever the size of images."""


def construct(entry: Entry, options: Mapping[str, Any], job: Job, size: tuple[int, ...]) -> nn.Module:
    """The network, made fit for training, on the default device of this thread.

    Raises:
        Unfit: if MONAI, or the surgery, does not take the options.
    """
    from shared.networks.surgery import fit

    arguments = {**entry.arguments(job, size), **{key: _as_tuples(value) for key, value in options.items()}}
    if entry.norm is not None and arguments.get(entry.norm) == "group":
        arguments[entry.norm] = _REPLACED_BY_GROUPS
    try:
        with warnings.catch_warnings(), bounds.counted():
            # What MONAI warns of here is an option without effect.
            warnings.filterwarnings("error", category=UserWarning, module=r"monai\.networks\.")
            network = fit(constructor(entry)(**arguments))
    except bounds.TooLarge as error:
        raise Oversized(str(error)) from None
    except Exception as error:  # whatever the library raises for a value it does not take
        raise Unfit(_first_line(error)) from error
    if job.network.atlas is None:
        return network
    return Atlas(network, classes=len(job.classes), size=size, every=job.network.atlas)


# BatchNorm, from which the surgery makes GroupNorm; 1e-5 is the ε of both.
_REPLACED_BY_GROUPS = ("batch", {"eps": 1e-5})


def attempt(entry: Entry, options: Mapping[str, Any], job: Job, size: tuple[int, ...]) -> nn.Module:
    """Construct on the meta device and pass one image of this size through.

    Returns:
        The network, on the meta device.

    Raises:
        Unfit: if it cannot be made, does not take the size, or does not give logits of the right shape.
    """
    shape = (1, len(job.classes), *(size if job.task == "segmentation" else ()))
    with torch.device("meta"):
        network = construct(entry, options, job, size).train()
        try:
            with torch.no_grad(), bounds.computed_right(network):
                logits = network(torch.empty(1, job.images.channels, *size))
        except Exception as error:  # as above
            raise Unfit(_first_line(error)) from error
    if tuple(logits.shape) != shape:
        raise Unfit(f"it gives {list(logits.shape[2:])} for images of {list(size)}")
    return network


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:200]
