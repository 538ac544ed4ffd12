"""Noised figures: the noise is that which is accounted for, and nobody outside can repeat it."""

import numpy as np
import pytest
import torch

from client import figures
from client.training.noise import Stream
from shared import accounting


class Sums:
    """A task whose figures are the sum itself, and a measure of given rows."""

    bound = 1.5

    def __init__(self, rows):
        self.rows = lambda: np.asarray(rows, dtype=float)

    def figures(self, total):
        return {str(place): float(value) for place, value in enumerate(total)}


def drawn(rows, noise_multiplier: float, count: int) -> np.ndarray:
    one = Sums(rows)
    found = [figures.noised(one, one, noise_multiplier=noise_multiplier).numbers for _ in range(count)]
    return np.array([list(numbers.values()) for numbers in found])


def test_every_number_of_the_sum_gets_noise_of_the_multiplier_times_the_bound():
    values = drawn([[1.0, -0.5], [1.0, 0.25]], 2.0, 4000)
    assert values.mean(0) == pytest.approx([2.0, -0.25], abs=5 * 3 / 4000**0.5)
    assert values.std(0) == pytest.approx([3.0, 3.0], rel=0.06)
    assert abs(np.corrcoef(values.T)[0, 1]) < 0.08


def test_nobody_is_noised_as_well():
    assert drawn(np.zeros((0, 2)), 2.0, 500).std(0) == pytest.approx([3.0, 3.0], rel=0.2)


def test_no_seed_repeats_the_noise():
    values = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        values.append(drawn([[1.0, 0.0]], 2.0, 1))
    assert not np.array_equal(*values)
    assert Stream().normal(1) != Stream().normal(1)


@pytest.mark.parametrize("releases", [1, 2, 30])
def test_all_releases_together_stay_within_what_the_job_declares(private_job, releases):
    noise, rate, steps = figures.charge(private_job, releases)
    spent = accounting.epsilon([(noise, rate, steps * releases)], delta=private_job.privacy.delta)
    assert 0.97 * private_job.privacy.epsilon < spent <= private_job.privacy.epsilon


def test_a_job_without_privacy_has_no_noise(job):
    with pytest.raises(ValueError, match="without privacy"):
        figures.charge(job, 1)
