"""The loss and the figures of classification."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional as F

from shared import tasks
from shared.job import Job
from shared.messages import is_listed
from shared.tasks.classification import auroc, balanced_accuracy, calibration_error


def a_job(classes: int = 2, **training: Any) -> Job:
    return Job.from_dict(
        {
            "name": "test",
            "task": "classification",
            "classes": [str(index) for index in range(classes)],
            "images": {"size": [32, 32]},
            "network": {"name": "ResNet18"},
            "training": training,
            "privacy": {"mode": "none"},
        }
    )


def outputs(count: int, classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    target = torch.randint(0, classes, (count,), generator=generator)
    return torch.randn(count, classes, generator=generator) + F.one_hot(target, classes), target


def figures_of(logits: Tensor, target: Tensor) -> dict[str, float]:
    measure = tasks.of(a_job(logits.shape[1])).measure()
    measure.add([str(index) for index in range(len(target))], logits, target)
    return measure.compute()


def test_the_loss_is_cross_entropy_times_the_weight_of_the_class() -> None:
    logits, target = outputs(6, 3)
    plain = tasks.of(a_job(3)).loss(logits, target)
    torch.testing.assert_close(plain, F.cross_entropy(logits, target, reduction="none"))
    weighted = tasks.of(a_job(3, class_weights=[1, 10, 0.5])).loss(logits, target)
    torch.testing.assert_close(weighted, plain * torch.tensor([1, 10, 0.5])[target])


@pytest.mark.parametrize("training", [{}, {"class_weights": [1, 2, 3]}])
def test_the_loss_works_under_vmap_and_grad(training: dict[str, Any]) -> None:
    task = tasks.of(a_job(3, **training))
    logits, target = outputs(5, 3)
    each = vmap(grad(lambda one, truth: task.loss(one[None], truth[None])[0]))(logits, target)
    logits.requires_grad_()
    task.loss(logits, target).sum().backward()
    torch.testing.assert_close(each, logits.grad)


def test_two_classes_are_measured_as_scikit_learn_does() -> None:
    logits, target = outputs(200, 2)
    figures = figures_of(logits, target)
    likely = logits.double().softmax(1)
    assert figures["auroc"] == pytest.approx(roc_auc_score(target, likely[:, 1]))
    assert figures["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(target, likely.argmax(1)))
    assert figures["loss"] == pytest.approx(float(F.cross_entropy(logits, target)), rel=1e-6)
    assert figures["patients"] == 200
    assert "auroc.1" not in figures


def test_more_classes_are_each_against_the_rest() -> None:
    logits, target = outputs(200, 4)
    figures = figures_of(logits, target)
    likely = logits.double().softmax(1)
    assert figures["auroc"] == pytest.approx(roc_auc_score(target, likely, multi_class="ovr", average="macro"))
    assert figures["auroc.2"] == pytest.approx(roc_auc_score(target == 2, likely[:, 2]))
    assert figures["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(target, likely.argmax(1)))
    assert all(is_listed(name) for name in figures)


def test_a_class_without_cases_of_both_kinds_is_left_out() -> None:
    logits, target = outputs(100, 4)
    target[target == 3] = 0
    figures = figures_of(logits, target)
    likely = logits.double().softmax(1)
    areas = [roc_auc_score(target == index, likely[:, index]) for index in range(3)]
    assert figures["auroc"] == pytest.approx(np.mean(areas))
    assert "auroc.3" not in figures
    alone = figures_of(logits, torch.zeros_like(target))
    assert "auroc" not in alone
    assert "balanced_accuracy" in alone


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auroc_counts_ties_half_as_scikit_learn_does(cases: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([score for score, _ in cases], float), np.array([kind for _, kind in cases])
    if positive.all() or not positive.any():
        assert math.isnan(auroc(scores, positive))
    else:
        assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


def test_balanced_accuracy_by_hand() -> None:
    likely = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]])
    assert balanced_accuracy(likely, np.array([0, 0, 0, 1])) == pytest.approx((2 / 3 + 0) / 2)


def test_calibration_error_by_hand() -> None:
    # Bins of 1/15: .85 and .86 share one, (.8, .8667], with half of them right; .6 has one of its own, right; so has 1.
    likely = np.array([[0.85, 0.15], [0.86, 0.14], [0.4, 0.6], [1.0, 0.0]])
    labels = np.array([0, 1, 1, 0])
    expected = 2 / 4 * abs(0.5 - 0.855) + 1 / 4 * abs(1 - 0.6) + 1 / 4 * 0
    assert calibration_error(likely, labels) == pytest.approx(expected)


def test_a_perfectly_calibrated_model_has_no_error_and_a_sure_wrong_one_has_all() -> None:
    assert calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1])) == pytest.approx(0)
    assert calibration_error(np.array([[1.0, 0.0]] * 4), np.ones(4, int)) == pytest.approx(1)


def test_a_patients_probabilities_are_averaged_first() -> None:
    likely = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    target = torch.tensor([1, 1, 0])
    measure = tasks.of(a_job()).measure()
    measure.add("a", likely[:2].log(), target[:2], None)  # 0.45
    measure.add("b", likely[2:].log(), target[2:], (1.0, 1.0))  # 0.6
    figures = measure.compute(full=True)
    assert figures["patients"] == 2
    assert figures["auroc"] == 0
    assert figures["balanced_accuracy"] == 0
    assert figures["loss"] == pytest.approx(-(math.log(0.1) + math.log(0.8)) / 4 - math.log(0.4) / 2, rel=1e-6)


def test_a_patient_with_two_labels_is_two_cases_and_one_patient() -> None:
    likely = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    measure = tasks.of(a_job()).measure()
    measure.add("a", likely.log(), torch.tensor([0, 0, 1]))
    figures = measure.compute()
    assert figures["patients"] == 1
    assert figures["auroc"] == 1


def test_nobody_and_a_diverged_model_have_no_figures() -> None:
    measure = tasks.of(a_job()).measure()
    assert measure.compute() == {"patients": 0}
    measure.add("a", torch.full((2, 2), torch.nan), torch.tensor([0, 1]))
    assert measure.compute() == {"patients": 1}
