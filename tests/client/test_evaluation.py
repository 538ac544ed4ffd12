"""Evaluation: every image of every patient, whatever the passes are cut into."""

import pytest
import torch

from client import evaluation
from client.evaluation import evaluate
from shared import networks

CPU = torch.device("cpu")


def test_the_figures_do_not_depend_on_how_many_images_go_at_once(pictures, job, monkeypatch):
    cohort, network = pictures([1, 3, 2, 1]), networks.build(job)
    together = evaluate(network, cohort, job, device=CPU)
    assert together["patients"] == 4
    assert {"dice", "loss"} <= set(together)
    monkeypatch.setattr(evaluation, "_MOST_IMAGES", 2 * 16 * 16)
    assert evaluate(network, cohort, job, device=CPU) == pytest.approx(together, rel=1e-4)


def test_patients_count_the_same_however_many_images(pictures, job):
    cohort, network = pictures([1, 5]), networks.build(job)
    both = evaluate(network, cohort, job, device=CPU)["loss"]
    each = []
    for pairs in cohort.data:
        alone = pictures([1])
        alone.data = [pairs]
        each.append(evaluate(network, alone, job, device=CPU)["loss"])
    assert both == pytest.approx(sum(each) / 2, rel=1e-4)


def test_nobody_gives_no_figures(pictures, job):
    assert evaluate(networks.build(job), pictures([]), job, device=CPU) == {}


def test_the_network_is_left_as_it_was(pictures, job):
    network = networks.build(job)
    before = [parameter.clone() for parameter in network.parameters()]
    evaluate(network, pictures([1, 1]), job, device=CPU, full=True)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in network.parameters())
