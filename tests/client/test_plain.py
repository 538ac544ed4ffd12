"""Training without privacy: repeatable to the bit, everybody in turn."""

import numpy as np
import pytest
import torch

from client import training
from client.training import drawing, plain
from shared import arrays, networks
from shared.errors import RefusalCode, Refused

CPU = torch.device("cpu")


def trained(cohort, job, *, round=1, site_name="north") -> str:
    network = networks.build(job)
    training.train(network, cohort, job, round=round, site_name=site_name, device=CPU)
    return arrays.digest(arrays.of_network(network))


def test_the_same_round_at_the_same_site_gives_the_same_bits(pictures, job):
    job = job.varied(training={"local_steps": 6, "augmentation": "light", "images_per_patient": 2})
    cohort = pictures([1, 3, 2, 1, 4, 1])
    first = trained(cohort, job)
    torch.manual_seed(99)  # what else the process has drawn does not matter
    assert trained(cohort, job) == first
    others = [trained(cohort, job, round=2), trained(cohort, job, site_name="south")]
    others.append(trained(cohort, job.varied(training={"seed": 1})))
    assert len({first, *others}) == 4


def test_training_leaves_torchs_generator_alone(pictures, job):
    state = torch.random.get_rng_state()
    trained(pictures([1] * 5), job)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_optimiser_makes_the_loss_smaller(pictures, job, optimizer):
    rate = 0.1 if optimizer == "sgd" else 0.01
    job = job.varied(training={"optimizer": optimizer, "learning_rate": rate, "local_steps": 30, "batch_size": 8})
    cohort, network = pictures([1] * 16), networks.build(job)
    every = [drawing.Drawn(i, (0,)) for i in range(16)]
    batch = drawing.load(cohort, every, job.training, np.random.default_rng(0), CPU)

    def loss() -> float:
        with torch.no_grad():
            return float(plain.tasks.of(job).loss(network(batch.images), batch.targets).mean())

    before = loss()
    training.train(network, cohort, job, round=1, site_name="north", device=CPU)
    assert loss() < 0.9 * before


def test_everybody_has_their_turn_before_anybody_has_the_next(pictures, job, monkeypatch):
    job = job.varied(training={"batch_size": 4, "local_steps": None, "local_epochs": 2.0})
    seen = []
    original = drawing.choose_images
    monkeypatch.setattr(
        drawing,
        "choose_images",
        lambda cohort, patients, *rest: seen.append(patients) or original(cohort, patients, *rest),
    )
    trained(pictures([1] * 10), job)
    assert [len(batch) for batch in seen] == [4, 4, 4, 4, 4]
    order = [patient for batch in seen for patient in batch]
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10] != order[10:]


def test_a_site_smaller_than_a_batch_trains_on_all_it_has(pictures, job, monkeypatch):
    seen = []
    original = drawing.choose_images
    monkeypatch.setattr(
        drawing,
        "choose_images",
        lambda cohort, patients, *rest: seen.append(patients) or original(cohort, patients, *rest),
    )
    trained(pictures([1] * 3), job.varied(training={"batch_size": 8}))
    assert [sorted(batch) for batch in seen] == [[0, 1, 2]] * 2


def test_views_are_more_images_of_the_same_patients(pictures, job, monkeypatch):
    job = job.varied(training={"views": 3, "augmentation": "light", "batch_size": 2, "images_per_patient": 2})
    seen = []
    original = drawing.load
    monkeypatch.setattr(drawing, "load", lambda *args: seen.append(original(*args)) or seen[-1])
    trained(pictures([1, 5]), job)
    assert {sum(batch.counts) for batch in seen} == {9}
    assert all(float(batch.share.sum()) == pytest.approx(2) for batch in seen)


def test_in_bfloat16_parameters_stay_in_single_precision_and_the_loss_gets_smaller(pictures, job):
    options = {"learning_rate": 0.01, "local_steps": 30, "batch_size": 8}
    job = job.varied(training=options)
    losses = {}
    for precision in ("float32", "bfloat16"):
        varied = job.varied(training={"precision": precision})
        cohort, network = pictures([1] * 16), networks.build(varied)
        training.train(network, cohort, varied, round=1, site_name="north", device=CPU)
        assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
        batch = drawing.load(cohort, [drawing.Drawn(i, (0,)) for i in range(16)], job.training, None, CPU)
        with torch.no_grad():
            losses[precision] = float(plain.tasks.of(job).loss(network(batch.images), batch.targets).mean())
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.2)


def test_each_patient_counts_the_same_however_many_images(pictures, job):
    job = job.varied(
        training={"local_steps": 1, "optimizer": "sgd", "learning_rate": 1.0, "batch_size": 2, "images_per_patient": 9}
    )
    network, cohort = networks.build(job), pictures([1, 5])
    before = arrays.of_network(network)
    losses = [
        plain.tasks.of(job).loss(network(torch.stack([x for x, _ in pairs])), torch.stack([y for _, y in pairs])).mean()
        for pairs in cohort.data
    ]
    (sum(losses) / 2).backward()
    expected = {name: before[name] - p.grad.numpy() for name, p in network.named_parameters()}
    arrays.into_network(before, network)
    training.train(network, cohort, job, round=1, site_name="north", device=CPU)
    for name, array in arrays.of_network(network).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5)


def test_no_steps_change_nothing(pictures, job):
    job = job.varied(training={"local_steps": 0})
    assert trained(pictures([1]), job) == arrays.digest(arrays.of_network(networks.build(job)))


def test_a_model_that_runs_away_is_refused(pictures, job):
    with pytest.raises(Refused, match="learning_rate") as refused:
        trained(pictures([1] * 4), job.varied(training={"optimizer": "sgd", "learning_rate": 1e45, "local_steps": 5}))
    assert refused.value.code == RefusalCode.FAILED
