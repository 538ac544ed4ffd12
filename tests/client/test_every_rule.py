"""Every rule of site.toml is crossed here by a real message to a real site; a rule without a test is a failure."""

import datetime as dt
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from asking import ask, code, log_of, train

from client import device
from client.ledger import Ledger
from client.site import Approval, DatasetRules, Policy, Site
from shared import arrays, networks
from shared.errors import RefusalCode
from shared.messages import Accepted, Offer, Update

# Each rule → what it is set to, what the job is changed to, and the code that the site answers with.
CROSSED = {
    "tasks": (("classification",), {}, RefusalCode.TASK),
    "networks": (("SegResNet", "Basic*"), {}, RefusalCode.NETWORK),
    "max_parameters": (100, {}, RefusalCode.PARAMETERS),
    "max_rounds": (1, {}, RefusalCode.ROUNDS),
    "privacy_required": (True, None, RefusalCode.PRIVACY_REQUIRED),
    "max_epsilon_per_job": (7.9, {}, RefusalCode.EPSILON_LIMIT),
    "secure_aggregation_required": (True, {}, RefusalCode.SECURE_AGGREGATION),
    "min_sites": (2, {"federation": {"min_sites": 1}}, RefusalCode.MIN_SITES),
    "min_patients": (1000, {}, RefusalCode.FEW_PATIENTS),
}
# Rules that bound what is done rather than refuse a job; each has its own test below.
BOUNDS = {"max_repeats", "hours", "max_minutes", "max_memory", "max_update_norm", "decimals", "threads", "gpu_share"}
RULES_OF_DATASETS = {
    "jobs": (("thorax-*",), {}, RefusalCode.NO_DATASET),
    "epsilon": (1.0, {}, RefusalCode.OVER_BUDGET),
    "delta": (1e-6, {}, RefusalCode.EPSILON_LIMIT),
}
RULES_OF_APPROVALS = {
    "jobs": ("thorax-*",),
    "tasks": ("classification",),
    "max_epsilon": 7.9,
    "max_rounds": 1,
}


def test_there_is_a_test_for_every_rule():
    assert CROSSED.keys() | BOUNDS == Policy.model_fields.keys()
    assert RULES_OF_DATASETS.keys() == DatasetRules.model_fields.keys()
    assert RULES_OF_APPROVALS.keys() == Approval.model_fields.keys()


def _changed(job, private_job, change):
    return job if change is None else private_job.varied(**change)


@pytest.mark.parametrize("rule", CROSSED)
def test_a_job_that_crosses_a_rule_of_the_policy_is_refused_by_its_code(
    hospital,
    job,
    private_job,
    rule,
    nothing_is_trained,
):
    value, change, expected = CROSSED[rule]
    asked = _changed(job, private_job, change)
    allowed = hospital("allowed")
    assert ask(allowed, Offer(job=asked, run="run-1")) == Accepted(), log_of(allowed)
    site = hospital(**{rule: value})
    for request in (Offer(job=asked, run="run-1"), train(asked)):
        assert code(ask(site, request)) is expected
    assert f"({expected})" in log_of(site)


@pytest.mark.parametrize("rule", RULES_OF_DATASETS)
def test_a_job_that_crosses_a_rule_of_a_dataset_is_refused_by_its_code(
    hospital,
    private_job,
    rule,
    nothing_is_trained,
):
    value, change, expected = RULES_OF_DATASETS[rule]
    site = hospital(rules={"delta": 1e-4, rule: value})
    for request in (Offer(job=private_job.varied(**change), run="run-1"), train(private_job)):
        assert code(ask(site, request)) is expected


@pytest.mark.parametrize("rule", RULES_OF_APPROVALS)
def test_a_job_that_crosses_any_part_of_a_rule_of_approval_waits_for_the_operator(
    hospital,
    private_job,
    rule,
    nothing_is_trained,
):
    site = hospital(ask=True)
    approve(site, Approval(**{rule: RULES_OF_APPROVALS[rule]}))
    assert code(ask(site, Offer(job=private_job, run="run-1"))) is RefusalCode.PENDING
    approve(site, Approval())
    assert ask(site, Offer(job=private_job, run="run-1")) == Accepted()


def approve(site: Site, *rules: Approval) -> None:
    site.config = site.config.model_copy(update={"approve": rules})
    site.write_config()


