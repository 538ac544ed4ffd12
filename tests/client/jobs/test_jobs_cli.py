"""The operator's word, as it is said on the command line, and what a coordinator is told of it."""

import json
import threading
import time

import pytest
from asking import ask, code, evaluate, log_of, train
from typer.testing import CliRunner

from client.cli import app
from client.ledger import Ledger
from client.training import drawing
from shared import accounting
from shared.errors import BadInput, RefusalCode
from shared.messages import Accepted, Figures, Offer, Update


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(site, *arguments, expect=0):
        done = CliRunner().invoke(app, [*arguments, "--home", str(site.home)], catch_exceptions=True)
        if expect == 0:
            assert done.exit_code == 0, done.output + repr(done.exception)
        else:
            assert getattr(done.exception, "exit_code", done.exit_code) == expect
        return done.stdout

    return invoke


def offer(job, run="run-1") -> Offer:
    return Offer(job=job, run=run)


def test_a_job_is_listed_shown_approved_and_trained(hospital, private_job, run, nothing_is_trained, monkeypatch):
    site = hospital(ask=True)
    assert json.loads(run(site, "jobs", "--json")) == []
    assert code(ask(site, offer(private_job))) is RefusalCode.PENDING
    assert code(ask(site, train(private_job))) is RefusalCode.PENDING
    (row,) = json.loads(run(site, "jobs", "--json"))
    assert (row["job"], row["digest"], row["state"], row["privacy"]) == ("lesions", private_job.digest, "pending", 8.0)
    assert private_job.digest[:12] in run(site, "jobs")
    run(site, "approve", "lesions", "--reason", "ethics board, 3 March")
    assert ask(site, offer(private_job)) == Accepted()
    (row,) = json.loads(run(site, "jobs", "--json"))
    assert (row["state"], row["by"], row["reason"], row["runs"]) == (
        "approved",
        "operator",
        "ethics board, 3 March",
        1,
    )
    monkeypatch.undo()
    assert isinstance(ask(site, train(private_job)), Update)
    assert code(ask(site, offer(private_job, "run-2"))) is RefusalCode.PENDING


def test_what_is_shown_is_what_happens(hospital, private_job, run):
    site = hospital(ask=True, rules={"epsilon": 9.0, "delta": 1e-4})
    ask(site, offer(private_job))
    facts = json.loads(run(site, "show", "lesions", "--json"))
    assert (facts["state"], facts["dataset"], facts["refusal"]) == ("pending", "data", None)
    assert sum(facts["patients"].values()) == 60
    said = " ".join(run(site, "show", "lesions").split())
    for part in (
        "lesions",
        "waits for your word",
        "UNet for segmentation into background, lesion",
        f"{facts['patients']['train']} patients train",
        "ε = 8 at δ = 0.0001 for each patient over the whole job",
        f"brings it to {facts['privacy']['dataset_after']:.3f}",
        "2 times in a run; no image, no name, no text",
    ):
        assert part in said
    run(site, "approve", "lesions")
    update = ask(site, train(private_job))
    left = sum(array.nbytes for array in update.model.values())
    assert left == facts["leaves"]["bytes_a_round"]
    ask(site, train(private_job, number=2, model=update.model))
    assert isinstance(ask(site, evaluate(private_job, number=2, model=update.model)), Figures)
    spent = accounting.epsilon(Ledger(site).history("data"), delta=1e-4)
    assert spent == pytest.approx(facts["privacy"]["dataset_after"])
    assert facts["leaves"]["models"] == private_job.federation.rounds
    assert facts["leaves"]["figures_of_test_patients"] == 1


def test_a_job_without_privacy_is_shown_as_what_it_is(hospital, job, run):
    site = hospital(ask=True)
    ask(site, offer(job))
    assert "Privacy: none. What leaves may be traced back to single patients." in run(site, "show", "lesions")


def test_what_the_policy_refuses_is_shown_with_its_reason_and_a_yes_does_not_widen_it(hospital, job, run):
    site = hospital(ask=True, privacy_required=True)
    assert code(ask(site, offer(job))) is RefusalCode.PRIVACY_REQUIRED
    (row,) = json.loads(run(site, "jobs", "--json"))
    assert (row["state"], row["answer"]) == ("refused", "privacy_required")
    said = " ".join(run(site, "show", "lesions").split())
    assert "It is refused here (privacy_required): job lesions has no privacy, which the policy requires" in said
    run(site, "approve", "lesions")
    assert code(ask(site, offer(job))) is RefusalCode.PRIVACY_REQUIRED


