"""The one door out: what is not as it should be does not leave."""

import json

import numpy as np
import pytest

from client import egress
from client.audit import Record
from client.egress import Door
from client.figures import Noised
from client.ledger import Paid
from client.site import Policy, Site, SiteConfig
from shared.errors import RefusalCode, Refused
from shared.messages import EvaluateRequest, TrainRequest, content_digest

MODEL = {"a.weight": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float32)}
FIGURES = {"patients": 7.0, "loss": 0.123456, "dice": 0.87654, "dice.1": 1.0}


def changed(**arrays) -> dict:
    return {**MODEL, **arrays}


PAID = Paid(charges=((7, "e" * 64),), epsilon=1.25)


@pytest.fixture
def door(tmp_path) -> Door:
    site = Site.create(tmp_path / "home", SiteConfig(name="north", durable=False))
    return Door(Policy(min_patients=5), Record(site))


@pytest.fixture
def recorded(tmp_path):
    """What the record has so far, as it is on the disk, the entry that begins it aside."""

    def read() -> list[dict]:
        lines = (tmp_path / "home" / "record.jsonl").read_text().splitlines()
        return [json.loads(line)["body"] for line in lines][1:]

    return read


@pytest.fixture
def let_out(door):
    def ask(job, trained=MODEL, figures=FIGURES, patients=50, paid=PAID):
        request = TrainRequest(job=job, run="run", round=2, model=MODEL)
        paid = paid if job.private else None
        return door.update(request, trained, figures=figures, training_patients=patients, dataset="data", paid=paid)

    return ask


@pytest.fixture
def said(door):
    def ask(job, figures, paid=PAID):
        request = EvaluateRequest(job=job, run="run", round=2, model=MODEL)
        return door.figures(request, figures, dataset="data", paid=paid if job.private else None)

    return ask


@pytest.fixture
def stopped(let_out, recorded):
    def ask(*args, **kwargs) -> Refused:
        with pytest.raises(Refused) as refused:
            let_out(*args, **kwargs)
        assert refused.value.code == RefusalCode.EGRESS
        return refused.value

    return ask


def test_a_model_like_the_incoming_one_leaves_as_it_is(job, let_out):
    reply = let_out(job)
    assert reply.round == 2
    assert list(reply.model) == list(MODEL)
    assert all(reply.model[name] is MODEL[name] for name in MODEL)


@pytest.mark.parametrize(
    "trained",
    [
        changed(patient_names=np.zeros(4, np.float32)),
        {"a.weight": MODEL["a.weight"]},
        {"a.weight": MODEL["a.weight"], "c": MODEL["b"]},
        changed(b=np.zeros(5, np.float32)),
        changed(b=np.zeros(4, np.float64)),
        changed(b=np.zeros(4, np.int64)),
        changed(b=np.array([0, np.nan, 0, 0], np.float32)),
        changed(b=np.array([0, np.inf, 0, 0], np.float32)),
        changed(b=np.ma.masked_array(np.zeros(4, np.float32))),
        {},
    ],
    ids=["extra", "missing", "renamed", "shape", "dtype", "integers", "nan", "infinite", "not plain", "empty"],
)
def test_any_other_arrays_do_not_leave(job, trained, stopped):
    stopped(job, trained)


@pytest.mark.parametrize(
    "figures",
    [
        {"patients": 9.0, "age": 71.0},
        {"patients": 9.0, "dice.2": 0.5},
        {"patients": 9.0, "dice.x": 0.5},
        {"patients": 9.0, "dice": float("nan")},
        {"patients": 9.0, "dice": float("inf")},
        {"patients": 9.0, "dice": "0.5"},
        {"patients": 9.0, "dice": True},
        {"patients": 9.0, "dice": np.zeros(3)},
        {"patients": 9.0, 3: 0.5},
    ],
    ids=["unlisted", "no such class", "no class", "nan", "infinite", "text", "truth", "array", "no name"],
)
def test_numbers_that_are_not_listed_or_not_finite_do_not_leave(job, private_job, figures, stopped):
    stopped(job, figures=figures)
    stopped(private_job, figures=Noised(figures))


def test_listed_numbers_leave_rounded(job, let_out):
    assert let_out(job).numbers == {"patients": 7.0, "loss": 0.123, "dice": 0.877, "dice.1": 1.0}


@pytest.mark.parametrize("figures", [{**FIGURES, "patients": 4.0}, {"dice": 0.5}, {}])
def test_figures_over_too_few_patients_are_withheld(job, figures, let_out, said):
    assert let_out(job, figures=figures).numbers == {}
    assert said(job, figures).numbers == {}


