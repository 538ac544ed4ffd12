"""No gradient that a crafted model can bring about is longer than the clipping norm once it is clipped."""

import pytest
import torch

from client.training.clipping import clipped_sum
from client.training.shares import Factors, Rows


def norm(parts) -> float:
    return float(torch.cat([part.flatten().double() for part in parts]).norm())


@pytest.mark.parametrize("size", [2**12, 2**20, 2**23, 2**24])
@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1.0, 1e10])
def test_a_long_row_of_equal_numbers_is_clipped_to_the_norm(size, scale):
    assert norm(clipped_sum([Rows(torch.full((1, size), scale))], 1.0)) <= 1.0 + 1e-6


@pytest.mark.parametrize("size", [2e15, 2e18, 2e22, 3e22, 3.7e22, 1e30])
def test_factors_that_are_huge_are_clipped_to_the_norm_or_count_as_zero(size):
    left, right = torch.full((1, 1), size), torch.full((1, 1), size)
    share = Factors(left, right, (1,), torch.Size([1, 1]))
    assert norm(clipped_sum([share], 1.0)) <= 1.0 + 1e-6


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e38])
def test_a_gradient_that_is_not_finite_or_too_long_counts_as_zero(wrong):
    rows = torch.tensor([[wrong, 0.0], [0.3, 0.4]])
    assert clipped_sum([Rows(rows)], 1.0)[0].tolist() == pytest.approx([0.3, 0.4])


def test_a_short_gradient_is_left_as_it_is():
    rows = torch.rand(1, 100) * 1e-3
    assert torch.equal(clipped_sum([Rows(rows)], 1.0)[0], rows[0])


@pytest.mark.parametrize("seed", range(20))
def test_random_gradients_are_no_longer_than_the_norm(seed):
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(1, 10_000, generator=random) * 10 ** float(torch.randn(1, generator=random) * 5)
    assert norm(clipped_sum([Rows(rows)], 0.7)) <= 0.7
