"""A site answering real messages through the ClientApp: a home on disk, pictures, a tiny U-Net."""

import logging
import multiprocessing
import os
import re

import numpy as np
import pytest
from asking import ask, code, evaluate, log_of, model_of, send, train
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from client import opened, training, work
from client.data.registry import Registry
from client.ledger import Ledger
from shared import accounting, arrays
from shared.errors import RefusalCode
from shared.messages import Accepted, Offer, Refusal, Update


def steps(site) -> int:
    return sum(count for *_, count in Ledger(site).history("data"))


def test_a_site_takes_part_trains_and_says_figures(hospital, job):
    site = hospital()
    assert ask(site, Offer(job=job, run="run-1")) == Accepted()
    before = model_of(job)
    update = ask(site, train(job))
    assert list(update.model) == list(before)
    assert any((update.model[name] != before[name]).any() for name in before)
    assert {"patients", "loss", "dice"} <= set(update.numbers)
    assert all(value == round(value, 3) for value in update.numbers.values())
    figures = ask(site, evaluate(job, number=2, model=update.model))
    assert figures.numbers["patients"] == len({item.patient for item in Registry(site).items("data", "test")})
    assert Ledger(site).history("data") == []


def test_rounds_learn(hospital, job):
    site, job = hospital(), job.varied(training={"local_steps": 40, "learning_rate": 0.01})
    update = ask(site, train(job))
    after = ask(site, train(job, number=2, model=update.model))
    assert after.numbers["dice"] > max(0.5, update.numbers["dice"])


def test_figures_come_with_every_so_many_rounds(hospital, job):
    site = hospital()
    job = job.varied(federation={"evaluate_every": 2, "rounds": 9})
    assert [bool(ask(site, train(job, number=number)).numbers) for number in (1, 2, 3)] == [True, False, True]
    never = job.varied(federation={"evaluate_every": 0})
    assert ask(site, train(never)).numbers == {}


def test_a_private_round_is_charged_and_says_no_number_unless_the_job_asks(hospital, private_job):
    site = hospital(rules={"epsilon": 9.0, "delta": 1e-4})
    update = ask(site, train(private_job))
    assert update.numbers == {}
    noise = accounting.noise_for(private_job)
    assert Ledger(site).history("data", job=private_job.digest, run="run-1") == [(noise, 0.5, 2)]
    ask(site, train(private_job, number=2, model=update.model))
    assert 0.95 * 8 < Ledger(site).spent("data") <= 8


def test_private_figures_are_noised_and_charged_to_the_patients_they_are_of(hospital, private_job):
    site = hospital(rules={"epsilon": 9.0, "delta": 1e-4})
    job = private_job.varied(federation={"evaluate_every": 1})
    update = ask(site, train(job))
    assert set(update.numbers) <= {"patients", "dice"}
    noise, rate, count = Ledger(site).history("data", split="validation")[0]
    assert (rate, count) == (1.0, 1)
    assert 7 < accounting.epsilon([(noise, 1.0, job.evaluations)], delta=1e-4) <= 8
    ask(site, train(job, number=2, model=update.model))
    assert sum(count for *_, count in Ledger(site).history("data", split="validation")) == 2

    figures = ask(site, evaluate(job, number=2, model=update.model)).numbers
    assert set(figures) == {"patients", "dice"}
    exact = len({item.patient for item in Registry(site).items("data", "test")})
    assert abs(figures["patients"] - exact) < 6
    (charge,) = Ledger(site).history("data", split="test")
    assert 7 < accounting.epsilon([charge], delta=1e-4) <= 8
    # The three splits are different patients: the dataset has spent what the one that spent most has.
    assert 7.5 < Ledger(site).spent("data") <= 8


def test_private_figures_asked_for_again_are_the_same_and_of_another_model_are_charged_again(hospital, private_job):
    site = hospital(rules={"epsilon": 20.0, "delta": 1e-4})
    first = ask(site, evaluate(private_job)).numbers
    assert ask(site, evaluate(private_job)).numbers == first
    assert len(Ledger(site).read().entries) == 2  # the budget, and one charge
    other = {name: array + 1 for name, array in model_of(private_job).items()}
    ask(site, evaluate(private_job, model=other))
    assert sum(count for *_, count in Ledger(site).history("data", split="test")) == 2


def test_figures_that_their_patients_budget_does_not_allow_are_withheld_and_training_goes_on(hospital, private_job):
    site = hospital(rules={"epsilon": 8.5, "delta": 1e-4})
    assert ask(site, evaluate(private_job)).numbers
    other = {name: array + 1 for name, array in model_of(private_job).items()}
    assert ask(site, evaluate(private_job, model=other)).numbers == {}
    assert "no figures" in log_of(site)
    assert ask(site, train(private_job)).model
    assert sum(count for *_, count in Ledger(site).history("data", split="test")) == 1