def test_under_privacy_no_exact_number_leaves(private_job, let_out, said, stopped):
    stopped(private_job, figures=FIGURES)
    with pytest.raises(Refused) as refusal:
        said(private_job, FIGURES)
    assert refusal.value.code is RefusalCode.EGRESS
    assert let_out(private_job, figures={}).numbers == {}


def test_under_privacy_nothing_leaves_that_was_not_paid_for(private_job, let_out, said, stopped):
    moved = changed(b=np.full(4, 0.5, np.float32))
    assert let_out(private_job, moved, figures={}).model["b"][0] == 0.5
    stopped(private_job, moved, figures={}, paid=None)
    assert let_out(private_job, figures={}, paid=None).numbers == {}  # as it came: nothing was trained
    with pytest.raises(Refused):
        said(private_job, Noised({"patients": 9.0, "dice": 0.5}), paid=None)


def test_a_model_changed_by_more_than_the_policy_allows_does_not_leave(job, door, let_out, stopped):
    most = door.policy.max_update_norm
    let_out(job, changed(b=np.full(4, 0.49 * most, np.float32)))
    assert "norm" in stopped(job, changed(b=np.full(4, 0.51 * most, np.float32))).detail


def test_what_leaves_is_recorded_before_and_what_is_stopped_is_not(private_job, let_out, stopped, recorded):
    stopped(private_job, changed(b=np.zeros(5, np.float32)), figures={})
    moved = changed(b=np.full(4, 0.5, np.float32))
    reply = let_out(private_job, moved, figures=Noised({"patients": 9.0, "dice": 0.51234}))
    (entry,) = recorded()
    assert entry["kind"] == "released"
    assert (entry["job"], entry["run"], entry["round"], entry["dataset"]) == (private_job.digest, "run", 2, "data")
    assert (entry["arrays"], entry["bytes"], entry["norm"]) == (2, 4 * 10 + 8 * 2, 1.0)
    assert entry["numbers"] == {"patients": 9.0, "dice": 0.512}
    assert (entry["epsilon"], entry["charges"]) == (1.25, [[7, "e" * 64]])
    assert entry["content"] == content_digest(reply)


def test_what_cannot_be_recorded_does_not_leave(job, let_out, said, door, tmp_path):
    let_out(job)
    record = tmp_path / "home" / "record.jsonl"
    record.write_bytes(record.read_bytes()[:-40] + b"x" * 40)
    for attempt in (lambda: let_out(job), lambda: said(job, FIGURES)):
        with pytest.raises(Refused) as refused:
            attempt()
        assert refused.value.code is RefusalCode.RECORD
    request = TrainRequest(job=job, run="run", round=2, model=MODEL)
    assert door.refuse(RefusalCode.TASK, kind="TrainRequest", about=request).code is RefusalCode.RECORD


def test_a_refusal_is_recorded_with_its_code(job, door, recorded):
    request = TrainRequest(job=job, run="run", round=2, model=MODEL)
    assert door.refuse(RefusalCode.TASK, kind="TrainRequest", about=request).code is RefusalCode.TASK
    assert door.refuse(RefusalCode.MALFORMED, kind="Offer", about=None).code is RefusalCode.MALFORMED
    first, second = recorded()
    assert (first["code"], first["job"], first["run"], first["round"]) == ("task", job.digest, "run", 2)
    assert (second["code"], second["message"], second["job"]) == ("malformed", "Offer", "")


@pytest.mark.parametrize(
    ("numbers", "left"),
    [
        ({"patients": 7.0, "dice": 0.71828}, {"patients": 7.0, "dice": 0.718}),
        ({"patients": 4.0, "dice": 0.71828}, {}),
        ({"patients": 0.0}, {}),
    ],
)
def test_under_privacy_noised_numbers_leave_unless_they_say_that_patients_are_few(private_job, numbers, left, let_out):
    assert let_out(private_job, figures=Noised(numbers)).numbers == left


def test_a_noised_number_has_to_be_listed_too(private_job, stopped):
    stopped(private_job, figures=Noised({"patients": 9.0, "age": 71.0}))


@pytest.mark.parametrize(
    ("weights", "patients", "told"), [("equal", 50, False), ("patients", 50, True), ("patients", 4, False)]
)
def test_how_many_trained_is_told_only_where_the_job_weighs_by_it(job, weights, patients, told, let_out):
    numbers = let_out(job.varied(federation={"weights": weights}), patients=patients).numbers
    assert numbers.get("training_patients") == (patients if told else None)


def test_a_refusal_is_a_code_and_nothing_else():
    records = egress.refusal(RefusalCode.FAILED).pack()
    assert dict(records["config"]) == {"protocol": 2, "kind": "Refusal", "code": "failed"}
    assert set(records) == {"config"}
    with pytest.raises(ValueError, match="not a valid"):
        egress.refusal("the scan of Jane Doe cannot be read")
