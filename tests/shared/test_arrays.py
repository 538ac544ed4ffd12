import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from shared import arrays
from shared.arrays import StructureError
from shared.errors import BadInput

shapes = npst.array_shapes(max_dims=3, max_side=4)
models = st.dictionaries(
    st.text("abc.", min_size=1, max_size=6),
    shapes.flatmap(lambda shape: npst.arrays(np.float32, shape, elements=st.floats(-1e6, 1e6, width=32))),
    min_size=1,
    max_size=4,
)


@settings(max_examples=50, deadline=None)
@given(models)
def test_a_model_file_gives_back_every_bit(model):
    again = arrays.decode(arrays.encode(model))
    assert arrays.digest(again) == arrays.digest(model)
    arrays.check(again, arrays.structure(model))


@settings(max_examples=50, deadline=None)
@given(models)
def test_the_digest_ignores_the_order_of_names_and_nothing_else(model):
    assert arrays.digest(dict(reversed(model.items()))) == arrays.digest(model)
    name = next(iter(model))
    changed = {**model, name: model[name] + np.float32(1e7)}
    assert arrays.digest(changed) != arrays.digest(model)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"b": None}, "missing"),
        ({"c": np.zeros(1, np.float32)}, "not expected"),
        ({"b": np.zeros(3, np.float32)}, r"float32\[3\]"),
        ({"b": np.zeros(2, np.float64)}, "float64"),
        ({"b": np.array([0, np.inf], np.float32)}, "not finite"),
    ],
)
def test_another_structure_is_found_and_named(change, what):
    model = {"a": np.zeros((2, 2), np.float32), "b": np.zeros(2, np.float32)}
    changed = {name: array for name, array in {**model, **change}.items() if array is not None}
    with pytest.raises(StructureError, match=what):
        arrays.check(changed, arrays.structure(model))


def test_a_network_takes_back_what_it_gave():
    network = torch.nn.Linear(3, 2)
    model = arrays.of_network(network)
    other = torch.nn.Linear(3, 2)
    arrays.into_network(model, other)
    assert arrays.digest(arrays.of_network(other)) == arrays.digest(model)
    with pytest.raises(StructureError):
        arrays.into_network(model, torch.nn.Linear(4, 2))


def test_the_norm_is_over_all_arrays_together():
    assert arrays.norm({"a": np.array([3.0]), "b": np.array([[4.0]])}) == pytest.approx(5.0)


def test_a_damaged_model_file_is_bad_input(tmp_path):
    file = tmp_path / "model.safetensors"
    with pytest.raises(BadInput, match="no such file"):
        arrays.load(file)
    arrays.save(file, {"a": np.ones(4, np.float32)})
    assert arrays.load(file)["a"].sum() == 4
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(BadInput, match="damaged"):
        arrays.load(file)
