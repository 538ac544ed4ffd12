"""Models as named arrays: state_dict ↔ arrays, the structure check, and the digest of a model.

A model on the wire and on disk is a dict from parameter name to a contiguous float array. Buffers
(running statistics, counters) are no part of it: the networks offered have none that training changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as _decode
from safetensors.numpy import save as _encode
from torch import nn

from shared.errors import BadInput
from shared.files import write_atomically as write_atomically

Arrays = dict[str, npt.NDArray[np.floating]]
Structure = dict[str, tuple[tuple[int, ...], str]]


class StructureError(ValueError):
    """Arrays that do not have the names, shapes and dtypes expected, or are not finite."""


def of_network(network: nn.Module) -> Arrays:
    """Copies of all parameters, on the CPU, in the network's own order."""
    return {name: parameter.detach().cpu().numpy().copy() for name, parameter in network.named_parameters()}


def into_network(arrays: Arrays, network: nn.Module) -> None:
    """Write the arrays into the network's parameters.

    Raises:
        StructureError: if the arrays are not exactly the network's parameters.
    """
    parameters = dict(network.named_parameters())
    check(arrays, {name: (tuple(p.shape), _dtype(p)) for name, p in parameters.items()})
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.tensor(arrays[name]))


def _dtype(parameter: torch.Tensor) -> str:
    return str(parameter.dtype).removeprefix("torch.")


def structure(arrays: Arrays) -> Structure:
    """Name → (shape, dtype)."""
    return {name: (tuple(array.shape), _name(array.dtype)) for name, array in arrays.items()}


@cache
def _name(dtype: np.dtype[Any]) -> str:
    """As `float32`; NumPy takes its time to say it."""
    return str(dtype)


def check(arrays: Arrays, expected: Structure) -> None:
    """Same names, shapes and dtypes as expected, and every number finite.

    Raises:
        StructureError: naming the first array that differs.
    """
    if missing := [name for name in expected if name not in arrays]:
        raise StructureError(f"{len(missing)} arrays are missing, the first is {missing[0]!r}")
    if extra := [name for name in arrays if name not in expected]:
        raise StructureError(f"{len(extra)} arrays are not expected, the first is {extra[0][:80]!r}")
    for name, (shape, dtype) in expected.items():
        array = arrays[name]
        if tuple(array.shape) != shape or _name(array.dtype) != dtype:
            raise StructureError(f"{name}: got {array.dtype}{list(array.shape)}, expected {dtype}{list(shape)}")
        if not np.isfinite(array).all():
            raise StructureError(f"{name}: holds numbers that are not finite")


def norm(arrays: Arrays) -> float:
    """L2 norm over all arrays together."""
    return float(np.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays.values())))


def digest(arrays: Arrays) -> str:
    """SHA-256 over names, shapes, dtypes and bytes, whatever the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        sha.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        sha.update(array.data)
    return sha.hexdigest()


def encode(arrays: Arrays, metadata: Mapping[str, str] | None = None) -> bytes:
    """The arrays as safetensors."""
    return _encode({name: np.asarray(array, order="C") for name, array in arrays.items()}, dict(metadata or {}))


def decode(data: bytes) -> Arrays:
    """The arrays of a safetensors file.

    Raises:
        StructureError: if it is damaged or not safetensors.
    """
    try:
        return dict(_decode(data))
    except (SafetensorError, ValueError, KeyError) as error:
        raise StructureError(f"not a safetensors file, or a damaged one ({error})") from None


def save(path: Path, arrays: Arrays, metadata: Mapping[str, str] | None = None) -> None:
    """Write a model file so that a crash leaves the old file or the new one, never half of one."""
    write_atomically(path, encode(arrays, metadata))


def load(path: Path) -> Arrays:
    """Read a model file.

    Raises:
        BadInput: if it is missing or damaged.
    """
    try:
        return decode(Path(path).read_bytes())
    except FileNotFoundError:
        raise BadInput("no such file; expected a model.safetensors", file=path) from None
    except StructureError as error:
        raise BadInput(str(error), file=path) from None