def test_private_figures_over_few_patients_are_withheld(hospital, private_job):
    site = hospital(min_patients=30)
    numbers = [ask(site, evaluate(private_job.varied(training={"seed": seed}))).numbers for seed in range(2)]
    assert numbers == [{}, {}]


def test_the_same_request_again_gets_the_same_bytes_and_costs_nothing(hospital, private_job, job):
    site = hospital()
    for request in (train(private_job), train(job), evaluate(job)):
        first = send(site, request.pack(), request.flower_type)
        charged = steps(site)
        opened._sites._values.clear()  # as after a restart
        again = send(site, request.pack(), request.flower_type)
        for name, record in first.items():
            if isinstance(record, ArrayRecord):
                assert [(key, array.data) for key, array in record.items()] == [
                    (key, array.data) for key, array in again[name].items()
                ]
            else:
                assert dict(record) == dict(again[name])
        assert steps(site) == charged


def test_another_model_for_the_same_round_is_charged_again(hospital, private_job):
    site = hospital()
    ask(site, train(private_job))
    ask(site, train(private_job, model={name: array + 1 for name, array in model_of(private_job).items()}))
    assert steps(site) == 4


def test_a_round_over_budget_is_refused_before_training(hospital, private_job, nothing_is_trained):
    site = hospital(rules={"epsilon": 1.0, "delta": 1e-4})
    assert code(ask(site, Offer(job=private_job, run="run-1"))) == RefusalCode.OVER_BUDGET
    assert code(ask(site, train(private_job))) == RefusalCode.OVER_BUDGET
    assert steps(site) == 0


def test_a_process_killed_after_reserving_has_spent(hospital, private_job, monkeypatch):
    site, request = hospital(), train(private_job)

    def die_while_training() -> None:
        monkeypatch.setattr(training.private, "train", lambda *args, **kwargs: os._exit(9))
        ask(site, request)

    child = multiprocessing.get_context("fork").Process(target=die_while_training)
    child.start()
    child.join()
    assert child.exitcode == 9
    assert steps(site) == 2
    assert isinstance(ask(site, request), Update)  # asked again: new noise, and a new charge
    assert steps(site) == 4


def test_training_that_fails_has_spent(hospital, private_job):
    site = hospital()
    runaway = private_job.varied(training={"optimizer": "sgd", "learning_rate": 1e45, "local_steps": 3})
    assert code(ask(site, train(runaway))) == RefusalCode.FAILED
    assert steps(site) == 3
    assert "learning_rate" in log_of(site)


def test_a_ledger_that_cannot_be_trusted_stops_private_training(hospital, private_job, job, nothing_is_trained):
    site = hospital()
    (site.home / "ledger.sqlite").write_bytes(b"")
    assert code(ask(site, train(private_job))) == RefusalCode.LEDGER
    assert code(ask(site, Offer(job=private_job, run="run-1"))) == RefusalCode.LEDGER


@pytest.mark.parametrize(
    ("allowed", "change", "expected"),
    [
        ({"tasks": ("classification",)}, {}, RefusalCode.TASK),
        ({"privacy_required": True}, None, RefusalCode.PRIVACY_REQUIRED),
        ({"max_epsilon_per_job": 1.0}, {}, RefusalCode.EPSILON_LIMIT),
        ({}, {"privacy": {"delta": 0.01}}, RefusalCode.EPSILON_LIMIT),
        ({}, {"privacy": {"secure_aggregation": True}}, RefusalCode.SECURE_AGGREGATION),
        ({"min_sites": 5}, {}, RefusalCode.MIN_SITES),
        ({"min_patients": 1000}, {}, RefusalCode.FEW_PATIENTS),
        ({"rules": {"jobs": ["thorax-*"]}}, {}, RefusalCode.NO_DATASET),
    ],
)
def test_what_the_policy_does_not_allow_is_refused_by_code(
    hospital, job, private_job, allowed, change, expected, nothing_is_trained
):
    site = hospital(**allowed)
    asked = job if change is None else private_job.varied(**change)
    assert code(ask(site, Offer(job=asked, run="run-1"))) == expected
    assert code(ask(site, train(asked))) == expected
    assert code(ask(site, evaluate(asked))) == expected
    assert str(expected) in log_of(site)


@pytest.mark.parametrize("number", [0, 3, 10**6])
def test_a_round_that_the_job_does_not_have_is_malformed(hospital, job, number):
    assert code(ask(hospital(), train(job, number=number))) == RefusalCode.MALFORMED


