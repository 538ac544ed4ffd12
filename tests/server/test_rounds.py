"""The round loop over real Flower messages, with sites that answer in known ways."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from server import algorithms, asking, membership
from server.algorithms.fedavg import FedAvg
from server.rounds import Federation, RunFailed
from shared.errors import RefusalCode
from shared.messages import Accepted, Figures, Offer, Refusal, TrainRequest, Update
from simulations.grid import InProcessGrid

START = {"w": np.zeros(3, np.float32)}


class Watcher:
    def __init__(self):
        self.rows, self.models, self.figures, self.standings = [], [], None, []
        self.said, self.states = [], []

    def began(self, model):
        self.models.append(model)

    def standings_changed(self, standings):
        self.standings.append(dict(standings))

    def waits(self, what):
        self.said.append(what)

    def round_ended(self, row, model, state):
        self.rows.append(row)
        self.states.append(state)
        self.models.append(model)

    def ended(self, model, figures):
        self.figures = figures


@dataclass
class Declines:
    """Declines a run, so many times, and then takes part as `then` says."""

    code: RefusalCode
    times: float = math.inf
    then: object = 0

    def asked(self) -> bool:
        self.times -= 1
        return self.times >= 0


def sites_that(**answers):
    """A ClientApp whose site NAME moves the model by a number, or answers with a code, an error or another reply."""
    app = ClientApp()
    names = sorted(answers)

    def name_of(context: Context) -> str:
        return names[context.node_id - 2]

    @app.query("offer")
    def offer(message, context):
        answer = answers[name_of(context)]
        declines = isinstance(answer, Declines) and answer.asked()
        return Message((Refusal(code=answer.code) if declines else Accepted()).pack(), reply_to=message)

    @app.train()
    def train(message, context):
        answer = answers[name_of(context)]
        answer = answer.then if isinstance(answer, Declines) else answer
        if isinstance(answer, Stumbles):
            answer.times -= 1
            answer = answer.trouble if answer.times >= 0 else answer.then
        if isinstance(answer, Error):
            return Message(answer, reply_to=message)
        request = TrainRequest.unpack(message.content)
        if isinstance(answer, RefusalCode):
            return Message(Refusal(code=answer).pack(), reply_to=message)
        model = answer(request) if callable(answer) else {"w": request.model["w"] + np.float32(answer)}
        return Message(Update(round=request.round, model=model, numbers={"dice": 0.5}).pack(), reply_to=message)

    @app.evaluate()
    def evaluate(message, context):
        return Message(Figures(numbers={"dice": 0.9}).pack(), reply_to=message)

    nodes = dict(enumerate(names, start=2))
    return InProcessGrid(app, {node: f"/nowhere/{name}" for node, name in nodes.items()}), nodes


def federate(job, **answers):
    grid, sites = sites_that(**answers)
    watcher = Watcher()
    federation = Federation(
        grid=grid, job=job, run="run", sites=sites, algorithm=algorithms.of(job), observers=(watcher,)
    )
    return federation, watcher


def test_every_round_is_the_mean_of_the_sites_models(job):
    federation, watcher = federate(job, a=1, b=3)
    model = federation.train(START)
    assert model["w"].tolist() == [4.0, 4.0, 4.0]
    assert [row.contributed for row in watcher.rows] == [("a", "b")] * 2
    assert watcher.rows[0].numbers == {"a": {"dice": 0.5}, "b": {"dice": 0.5}}
    assert watcher.figures == {"a": {"dice": 0.9}, "b": {"dice": 0.9}}


def test_a_site_that_refuses_is_named_with_its_code_and_the_round_goes_on(job):
    federation, watcher = federate(job, a=1, b=RefusalCode.OVER_BUDGET)
    assert federation.train(START)["w"].tolist() == [2.0, 2.0, 2.0]
    assert watcher.rows[0].missing == {"b": "over_budget"}
    assert watcher.rows[0].contributed == ("a",)


def test_a_site_that_declines_the_job_is_never_asked_to_train(job):
    federation, watcher = federate(job, a=1, b=Declines(RefusalCode.TASK))
    federation.train(START)
    assert all(row.contributed == ("a",) and not row.missing for row in watcher.rows)
    assert watcher.standings == [{"a": "accepted", "b": "task"}]


@pytest.fixture
def at_once(monkeypatch):
    """Who waits for an operator is asked again without a pause."""
    monkeypatch.setattr(membership, "_FIRST_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(membership, "_LONGEST_WAIT_SECONDS", 0.0)


def test_a_run_waits_for_an_operator_whose_yes_it_needs(job, at_once):
    late = Declines(RefusalCode.PENDING, times=3, then=3)
    federation, watcher = federate(job.varied(federation={"min_sites": 2}), a=1, b=late)
    federation.train(START)
    assert all(row.contributed == ("a", "b") for row in watcher.rows)
    assert watcher.standings == [{"a": "accepted", "b": "pending"}, {"a": "accepted", "b": "accepted"}]


def test_a_site_whose_operator_says_yes_during_the_run_takes_part_from_the_next_round_on(job, at_once):
    late = Declines(RefusalCode.PENDING, times=2, then=3)
    federation, watcher = federate(job, a=1, b=late)
    federation.train(START)
    assert [row.contributed for row in watcher.rows] == [("a",), ("a", "b")]
    assert watcher.figures == {"a": {"dice": 0.9}, "b": {"dice": 0.9}}


def test_a_run_does_not_wait_longer_than_its_quorum_deadline(job, at_once):
    impatient = job.varied(federation={"min_sites": 2, "quorum_deadline": "0.5s"})
    federation, watcher = federate(impatient, a=1, b=Declines(RefusalCode.PENDING))
    with pytest.raises(RunFailed, match=r"1 of 2 sites take part, 2 needed \(b: pending\)"):
        federation.train(START)
    assert watcher.rows == []


def test_who_has_to_wait_long_is_asked_more_and_more_rarely(job, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(membership.time, "monotonic", lambda: clock[0])
    answer = Declines(RefusalCode.PENDING)
    grid, sites = sites_that(a=answer)
    asking = membership.Membership(grid=grid, offer=Offer(job=job, run="run"), sites=sites)
    asked = []
    for second in range(3600):
        clock[0], answer.times = float(second), 10**6
        asking.look()
        asked += [second] * (answer.times < 10**6)
    assert asked[:3] == [0, 1, 2]
    assert len(asked) < 200
    assert max(np.diff(asked)) <= 31


@pytest.mark.parametrize(
    "wrong",
    [
        lambda request: {"w": np.zeros(4, np.float32)},
        lambda request: {"w": np.zeros(3, np.float64)},
        lambda request: {"v": np.zeros(3, np.float32)},
        lambda request: {"w": np.array([0, 1, np.nan], np.float32)},
    ],
)
def test_an_update_of_another_structure_or_not_finite_does_not_count(job, wrong):
    federation, watcher = federate(job, a=1, b=wrong)
    assert federation.train(START)["w"].tolist() == [2.0, 2.0, 2.0]
    assert watcher.rows[0].missing == {"b": "rejected"}


def test_a_site_flower_cannot_reach_is_unavailable(job):
    federation, watcher = federate(job, a=1, b=Error(code=3, reason="gone"))
    federation.train(START)
    assert watcher.rows[0].missing == {"b": "unavailable"}


def test_a_round_below_its_quorum_fails_and_says_why(job):
    federation, watcher = federate(job.varied(federation={"min_sites": 2}), a=1, b=RefusalCode.OVER_BUDGET)
    with pytest.raises(RunFailed, match=r"round 1: 1 of 2 sites contributed, 2 needed \(b: over_budget\)"):
        federation.train(START)
    assert watcher.rows == []


def test_a_run_that_too_many_sites_decline_fails_before_training(job):
    federation, watcher = federate(
        job.varied(federation={"min_sites": 2}), a=1, b=Declines(RefusalCode.PRIVACY_REQUIRED)
    )
    with pytest.raises(RunFailed, match="b: privacy_required"):
        federation.train(START)
    assert watcher.rows == []


@pytest.mark.parametrize("asked", [True, False])
def test_figures_of_the_final_model_are_asked_for_where_the_job_says_so(private_job, asked):
    federation, watcher = federate(private_job.varied(federation={"evaluate_at_end": asked}), a=1)
    federation.train(START)
    assert watcher.figures == ({"a": {"dice": 0.9}} if asked else {})


def test_fedavg_weights_by_size_and_ignores_the_order_of_arrival():
    model = {"w": np.zeros(2, np.float32)}
    rng = np.random.default_rng(0)
    updates = [({"w": rng.normal(size=2).astype(np.float32)}, float(weight)) for weight in (1, 2, 5)]
    results = []
    for order in (updates, updates[::-1]):
        sums = FedAvg().begin(model)
        for update, weight in order:
            sums.add(update, weight=weight)
        results.append(sums.step()["w"])
    expected = sum(update["w"] * weight for update, weight in updates) / 8
    assert np.array_equal(*results)
    assert np.allclose(results[0], expected, atol=1e-6)


@pytest.fixture
def impatient(monkeypatch):
    """Who had trouble is asked again at once."""
    monkeypatch.setattr(asking, "_FIRST_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(asking, "_LONGEST_WAIT_SECONDS", 0.0)


@dataclass
class Stumbles:
    """Has trouble, so many times, and then trains."""

    trouble: object
    times: int
    then: float = 0.0


@pytest.mark.parametrize(
    "trouble", [Error(code=3, reason="gone"), RefusalCode.FAILED, RefusalCode.HOURS, RefusalCode.RECORD]
)
def test_a_round_below_its_quorum_waits_for_a_site_whose_trouble_passes_and_says_so(job, impatient, trouble):
    both = job.varied(federation={"min_sites": 2})
    federation, watcher = federate(both, a=1, b=Stumbles(trouble, times=3, then=3))
    assert federation.train(START)["w"].tolist() == [4.0] * 3
    assert [row.contributed for row in watcher.rows] == [("a", "b")] * 2
    assert not watcher.rows[0].missing
    assert any("waiting for more" in said and "(b: " in said for said in watcher.said)


@pytest.mark.parametrize("trouble", [RefusalCode.OVER_BUDGET, RefusalCode.REVOKED, RefusalCode.EGRESS])
def test_a_site_whose_trouble_does_not_pass_is_not_asked_again(job, impatient, trouble):
    asked = Stumbles(trouble, times=100)
    federation, _ = federate(job.varied(federation={"min_sites": 2}), a=1, b=asked)
    with pytest.raises(RunFailed, match=f"b: {trouble}"):
        federation.train(START)
    assert asked.times == 99


def test_a_run_below_its_quorum_does_not_wait_for_ever(job, impatient):
    both = job.varied(federation={"min_sites": 2, "quorum_deadline": "0.5s"})
    federation, watcher = federate(both, a=1, b=RefusalCode.HOURS)
    with pytest.raises(RunFailed, match=r"round 1: 1 of 2 sites contributed, 2 needed \(b: hours\)"):
        federation.train(START)
    assert watcher.rows == []


def test_a_site_that_fails_again_and_again_is_not_asked_for_ever_since_each_try_may_cost_it(job, impatient):
    asked = Stumbles(RefusalCode.FAILED, times=100)
    federation, _ = federate(job.varied(federation={"min_sites": 2}), a=1, b=asked)
    with pytest.raises(RunFailed, match="b: failed"):
        federation.train(START)
    assert asked.times == 96  # once, and three times more


def test_a_round_with_its_quorum_does_not_wait_for_who_has_trouble(job):
    federation, watcher = federate(job, a=1, b=RefusalCode.FAILED)
    federation.train(START)
    assert [row.missing for row in watcher.rows] == [{"b": "failed"}] * 2


@pytest.mark.parametrize("algorithm", [{}, {"algorithm": "fedavgm", "momentum": 0.5}])
def test_a_run_that_goes_on_after_any_round_comes_to_the_same_model(job, algorithm, tmp_path):
    longer = job.varied(federation={"rounds": 5, **algorithm})
    undisturbed, watcher = federate(longer, a=1, b=lambda request: {"w": request.model["w"] * np.float32(0.3)})
    final = undisturbed.train(START)
    for done in range(6):
        federation, others = federate(longer, a=1, b=lambda request: {"w": request.model["w"] * np.float32(0.3)})
        if done:
            federation.algorithm.restore(watcher.states[done - 1])
        assert federation.train(watcher.models[done], done=done)["w"].tolist() == final["w"].tolist()
        assert [row.round for row in others.rows] == list(range(done + 1, 6))
        assert others.figures == watcher.figures
