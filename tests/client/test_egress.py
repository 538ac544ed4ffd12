"""The one door out: what is not as it should be does not leave."""

import numpy as np
import pytest

from client import egress
from client.figures import Noised
from client.site import Policy
from shared.errors import RefusalCode, Refused
from shared.messages import EvaluateRequest, TrainRequest

MODEL = {"a.weight": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float32)}
POLICY = Policy(min_patients=5)
FIGURES = {"patients": 7.0, "loss": 0.123456, "dice": 0.87654, "dice.1": 1.0}


def changed(**arrays) -> dict:
    return {**MODEL, **arrays}


def let_out(job, trained=MODEL, figures=FIGURES, patients=50, policy=POLICY):
    request = TrainRequest(job=job, run="run", round=3, model=MODEL)
    return egress.update(request, trained, figures=figures, training_patients=patients, policy=policy)


def stopped(*args, **kwargs) -> Refused:
    with pytest.raises(Refused) as refused:
        let_out(*args, **kwargs)
    assert refused.value.code == RefusalCode.EGRESS
    return refused.value


def test_a_model_like_the_incoming_one_leaves_as_it_is(job):
    reply = let_out(job)
    assert reply.round == 3
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
def test_any_other_arrays_do_not_leave(job, trained):
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
def test_numbers_that_are_not_listed_or_not_finite_do_not_leave(job, private_job, figures):
    stopped(job, figures=figures)
    stopped(private_job, figures=Noised(figures))


def test_listed_numbers_leave_rounded(job):
    assert let_out(job).numbers == {"patients": 7.0, "loss": 0.123, "dice": 0.877, "dice.1": 1.0}


@pytest.mark.parametrize("figures", [{**FIGURES, "patients": 4.0}, {"dice": 0.5}, {}])
def test_figures_over_too_few_patients_are_withheld(job, figures):
    assert let_out(job, figures=figures).numbers == {}
    request = EvaluateRequest(job=job, run="run", round=2, model=MODEL)
    assert egress.figures(request, figures, policy=POLICY).numbers == {}


def test_under_privacy_no_exact_number_leaves(private_job):
    stopped(private_job, figures=FIGURES)
    request = EvaluateRequest(job=private_job, run="run", round=2, model=MODEL)
    with pytest.raises(Refused) as refusal:
        egress.figures(request, FIGURES, policy=POLICY)
    assert refusal.value.code is RefusalCode.EGRESS
    assert let_out(private_job, figures={}).numbers == {}


@pytest.mark.parametrize(
    ("numbers", "left"),
    [
        ({"patients": 7.0, "dice": 0.71828}, {"patients": 7.0, "dice": 0.718}),
        ({"patients": 4.0, "dice": 0.71828}, {}),
        ({"patients": 0.0}, {}),
    ],
)
def test_under_privacy_noised_numbers_leave_unless_they_say_that_patients_are_few(private_job, numbers, left):
    assert let_out(private_job, figures=Noised(numbers)).numbers == left


def test_a_noised_number_has_to_be_listed_too(private_job):
    stopped(private_job, figures=Noised({"patients": 9.0, "age": 71.0}))


@pytest.mark.parametrize(
    ("weights", "patients", "told"), [("equal", 50, False), ("patients", 50, True), ("patients", 4, False)]
)
def test_how_many_trained_is_told_only_where_the_job_weighs_by_it(job, weights, patients, told):
    numbers = let_out(job.varied(federation={"weights": weights}), patients=patients).numbers
    assert numbers.get("training_patients") == (patients if told else None)


def test_a_refusal_is_a_code_and_nothing_else():
    records = egress.refusal(RefusalCode.FAILED).pack()
    assert dict(records["config"]) == {"protocol": 1, "kind": "Refusal", "code": "failed"}
    assert set(records) == {"config"}
    with pytest.raises(ValueError, match="not a valid"):
        egress.refusal("the scan of Jane Doe cannot be read")
