import pytest

from server.store import RoundRow, Store
from shared.errors import BadInput


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store.sqlite")


def test_a_run_is_remembered_with_its_rounds(store, job):
    run = store.create_run(job)
    row = RoundRow(
        round=1,
        seconds=0.5,
        contributed=("north", "south"),
        missing={"west": "over_budget"},
        numbers={"north": {"dice": 0.5}},
        model="00",
    )
    store.add_round(run, row)
    store.set_figures(run, {"north": {"dice": 0.75}})
    store.set_status(run, "completed")
    again = Store(store.path)
    assert again.run(run).job == job
    assert again.run(run).status == "completed"
    assert again.run(run).ended is not None
    assert again.rounds(run) == [row]
    assert again.figures(run) == {"north": {"dice": 0.75}}


def test_flowers_64_bit_names_survive(store, job):
    run = store.create_run(job)
    store.set_flower_run(run, 2**64 - 1)
    store.sites.admit("north", node_id=2**64 - 2, public_key="k1")
    assert store.run(run).flower_run_id == 2**64 - 1
    assert store.sites.admitted()["north"].node_id == 2**64 - 2


def test_a_name_or_key_is_admitted_once(store):
    store.sites.admit("north", node_id=1, public_key="k1")
    with pytest.raises(BadInput, match="already admitted"):
        store.sites.admit("north", node_id=2, public_key="k2")


def test_an_unknown_run_is_bad_input(store):
    with pytest.raises(BadInput, match="no run"):
        store.run("nothing")


def test_the_newest_run_comes_first(store, job):
    runs = [store.create_run(job) for _ in range(3)]
    assert [row.id for row in store.runs()] == runs[::-1]
