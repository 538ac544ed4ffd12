"""Figures as sums over patients: bounded for each, and saying what the figures say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import tasks
from shared.job import Job


def a_job(task: str, classes: int) -> Job:
    network = {"segmentation": "UNet", "classification": "ResNet18"}[task]
    return Job.from_dict(
        {
            "name": "sums",
            "task": task,
            "classes": [f"class {index}" for index in range(classes)],
            "images": {"size": [8, 8]},
            "network": {"name": network},
            "privacy": {"mode": "none"},
        }
    )


def measured(task, classes: int, patients: list[str], seed: int):
    """A measure of random outputs, some of them not finite, for these patients' images."""
    random = torch.Generator().manual_seed(seed)
    shape = (len(patients), classes, 8, 8) if task.main == "dice" else (len(patients), classes)
    logits = 3 * torch.randn(shape, generator=random)
    targets = torch.randint(classes, (len(patients), 1, 8, 8) if task.main == "dice" else (len(patients),))
    measure = task.measure()
    measure.add(patients, logits, targets)
    return measure


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", ["segmentation", "classification"])
@given(patients=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=20), seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_a_patient_changes_the_sum_by_no_more_than_the_bound(name, classes, patients, seed):
    task = tasks.of(a_job(name, classes))
    rows = measured(task, classes, patients, seed).rows()
    assert len(rows) == len(set(patients))
    assert (np.linalg.norm(rows, axis=1) <= task.bound + 1e-12).all()


@pytest.mark.parametrize("name", ["segmentation", "classification"])
def test_a_patients_row_is_theirs_alone(name):
    """With a patient more, the rows of the others stay as they are: the bound is on what one patient changes."""
    task = tasks.of(a_job(name, 2))
    shape = (4, 2, 8, 8) if name == "segmentation" else (4, 2)
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(2, (4, 1, 8, 8) if name == "segmentation" else (4,))
    with_all, without = task.measure(), task.measure()
    with_all.add(["a", "b", "b", "c"], logits, targets)
    without.add(["a", "b", "b"], logits[:3], targets[:3])
    assert np.array_equal(with_all.rows()[:2], without.rows())


def test_an_output_that_is_not_finite_spoils_no_sum():
    for name in ("segmentation", "classification"):
        task = tasks.of(a_job(name, 2))
        measure = task.measure()
        logits = torch.full((2, 2, 8, 8) if name == "segmentation" else (2, 2), float("nan"))
        measure.add(["a", "b"], logits, torch.zeros((2, 1, 8, 8) if name == "segmentation" else 2, dtype=torch.int64))
        assert np.isfinite(measure.rows()).all()


@pytest.mark.parametrize("name", ["segmentation", "classification"])
def test_nobody_adds_nothing(name):
    task = tasks.of(a_job(name, 2))
    rows = task.measure().rows()
    assert rows.shape[0] == 0
    assert task.figures(rows.sum(0)) == {"patients": 0.0}


def test_the_exact_sum_says_the_exact_dice():
    task = tasks.of(a_job("segmentation", 3))
    patients = [f"patient {number // 2}" for number in range(24)]
    measure = measured(task, 3, patients, seed=1)
    figures = task.figures(measure.rows().sum(0))
    assert figures["patients"] == 12
    assert figures["dice"] == pytest.approx(measure.compute()["dice"])


def cases(count: int, shift: float, classes: int = 2):
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, count)
    logits = random.normal(size=(count, classes))
    logits[np.arange(count), labels] += shift
    return [str(number) for number in range(count)], torch.tensor(logits), torch.tensor(labels)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_the_exact_sum_says_the_area_up_to_the_width_of_its_bins(classes, shift):
    task = tasks.of(a_job("classification", classes))
    measure = task.measure()
    measure.add(*cases(2000, shift, classes))
    exact, figures = measure.compute(), task.figures(measure.rows().sum(0))
    assert figures["patients"] == 2000
    assert figures["auroc"] == pytest.approx(exact["auroc"], abs=0.015)
    if classes == 2:
        assert figures["balanced_accuracy"] == pytest.approx(exact["balanced_accuracy"], abs=1e-9)


def test_noise_does_not_pull_the_area_to_one_side():
    task = tasks.of(a_job("classification", 2))
    measure = task.measure()
    measure.add(*cases(300, 1.0))
    total, random = measure.rows().sum(0), np.random.default_rng(0)
    noised = [task.figures(total + random.normal(0, 3, total.shape))["auroc"] for _ in range(400)]
    assert np.mean(noised) == pytest.approx(task.figures(total)["auroc"], abs=0.02)


@pytest.mark.parametrize("name", ["segmentation", "classification"])
@given(seed=st.integers(0, 2**31), scale=st.floats(0, 1e6))
@settings(max_examples=60, deadline=None)
def test_whatever_the_noise_figures_are_between_0_and_1(name, seed, scale):
    task = tasks.of(a_job(name, 2))
    width = task.measure().rows().shape[1]
    figures = task.figures(np.random.default_rng(seed).normal(0, scale, width))
    assert figures["patients"] >= 0
    assert figures["patients"] == round(figures["patients"])
    assert all(0 <= value <= 1 for key, value in figures.items() if key != "patients")
