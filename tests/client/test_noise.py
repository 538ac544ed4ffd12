"""The noise: Gaussian, fresh, and nobody's but the operating system's."""

import random

import numpy as np
import pytest
import torch
from scipy import stats

from client.training import noise
from client.training.noise import GRAIN, Stream

KEY = bytes(range(32))


def test_it_is_standard_gaussian():
    noise = Stream(KEY).normal(400_000).numpy()
    assert abs(noise.mean()) < 4 / np.sqrt(len(noise))
    assert abs(noise.var() - 1) < 4 * np.sqrt(2 / len(noise))
    assert abs(stats.kurtosis(noise)) < 4 * np.sqrt(24 / len(noise))
    assert stats.kstest(noise, "norm").pvalue > 1e-4
    assert np.abs(noise).max() > 4


@pytest.mark.parametrize("lag", [1, 2, 3, 2**14, 2**15])
def test_its_numbers_do_not_depend_on_one_another(lag):
    noise = Stream(KEY).normal(200_000).numpy()
    for values in (noise, noise**2 - 1):
        assert abs(stats.pearsonr(values[:-lag], values[lag:]).statistic) < 5 / np.sqrt(len(values))


def test_blocks_of_any_length_have_the_same_deviation():
    stream = Stream(KEY)
    for size in (1, 2, 3, 7):
        noise = torch.stack([stream.normal(size) for _ in range(1500)])
        assert noise.shape == (1500, size)
        assert abs(float(noise.std()) - 1) < 0.08
    assert stream.normal(0).shape == (0,)


def test_uniform_numbers_are_uniform_and_below_one():
    uniform = Stream(KEY).random(200_000)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert stats.kstest(uniform, "uniform").pvalue > 1e-4
    assert Stream(KEY).random(0).shape == (0,)


def test_a_large_draw_shares_gaussians_far_apart_and_a_small_one_none():
    apart = noise._BLOCK // 8
    four = Stream(KEY).normal(4 * apart).view(4, apart)
    assert torch.equal(four.flatten(), Stream(KEY).normal(noise._BLOCK)[: 4 * apart])
    correlations = np.corrcoef(np.vstack([four.numpy(), four.numpy() ** 2, four.numpy() ** 3]))
    assert np.abs(correlations[:4, :4] - np.eye(4)).max() < 5 / np.sqrt(apart)
    assert np.abs(correlations[4:8, 4:8] - np.eye(4)).max() < 5 / np.sqrt(apart)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("deviation", [0.7, 1e-6, 3000.0])
def test_what_is_noised_is_a_whole_number_of_grains_whatever_it_was(deviation, dtype):
    grain = 2.0 ** np.floor(np.log2(deviation * GRAIN))
    assert GRAIN / 2 < grain / deviation <= GRAIN
    values = torch.rand(300, 1001, dtype=dtype) * deviation
    noised = values.clone()
    Stream().add_to(noised, deviation)
    whole = noised.double() / grain
    assert torch.equal(whole, whole.round())
    error = (noised - values).double() / deviation
    assert abs(float(error.mean())) < 5 / error.numel() ** 0.5
    assert abs(float(error.std()) - 1) < 5 / (2 * error.numel()) ** 0.5
    assert stats.kstest((error + GRAIN * torch.rand_like(error)).flatten()[:20_000], "norm").pvalue > 1e-4


def test_the_same_value_is_noised_anew_each_time():
    stream, values = Stream(), torch.zeros(4, 1000)
    for row in values:
        stream.add_to(row, 1.0)
    assert float((values[0] == values[1]).float().mean()) < 0.02
    assert abs(np.corrcoef(values.numpy()) - np.eye(4)).max() < 5 / 1000**0.5


def test_no_seed_reaches_it():
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        drawn.append(Stream().normal(64))
    assert not torch.equal(*drawn)
    assert torch.unique(torch.cat(drawn)).numel() == 128


def test_drawing_leaves_torchs_generator_alone():
    state = torch.random.get_rng_state()
    Stream().normal(1000)
    assert torch.equal(torch.random.get_rng_state(), state)