@pytest.mark.parametrize("run", ["", "../../etc", "two\nlines", "x" * 200])
def test_a_run_without_a_proper_name_is_malformed(hospital, job, run):
    assert code(ask(hospital(), train(job, run=run))) == RefusalCode.MALFORMED


def test_a_model_of_another_network_is_malformed(hospital, job, private_job):
    site = hospital()
    model = model_of(job)
    first, *_ = model
    for wrong in ({**model, "extra": np.zeros(2, np.float32)}, {first: model[first]}):
        assert code(ask(site, train(job, model=wrong))) == RefusalCode.MALFORMED
        assert code(ask(site, train(private_job, model=wrong))) == RefusalCode.MALFORMED
    assert steps(site) == 0


def test_a_network_that_does_not_exist_is_malformed(hospital, job):
    strange = type(job).from_dict({**job.model_dump(exclude_none=True), "network": {"name": "WNet"}})
    assert code(ask(hospital(), Offer(job=strange, run="run-1"))) == RefusalCode.MALFORMED


@pytest.mark.parametrize("message_type", ["train", "evaluate", "query.offer", "query", "train.other", "query.jobs"])
@pytest.mark.parametrize(
    "records",
    [
        RecordDict(),
        RecordDict({"config": ConfigRecord({"protocol": 2, "kind": "TrainRequest", "job": "[[[["})}),
        RecordDict({"config": MetricRecord({"dice": 1.0})}),
    ],
)
def test_anything_else_is_malformed(hospital, message_type, records):
    reply = send(hospital(), records, message_type)
    assert Refusal.unpack(reply).code in (RefusalCode.MALFORMED, RefusalCode.PROTOCOL)


def test_no_text_of_an_exception_leaves_or_reaches_the_log(hospital, job, monkeypatch):
    site = hospital()

    def fail(*args, **kwargs):
        raise OSError("/scans/DOE^JANE/1.dcm: cannot be read")

    monkeypatch.setattr(training.plain, "train", fail)
    records = send(site, train(job).pack(), "train")
    assert dict(records["config"]) == {"protocol": 2, "kind": "Refusal", "code": "failed"}
    assert set(records) == {"config"}
    assert "DOE" not in log_of(site)
    assert re.search(r"OSError at .*client/work\.py:\d+", log_of(site))


def test_the_log_names_no_patient_and_stays_at_the_site(hospital, job, private_job, caplog):
    site, private_job = hospital(), private_job.varied(training={"batch_size": 20})
    with caplog.at_level(logging.DEBUG):
        for request in (Offer(job=job, run="run-1"), train(job), train(private_job), evaluate(job), train(job)):
            ask(site, request)
    assert "patient-" not in log_of(site)
    assert not any(item.patient in log_of(site) for item in Registry(site).items("data"))
    assert log_of(site).count("\n") == 6
    assert "data" not in caplog.text


def test_a_home_without_a_site_answers_with_a_code(hospital, job, tmp_path):
    site = hospital()
    site.home = tmp_path / "nowhere"
    assert code(ask(site, Offer(job=job, run="run-1"))) == RefusalCode.FAILED


def test_a_changed_policy_counts_from_the_next_message(hospital, job):
    site = hospital()
    assert ask(site, Offer(job=job, run="run-1")) == Accepted()
    site.config = site.config.model_copy(
        update={"policy": site.config.policy.model_copy(update={"privacy_required": True})}
    )
    site.write_config()
    assert code(ask(site, train(job))) == RefusalCode.PRIVACY_REQUIRED


def test_data_added_later_counts_from_the_next_message(hospital, job, tmp_path, manifest):
    site = hospital()
    before = ask(site, evaluate(job)).numbers["patients"]
    rows = manifest.read_text().splitlines()
    few = tmp_path / "few"
    few.mkdir()
    header, *rest = rows
    lines = [header] + [row.replace(",", f",{manifest.parent}/", 2) for row in rest[:30]]
    (few / "manifest.csv").write_text("\n".join(lines))
    from client.data import database

    with database.transaction(site.home / "registry.sqlite") as connection:
        connection.execute("DELETE FROM datasets")
    Registry(site).add("data", few / "manifest.csv")
    assert ask(site, evaluate(job, number=2)).numbers["patients"] < before


def test_a_private_job_that_trains_nothing_costs_nothing(hospital, private_job):
    site = hospital()
    job = private_job.varied(training={"local_steps": 0})
    assert ask(site, Offer(job=job, run="run-1")) == Accepted()
    model = model_of(job)
    assert arrays.digest(ask(site, train(job)).model) == arrays.digest(model)
    assert steps(site) == 0


def test_work_knows_nothing_of_flower():
    assert not any(name.startswith("flwr") for name in vars(work))
