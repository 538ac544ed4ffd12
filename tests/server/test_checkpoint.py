"""What a run writes after every round is enough to go on from, and what was changed since is not gone on from."""

import numpy as np
import pytest

from server.observers.checkpoint import Checkpoint, of_round, resume, state_of_round
from server.store import RoundRow
from shared import arrays
from shared.errors import BadInput, InsituError

MODELS = [{"w": np.full(3, number, np.float32)} for number in range(4)]


def row(number: int) -> RoundRow:
    model = arrays.digest(MODELS[number])
    return RoundRow(round=number, seconds=1.0, contributed=("a",), missing={}, numbers={}, model=model)


@pytest.fixture
def folder(tmp_path, job):
    (tmp_path / "rounds").mkdir()
    checkpoint = Checkpoint(tmp_path, job)
    checkpoint.began(MODELS[0])
    for number in (1, 2, 3):
        checkpoint.round_ended(row(number), MODELS[number], {"v": np.full(2, -number, np.float64)})
    return tmp_path


@pytest.mark.parametrize("state", [{}, {"v": np.arange(3.0)}])
def test_a_run_goes_on_with_the_model_and_the_state_of_its_last_round(tmp_path, job, state):
    (tmp_path / "rounds").mkdir()
    checkpoint = Checkpoint(tmp_path, job)
    checkpoint.began(MODELS[0])
    done, model, found = resume(tmp_path, [])
    assert (done, arrays.digest(model), found) == (0, arrays.digest(MODELS[0]), {})
    checkpoint.round_ended(row(1), MODELS[1], state)
    done, model, found = resume(tmp_path, [row(1)])
    assert (done, arrays.digest(model)) == (1, arrays.digest(MODELS[1]))
    assert {name: array.tolist() for name, array in found.items()} == {n: a.tolist() for n, a in state.items()}


def test_a_round_that_is_not_in_the_store_is_made_again_from_the_one_before(folder):
    done, model, state = resume(folder, [row(1), row(2)])
    assert (done, arrays.digest(model), state["v"].tolist()) == (2, arrays.digest(MODELS[2]), [-2.0, -2.0])


def test_states_that_are_not_needed_any_more_are_forgotten(folder):
    assert [state_of_round(folder, number).exists() for number in (1, 2, 3)] == [False, True, True]
    assert all(of_round(folder, number).exists() for number in range(4))


def test_a_model_that_was_changed_or_damaged_since_is_not_gone_on_from(folder):
    file = of_round(folder, 3)
    arrays.save(file, MODELS[1])
    with pytest.raises(InsituError, match="is not the model of round 3"):
        resume(folder, [row(3)])
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(BadInput, match=r"0003\.safetensors"):
        resume(folder, [row(3)])
