"""A coordinator that means harm, over real processes: whatever it asks is refused or harmless, and the record shows it.

It has everything a coordinator has (its own keys, a run's token, the sites' node ids) and writes what it likes into
messages. The site is one as an operator would leave it: privacy required, every job to be approved.
"""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pictures
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from harness import at_will, federation

from client.ledger import Ledger
from client.site import Policy
from shared import arrays, networks, npy
from shared.job import Job
from shared.messages import EvaluateRequest, Offer, TrainRequest

pytestmark = pytest.mark.federation

JOB = pictures.JOB
MODEL = arrays.of_network(networks.build(JOB))


def _prepare(site) -> None:
    pictures.give(site, epsilon=3.0)


@pytest.fixture(scope="module")
def fed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("malicious")
    policy = Policy(threads=1, max_rounds=10, max_parameters=100_000)
    with federation(folder, sites=("north",), policy=policy, approve=(), prepare=_prepare) as running:
        yield running


@pytest.fixture(scope="module")
def site(fed):
    return fed.sites["north"]


@pytest.fixture(scope="module")
def mallory(fed):
    """Sends records to the site under a run of its own, and says what came back."""
    with at_will(fed) as send:

        def ask(records: RecordDict, message_type: str = "train") -> dict:
            reply = send(records, message_type)
            if reply.has_error():
                return {"error": reply.error.code}
            said = {name: dict(record) for name, record in reply.content.items() if name != "model"}
            if "model" in reply.content:
                said["model"] = {name: npy.unpack(array) for name, array in reply.content["model"].items()}
            return said

        yield ask


def code(said: dict) -> str:
    assert set(said) == {"config"}, said
    assert set(said["config"]) == {"protocol", "kind", "code"}
    assert said["config"]["kind"] == "Refusal"
    return said["config"]["code"]


def train(job: Job = JOB, *, run: str = "run-1", number: int = 1, model: dict | None = None) -> RecordDict:
    return TrainRequest(job=job, run=run, round=number, model=model or MODEL).pack()


def command(site, *arguments: str) -> subprocess.CompletedProcess:
    program = str(Path(sys.executable).with_name("insitu-client"))
    return subprocess.run(
        [program, *arguments, "--home", str(site.home)], capture_output=True, text=True, check=False, timeout=120
    )


def recorded(site) -> list[dict]:
    done = command(site, "audit", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def spent(site) -> float:
    return Ledger(site).spent("discs")


def files(site) -> int:
    return sum(1 for _ in site.home.rglob("*"))


def test_a_job_nobody_approved_is_not_trained_and_the_operator_sees_it(mallory, site):
    assert code(mallory(train())) == "pending"
    assert code(mallory(Offer(job=JOB, run="run-1").pack(), "query.offer")) == "pending"
    assert code(mallory(EvaluateRequest(job=JOB, run="run-1", round=1, model=MODEL).pack(), "evaluate")) == "pending"
    (row,) = json.loads(command(site, "jobs", "--json").stdout)
    assert (row["digest"], row["state"]) == (JOB.digest, "pending")
    assert spent(site) == 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"privacy": {"epsilon": 9.9}}, "pending"),  # as the policy allows it, but nobody said yes to this one
        ({"privacy": {"epsilon": 50.0}}, "epsilon_limit"),
        ({"privacy": {"delta": 0.5}}, "epsilon_limit"),
        ({"federation": {"rounds": 11}}, "rounds"),
        ({"federation": {"min_sites": 1}}, "min_sites"),
        ({"network": {"name": "UNet", "channels": [64, 128, 256], "strides": [2, 2]}}, "parameters"),
        (None, "privacy_required"),
    ],
)
def test_a_job_approved_and_then_altered_is_another_job(mallory, site, change, expected):
    assert command(site, "approve", JOB.digest[:12], "--reason", "test").returncode == 0
    altered = JOB.without_privacy() if change is None else JOB.varied(**change)
    assert code(mallory(train(altered, model=arrays.of_network(networks.build(altered))))) == expected
    assert spent(site) == 0


