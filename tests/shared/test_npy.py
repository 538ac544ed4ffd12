import io
import tracemalloc

import numpy as np
import pytest
from flwr.app import Array
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shared import npy

PLAIN = st.sampled_from(["float32", "float64", "float16", "int64", "uint8"])


@given(arrays.arrays(PLAIN, arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)))
def test_an_array_is_packed_as_flower_packs_it_and_comes_back(array):
    packed, flowers = npy.pack(array), Array(array)
    assert (packed.dtype, packed.shape, packed.stype, packed.data) == (
        flowers.dtype,
        flowers.shape,
        flowers.stype,
        flowers.data,
    )
    for one in (packed, flowers):
        found = npy.unpack(one)
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert np.array_equal(found, array, equal_nan=array.dtype.kind == "f")


def test_the_order_in_memory_does_not_matter():
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert np.array_equal(npy.unpack(npy.pack(array)), array)
    assert np.array_equal(npy.unpack(npy.pack(array[:, ::2])), array[:, ::2])


def test_what_is_read_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        npy.unpack(npy.pack(np.zeros(3)))[0] = 1


def raw(array, **changed) -> Array:
    packed = npy.pack(array)
    fields = {"dtype": packed.dtype, "shape": packed.shape, "stype": packed.stype, "data": packed.data} | changed
    return Array(**fields)


ONE = np.arange(4, dtype=np.float32)
PACKED = npy.pack(ONE).data


def saved(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    "wrong",
    [
        {"stype": "torch.tensor"},
        {"dtype": "float64"},
        {"shape": (2, 2)},
        {"data": b""},
        {"data": PACKED[:-1]},
        {"data": PACKED + b"\0\0\0\0"},
        {"data": PACKED[:20]},
        {"data": PACKED[:8] + b"\xff\xff" + PACKED[10:]},
        {"data": b"\x93NUMPY\x02\x00" + PACKED[8:]},
        {"data": PACKED.replace(b"'descr'", b"'descr!")},
        {"data": saved(np.array([{"a": 1}], dtype=object)), "dtype": "object", "shape": (1,)},
        {"data": saved(np.asfortranarray(np.ones((2, 2), np.float32))), "shape": (2, 2)},
        {"data": saved(np.zeros(2, "U4")), "dtype": "<U4", "shape": (2,)},
    ],
)
def test_anything_else_is_refused(wrong):
    with pytest.raises(ValueError, match=r"\.npy|header|reshape|buffer|plain"):
        npy.unpack(raw(ONE, **wrong))


@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_bytes_make_it_fail_otherwise(garbage, at):
    for data in (garbage, PACKED[:at] + garbage + PACKED[at + len(garbage) :]):
        try:
            npy.unpack(raw(ONE, data=data))
        except ValueError:
            continue


@pytest.mark.parametrize("shape", [(10**6, 10**6), (2**62, 4), (2**40,), (-1,), (-4,)])
def test_what_is_only_declared_is_not_allocated(shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    for content in (b"", b"\0" * 16):
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"reshape|plain|size|buffer|large"):
            npy.unpack(raw(ONE, shape=shape, data=stream.getvalue() + content))
        assert tracemalloc.get_traced_memory()[1] < 100_000
        tracemalloc.stop()
