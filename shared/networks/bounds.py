"""What a network may be made of at most, and what torch computes wrong: known before anything is allocated.

A job may name any number as an option. MONAI makes as many layers as it is told, which takes minutes and gigabytes
before torch refuses a size that cannot be: so layers and parameters are counted while a network is made.

Importing this module imports torch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as hooks

# The largest network in the catalogue has a few hundred layers as it comes, and some millions of parameters.
MOST_LAYERS = 5_000
MOST_PARAMETERS = 2_000_000_000
# Of lists and of the values in them: channels, kernels, strides and heads of any network there is are far below.
LONGEST_LIST = 64
LARGEST_NUMBER = 10**6

_WIDE = 7


class TooLarge(Exception):
    """More than a network may be made of; the text says of what."""


class _Counting(threading.local):
    layers: int | None = None
    parameters: int = 0


_counting = _Counting()


@contextmanager
def counted() -> Iterator[None]:
    """While this is open, no network of more than so many layers or parameters can be made in this thread.

    Raises:
        TooLarge: out of the constructor that goes beyond.
    """
    _counting.layers, _counting.parameters = 0, 0
    try:
        yield
    finally:
        _counting.layers = None


def _another_layer(parent: nn.Module, name: str, child: nn.Module | None) -> None:
    if _counting.layers is not None:
        _counting.layers += 1
        if _counting.layers > MOST_LAYERS:
            raise TooLarge(f"it would have more than {MOST_LAYERS} layers")


def _another_parameter(parent: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
    if _counting.layers is not None and parameter is not None:
        _counting.parameters += parameter.numel()
        if _counting.parameters > MOST_PARAMETERS:
            raise TooLarge(f"it would have more than {MOST_PARAMETERS:,} parameters")


# Of every module of this process; in a thread that is not counting they look at one attribute.
hooks.register_module_module_registration_hook(_another_layer)
hooks.register_module_parameter_registration_hook(_another_parameter)


def plain(value: Any) -> str | None:
    """What is too large about an option's value, or None."""
    if isinstance(value, list | tuple):
        if len(value) > LONGEST_LIST:
            return f"got a list of {len(value)}, expected {LONGEST_LIST} at most"
        return next((why for item in value if (why := plain(item)) is not None), None)
    if isinstance(value, int | float) and abs(value) > LARGEST_NUMBER:
        return f"got a number above {LARGEST_NUMBER:,}"
    return None


@contextmanager
def computed_right(network: nn.Module) -> Iterator[None]:
    """While this is open, the network does not take an image of which torch would compute no gradient.

    On a processor, oneDNN's backward pass of a strided 3D convolution writes outside its memory where the kernel is as
    long as the first axis or longer (seen with kernels of 7 and 9; torch 2.13): a gradient that is not finite, or the
    end of the process. Kernels of 5 and 3 were compared with the exact gradient, and are right.

    Raises:
        ValueError: out of the forward pass.
    """
    handles = [
        layer.register_forward_pre_hook(_expect_room) for layer in network.modules() if isinstance(layer, nn.Conv3d)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _expect_room(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    assert isinstance(layer, nn.Conv3d)  # noqa: S101 -- for the types
    reach = layer.dilation[0] * (layer.kernel_size[0] - 1) + 1
    if layer.stride[0] > 1 and reach >= _WIDE and inputs[0].shape[2] <= reach:
        raise ValueError(f"a convolution of {reach} voxels, strided, on a first axis of {inputs[0].shape[2]}")