def test_a_digest_of_an_approved_job_over_another_job_is_malformed(mallory, site):
    records = train(JOB.without_privacy())
    records["config"]["digest"] = JOB.digest
    assert code(mallory(records)) == "malformed"
    records = train()
    weaker = json.loads(records["config"]["job"])
    weaker["privacy"]["clipping_norm"] = 1e9
    records["config"]["job"] = json.dumps(weaker)
    assert code(mallory(records)) == "malformed"
    assert spent(site) == 0


def _with(records: RecordDict, **config) -> RecordDict:
    for name, value in config.items():
        records["config"][name] = value
    return records


def _model(**changes) -> RecordDict:
    records = train()
    model = dict(records["model"])
    for name, array in changes.items():
        model[name.replace("__", ".")] = array
    records["model"] = ArrayRecord(model)
    return records


def _first() -> str:
    return next(iter(MODEL)).replace(".", "__")


def _declared(shape: tuple[int, ...]) -> Array:
    """An array that says it is larger than it is."""
    honest = npy.pack(np.zeros(4, np.float32))
    data = honest.data.replace(b"(4,)", str(shape).encode())
    return Array(dtype="float32", shape=shape, stype=honest.stype, data=data)


def _without_model() -> RecordDict:
    records = train()
    return RecordDict({"config": records["config"]})


MALFORMED = {
    "another field": lambda: _with(train(), privacy="off"),
    "another site's name": lambda: _with(train(), site="south"),
    "a home": lambda: _with(train(), home="/"),
    "no round": lambda: _with(train(), round=0),
    "a round after the last": lambda: _with(train(), round=4),
    "a round that is a text": lambda: _with(train(), round="1"),
    "a run that is a path": lambda: _with(train(), run="../../../etc/passwd"),
    "a job that is no job": lambda: _with(train(), job="{}"),
    "a job nested a thousand times": lambda: _with(train(), job="[" * 5000),
    "another kind": lambda: _with(train(), kind="EvaluateRequest"),
    "more records": lambda: RecordDict({**train(), "orders": ConfigRecord({"run": "rm"})}),
    "numbers": lambda: RecordDict({**train(), "numbers": MetricRecord({"dice": 1.0})}),
    "no model": _without_model,
    "nothing": RecordDict,
    "not a number": lambda: _model(**{_first(): npy.pack(np.full_like(MODEL[next(iter(MODEL))], math.nan))}),
    "infinity": lambda: _model(**{_first(): npy.pack(np.full_like(MODEL[next(iter(MODEL))], math.inf))}),
    "integers": lambda: _model(**{_first(): npy.pack(np.zeros(MODEL[next(iter(MODEL))].shape, np.int64))}),
    "another shape": lambda: _model(**{_first(): npy.pack(np.zeros((3, 3), np.float32))}),
    "doubles": lambda: _model(**{_first(): npy.pack(MODEL[next(iter(MODEL))].astype(np.float64))}),
    "a tensor that is no parameter": lambda: _model(running_mean=npy.pack(np.zeros(4, np.float32))),
    "the state of an optimiser": lambda: _model(optimizer__exp_avg=npy.pack(np.zeros(4, np.float32))),
    "an array of objects": lambda: _model(
        **{_first(): Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=b"\x93NUMPY\x01\x00v\x00")}
    ),
    "a huge array": lambda: _model(**{_first(): _declared((10**6, 10**6))}),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_message_that_is_not_exactly_one_of_ours_is_malformed_and_does_nothing(mallory, site, what):
    before = files(site)
    assert code(mallory(MALFORMED[what]())) == "malformed"
    assert spent(site) == 0
    assert files(site) <= before + 1


def test_another_protocol_is_refused_as_such(mallory):
    assert code(mallory(_with(train(), protocol=1))) == "protocol"


