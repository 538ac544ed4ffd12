"""NumPy arrays ↔ Flower's arrays, which hold them in the .npy format (NumPy Enhancement Proposal 1).

The bytes are those that Flower itself would make. What is saved is the header: a model's arrays have the same few
headers in every message, and NumPy takes longer to write or parse one than to copy a small array. Nothing is copied
when an array is read: it is a view, not to be written to, of the message's bytes.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array

_STYPE = "numpy.ndarray"
_MAGIC = np.lib.format.magic(1, 0)
_LONGEST_HEADER = 4096


def pack(array: npt.NDArray[Any]) -> Array:
    """Flower's array of this one."""
    array = np.asarray(array, order="C")
    dtype, header = _written(array.dtype, array.shape)
    return Array(dtype=dtype, shape=array.shape, stype=_STYPE, data=header + array.tobytes())


def unpack(array: Any) -> npt.NDArray[Any]:
    """The array that Flower's holds, read-only.

    Raises:
        ValueError: if it is not one of plain numbers in C order in the .npy format, version 1.0, or says of itself
            what its bytes do not.
    """
    data, start = array.data, len(_MAGIC) + 2
    if array.stype != _STYPE or data[: len(_MAGIC)] != _MAGIC:
        raise ValueError("not in the .npy format 1.0")
    end = start + int.from_bytes(data[len(_MAGIC) : start], "little")
    if end > min(len(data), _LONGEST_HEADER):
        raise ValueError("the header is longer than one is")
    dtype, shape, name = _read(data[:end])
    if (name, shape) != (array.dtype, tuple(array.shape)):
        raise ValueError("the header says otherwise than the message")
    # `frombuffer` refuses an empty buffer, and counts; reshaping refuses what does not fill the shape.
    values = np.frombuffer(data, dtype, offset=end) if len(data) > end else np.empty(0, dtype)
    return values.reshape(shape)


@lru_cache(maxsize=4096)
def _written(dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[str, bytes]:
    out = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, described)
    return str(dtype), out.getvalue()


@lru_cache(maxsize=4096)
def _read(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], str]:
    stream = io.BytesIO(header)
    np.lib.format.read_magic(stream)
    try:
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception:  # NumPy evaluates a header as a Python literal: there is no list of what may come up
        raise ValueError("the header is malformed") from None
    # A negative length would be taken for "as many as there are".
    if fortran_order or dtype.kind not in "fiub" or any(length < 0 for length in shape):
        raise ValueError("not plain numbers in C order")
    return dtype, shape, str(dtype)