def test_a_job_that_does_not_fit_the_budget_is_shown_so(hospital, private_job, run):
    site = hospital(ask=True, rules={"epsilon": 1.0, "delta": 1e-4})
    assert code(ask(site, offer(private_job))) is RefusalCode.OVER_BUDGET
    facts = json.loads(run(site, "show", "lesions", "--json"))
    assert facts["refusal"]["code"] == "over_budget"
    assert facts["privacy"]["dataset_after"] > facts["privacy"]["dataset_budget"] == 1.0


@pytest.mark.parametrize("private_one", [False, True])
def test_a_no_takes_effect_within_the_round(hospital, job, private_job, run, monkeypatch, private_one):
    asked = (private_job if private_one else job).varied(
        training={"local_steps": 100_000}, federation={"evaluate_every": 0, "rounds": 1}
    )
    site = hospital(rules={"epsilon": 1e9, "delta": 1e-2})
    begun, load = threading.Event(), drawing.load

    def say(*arguments, **options):
        begun.set()
        return load(*arguments, **options)

    monkeypatch.setattr(drawing, "load", say)
    monkeypatch.setattr(accounting, "noise_for", lambda job: 1.0)  # that of so many steps takes its time
    answers = []
    working = threading.Thread(target=lambda: answers.append(ask(site, train(asked))))
    working.start()
    assert begun.wait(30)
    run(site, "revoke", "lesions", "--reason", "complaint")
    at = time.monotonic()
    working.join(30)
    assert not working.is_alive()
    assert time.monotonic() - at < 20
    assert code(answers[0]) is RefusalCode.REVOKED
    assert code(ask(site, train(asked))) is RefusalCode.REVOKED
    assert "complaint" in log_of(site)
    (row,) = json.loads(run(site, "jobs", "--json"))
    assert (row["state"], row["by"], row["reason"]) == ("revoked", "operator", "complaint")


def test_what_was_decided_is_in_the_record(hospital, job, run):
    site = hospital(ask=True)
    ask(site, offer(job))
    run(site, "approve", "lesions", "--reason", "ethics board")
    ask(site, offer(job))
    run(site, "revoke", "lesions", "--reason", "complaint")
    bodies = [json.loads(line)["body"] for line in (site.home / "record.jsonl").read_text().splitlines()]
    decided = [(one["what"], one["by"], one["reason"]) for one in bodies if one["kind"] == "decided"]
    assert decided == [
        ("approved", "operator", "ethics board"),
        ("admitted", "operator", "run run-1"),
        ("revoked", "operator", "complaint"),
    ]


def test_a_job_is_explained_and_approved_by_its_file_before_it_is_offered(hospital, private_job, run, tmp_path):
    site, file = hospital(ask=True), tmp_path / "job.toml"
    file.write_text(private_job.to_toml())
    assert "UNet for segmentation" in run(site, "show", str(file))
    assert json.loads(run(site, "jobs", "--json")) == []
    run(site, "approve", str(file), "--reason", "it came by mail")
    assert ask(site, offer(private_job)) == Accepted()
    assert code(ask(site, offer(private_job.varied(training={"seed": 9})))) is RefusalCode.PENDING
    run(site, "revoke", str(file))
    assert code(ask(site, offer(private_job))) is RefusalCode.REVOKED
    run(site, "approve", str(tmp_path / "other.toml"), expect=2)


def test_a_job_that_was_not_offered_is_a_clear_mistake(hospital, run):
    site = hospital(ask=True)
    for command in ("show", "approve", "revoke"):
        run(site, command, "lesions", expect=2)


def test_a_name_that_would_act_on_a_terminal_is_no_job(job):
    data = job.model_dump(mode="json", exclude_none=True)
    with pytest.raises(BadInput, match="classes"):
        type(job).from_dict({**data, "classes": ["background", "lesion\x1b[2J"]})