@pytest.mark.parametrize("repeats", [0, 2])
def test_a_run_is_charged_what_its_job_declares_and_a_few_rounds_again(hospital, private_job, repeats):
    """However often the same round is asked for with another model: the yes was to the job's ε, not to the budget."""
    site = hospital(max_repeats=repeats, rules={"epsilon": 1e6, "delta": 1e-4})
    answers = []
    for number in range(private_job.federation.rounds + repeats + 3):
        model = {
            name: array + np.float32(number) for name, array in arrays.of_network(networks.build(private_job)).items()
        }
        answers.append(ask(site, train(private_job, model=model)))
    allowed = private_job.federation.rounds + repeats
    assert all(isinstance(answer, Update) for answer in answers[:allowed])
    assert {code(answer) for answer in answers[allowed:]} == {RefusalCode.OVER_BUDGET}
    assert "none that was approved" in log_of(site)


def test_outside_the_hours_a_job_is_accepted_and_nothing_is_worked_on(
    hospital,
    job,
    nothing_is_trained,
):
    now = dt.datetime.now()
    hours = f"{now + dt.timedelta(hours=2):%H:%M}-{now + dt.timedelta(hours=3):%H:%M}"
    site = hospital(hours=(hours,))
    assert ask(site, Offer(job=job, run="run-1")) == Accepted()
    assert code(ask(site, train(job))) is RefusalCode.HOURS


@pytest.mark.parametrize("private", [False, True])
def test_work_that_takes_longer_than_the_policy_allows_is_given_up(hospital, job, private_job, private):
    asked = (private_job if private else job).varied(training={"local_steps": 3000})
    site = hospital(max_minutes=0.02, rules={"epsilon": 1e6, "delta": 1e-2})
    begun = dt.datetime.now()
    assert code(ask(site, train(asked))) is RefusalCode.TIME
    assert (dt.datetime.now() - begun).total_seconds() < 60
    assert not list((site.home / "replies").rglob("*.*"))
    if private:  # what was begun is spent
        assert sum(steps for *_, steps in Ledger(site).history("data")) == 3000


_ASK_FOR_MUCH = """
import sys
from pathlib import Path
from client import work
from shared import arrays, networks
from shared.job import Job
from shared.messages import TrainRequest
job = Job.load(Path(sys.argv[2]))
request = TrainRequest(job=job, run="run-1", round=1, model=arrays.of_network(networks.build(job)))
print(work.answer(Path(sys.argv[1]), TrainRequest, request.pack()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts what it says on Linux")
def test_a_job_that_needs_more_memory_than_the_policy_allows_is_refused_and_the_process_lives(hospital, job, tmp_path):
    large = {"name": "UNet", "channels": [32, 32], "strides": [1]}
    job = type(job).from_dict({**job.model_dump(exclude_none=True), "network": large})
    once = {"training": {"batch_size": 4, "local_steps": 1}, "federation": {"evaluate_every": 0}}
    (tmp_path / "job.toml").write_text(job.varied(images={"size": [512, 512]}, **once).to_toml())

    def answer(name: str, **policy) -> str:
        command = [sys.executable, "-c", _ASK_FOR_MUCH, str(hospital(name, **policy).home), str(tmp_path / "job.toml")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        return done.stdout + done.stderr[-2000:]

    assert "Update(" in answer("large")
    assert "Refusal(code=<RefusalCode.MEMORY" in answer("small", max_memory=0.6)


def test_a_model_that_training_changed_too_much_does_not_leave(hospital, job):
    site = hospital(max_update_norm=1e-6)
    assert code(ask(site, train(job))) is RefusalCode.EGRESS
    assert "1e-06" in log_of(site)
    assert isinstance(ask(hospital("other"), train(job)), Update)


def test_figures_leave_with_so_many_decimals(hospital, job):
    numbers = ask(hospital(decimals=1), train(job)).numbers
    assert numbers["dice"] == round(numbers["dice"], 1)
    assert ask(hospital("other", decimals=6), train(job)).numbers["dice"] != numbers["dice"]


def test_training_uses_so_many_threads(hospital, job, monkeypatch):
    used = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    before = torch.get_num_threads()
    ask(hospital(threads=before + 1), Offer(job=job, run="run-1"))
    assert used == [before + 1]


def test_training_uses_so_much_of_a_gpu(hospital, job, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: asked.append(given))
    device.bound(Policy(gpu_share=0.25), torch.device("cuda:1"))
    assert asked == [(0.25, torch.device("cuda:1"))]