@pytest.mark.parametrize("message_type", ["train.other", "query", "query.registry", "evaluate.patients", "system"])
def test_a_message_of_another_type_gets_a_code(mallory, message_type):
    said = mallory(train(), message_type)
    assert said in ({"error": 2}, {"error": 1}) or code(said) in ("malformed", "failed")


def test_an_approved_run_trains_and_a_replayed_round_is_answered_from_the_store(mallory, site):
    first = mallory(train())  # approved above
    assert set(first) == {"config", "numbers", "model"}
    assert first["numbers"] == {}
    after = spent(site)
    assert 0 < after < 2
    again = mallory(train())
    assert all((again["model"][name] == first["model"][name]).all() for name in MODEL)
    assert spent(site) == after


def test_rounds_in_another_order_and_other_models_cost_what_they_cost_and_stay_within_the_budget(mallory, site):
    """Each answer has noise of its own and is charged; none is free because its number was used before."""
    before = spent(site)
    assert set(mallory(train(number=3))) == {"config", "numbers", "model"}
    between = spent(site)
    assert between > before
    other = {name: array + np.float32(0.5) for name, array in MODEL.items()}
    assert set(mallory(train(number=1, model=other))) == {"config", "numbers", "model"}
    assert spent(site) > between
    codes = []
    for number in range(200):
        said = mallory(train(number=2, model={name: array * np.float32(1 + number) for name, array in MODEL.items()}))
        if "model" not in said:
            codes.append(code(said))
            break
    assert codes == ["over_budget"]
    assert spent(site) <= 3.0


def test_a_second_run_of_an_approved_job_needs_another_yes(mallory):
    assert code(mallory(train(run="run-2"))) == "pending"


def test_a_budget_cannot_be_spread_over_many_small_jobs(mallory, site):
    """However little each further job asks for, and though the operator says yes to every one of them."""
    for seed in range(1, 40):
        job = JOB.varied(privacy={"epsilon": 0.5}, training={"seed": seed}, federation={"rounds": 1})
        said = code(mallory(Offer(job=job, run="run-1").pack(), "query.offer"))
        if said == "over_budget":
            break
        assert said == "pending"
        assert command(site, "approve", job.digest[:12]).returncode == 0
        assert "model" in mallory(train(job, model=arrays.of_network(networks.build(job))))
        assert spent(site) <= 3.0
    assert said == "over_budget"
    assert 2.5 < spent(site) <= 3.0


def test_a_flood_grows_neither_log_nor_record_nor_inbox(mallory, site):
    def sizes() -> int:
        names = ("record.jsonl", "jobs.sqlite", "log/site.log", "record.counts")
        return sum((site.home / name).stat().st_size for name in names if (site.home / name).exists())

    for number in range(30):
        mallory(_with(train(), job=f"{{{number}"))
    before = sizes()
    for number in range(100):
        mallory(_with(train(), job=f"{{{number}"))
    assert sizes() < before + 20_000


def test_the_record_shows_all_of_it_and_is_in_order(site):
    entries = recorded(site)
    refused = {entry["code"] for entry in entries if entry["kind"] == "refused"}
    assert {"pending", "epsilon_limit", "rounds", "min_sites", "parameters", "privacy_required"} <= refused
    assert {"malformed", "protocol", "over_budget"} <= refused
    released = [entry for entry in entries if entry["kind"] == "released"]
    assert sum(entry["again"] for entry in released) == 1
    assert all(entry["private"] and entry["charges"] for entry in released if not entry["again"])
    assert {entry["what"] for entry in entries if entry["kind"] == "decided"} == {"approved", "admitted"}
    verified = command(site, "audit", "verify", "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_nothing_came_of_it_but_codes_models_and_listed_numbers(fed):
    """The messages above were all answered, by one process that never ended."""
    assert fed.status("north")["connected"]
    assert fed.status("north")["executor"]["restarts"] == 0
