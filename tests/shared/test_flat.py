"""What is flattened comes back as it was; what was tampered with does not come back."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared import bundle, flat, messages

_names = st.text(max_size=12)
_floats = st.floats(allow_nan=False)
_integers = st.integers(min_value=-(2**63), max_value=2**63 - 1)
_scalars = st.one_of(_integers, _floats, st.text(max_size=20), st.binary(max_size=20), st.booleans())
_config_values = _scalars | st.lists(_integers, max_size=4) | st.lists(st.binary(max_size=4), max_size=4)
_metric_values = _integers | _floats | st.lists(_floats, max_size=4)
_arrays = hnp.arrays(
    dtype=st.sampled_from(["float32", "float64", "float16", "int64"]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, max_side=4),
    elements={"allow_nan": False},
)
_records = st.one_of(
    st.dictionaries(_names, _config_values, max_size=4).map(ConfigRecord),
    st.dictionaries(_names, _metric_values, max_size=4).map(MetricRecord),
    st.dictionaries(_names, _arrays, max_size=3).map(lambda d: ArrayRecord({k: Array(a) for k, a in d.items()})),
)


@given(st.dictionaries(_names, _records, max_size=4).map(RecordDict))
def test_records_come_back_as_they_were(records):
    again = flat.restore(flat.flatten(records))
    assert list(again) == list(records)
    for name, record in records.items():
        assert type(again[name]) is type(record)
        assert list(again[name]) == list(record)
        for key, value in record.items():
            other = again[name][key]
            if isinstance(record, ArrayRecord):
                assert (other.dtype, tuple(other.shape), other.stype, other.data) == (
                    value.dtype,
                    tuple(value.shape),
                    value.stype,
                    value.data,
                )
            else:
                assert other == value
                assert type(other) is type(value)


def test_a_large_model_comes_back_over_many_pieces():
    model = {f"layer{i}": np.random.default_rng(i).normal(size=(700, 1001)).astype("float32") for i in range(4)}
    records = RecordDict({"model": ArrayRecord({name: Array(array) for name, array in model.items()})})
    pieces = flat.flatten(records)
    assert len(pieces) == 3
    assert all(len(record["flat"]) <= flat.PIECE for record in pieces.values())
    again = flat.restore(pieces)["model"]
    for name, array in model.items():
        np.testing.assert_array_equal(again[name].numpy(), array)


def _pieces() -> list[bytes]:
    records = RecordDict({"model": ArrayRecord({"a": Array(np.arange(6.0))}), "config": ConfigRecord({"b": b"xy"})})
    return [record["flat"] for record in flat.flatten(records).values()]


def _packed(contents: list[bytes]) -> RecordDict:
    return RecordDict({f"{n:06d}": ConfigRecord({"flat": content}) for n, content in enumerate(contents)})


@settings(max_examples=300)
@given(st.data())
def test_damage_is_a_value_error_and_nothing_else(data):
    content = bytearray(b"".join(_pieces()))
    kind = data.draw(st.sampled_from(["cut", "flip", "more", "noise"]))
    if kind == "cut":
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    elif kind == "flip":
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    elif kind == "more":
        content += data.draw(st.binary(min_size=1, max_size=20))
    else:
        content = bytearray(data.draw(st.binary(max_size=200)))
    try:
        flat.restore(_packed([bytes(content)] if content else []))
    except ValueError:
        return
    assert kind in ("flip", "noise")


@pytest.mark.parametrize(
    "records",
    [
        RecordDict(),
        RecordDict({"000000": MetricRecord({"flat": 1.0})}),
        RecordDict({"000000": ConfigRecord({"flat": "text"})}),
        RecordDict({"000000": ConfigRecord({"flat": b""})}),
        RecordDict({"000001": ConfigRecord({"flat": b"x"})}),
        RecordDict({"000000": ConfigRecord({"flat": b"\xff\xff\xff\xff"})}),
        RecordDict({"000000": ConfigRecord({"flat": b"\x00\x00\x00\x02[]"})}),
        RecordDict({"000000": ConfigRecord({"flat": b"\x00\x00\x00\x02{}", "more": 1})}),
    ],
)
def test_what_is_not_flat_is_refused(records):
    with pytest.raises(ValueError, match=r"."):
        flat.restore(records)


def test_the_bundle_is_the_same_bytes_everywhere_and_holds_no_code():
    # It may change with the protocol only: sites of another version would refuse every run.
    assert (bundle.PROTOCOL, bundle.DIGEST) == (2, "f999465e9c3c536bd46b6585d2f67dbafd4e32da75ee6d093600dce88ef2cb40")
    with zipfile.ZipFile(io.BytesIO(bundle.CONTENT)) as archive:
        assert archive.namelist() == ["pyproject.toml"]


def test_the_bundle_speaks_the_protocol_of_the_messages():
    assert bundle.PROTOCOL == messages.PROTOCOL


@pytest.mark.parametrize(
    "shape", ["[1e999]", "[-1]", "[1.5]", '["3"]', "[true]", "[99999999999999999999]", "7", "[[1]]"]
)
def test_a_shape_that_is_none_is_a_value_error(shape):
    header = f'{{"a":["arrays",[["b","float32",{shape},"numpy.ndarray",0]]]}}'.encode()
    with pytest.raises(ValueError, match="malformed"):
        flat.restore(_packed([len(header).to_bytes(4, "big") + header]))


def test_what_is_only_declared_is_not_allocated():
    header = b'{"a":["arrays",[["b","float32",[1000000,1000000],"numpy.ndarray",1000000000000]]]}'
    for content in (len(header).to_bytes(4, "big") + header, (2**32 - 1).to_bytes(4, "big") + b"{}"):
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"."):
            flat.restore(_packed([content]))
        assert tracemalloc.get_traced_memory()[1] < 100_000
        tracemalloc.stop()
