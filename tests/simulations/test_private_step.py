"""The benchmark of a private step: it measures what it says, on small networks here; the figures are no test."""

import pytest

from simulations import benchmarks
from simulations.benchmarks import private_step
from simulations.benchmarks.private_step import Case

SMALL = (
    Case("UNet", (16, 16), 2, options={"channels": [4, 8], "strides": [2]}),
    Case("SegResNet", (16, 16, 16), 2, options={"blocks_down": [1, 1], "blocks_up": [1]}),
    Case("ResNet18", (32, 32), 2, channels=3),
)


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return private_step.measure(SMALL)["rows"]


def test_every_network_has_a_row_of_ratios_against_the_plain_step(rows):
    assert [(row["network"], row["dimensions"], row["batch"]) for row in rows] == [
        ("UNet", 2, 2),
        ("SegResNet", 3, 2),
        ("ResNet18", 2, 2),
    ]
    for row in rows:
        assert row["parameters"] > 500
        assert row["plain_seconds"] > 0
        assert 0.2 < row["time_ratio"] < 50
        assert row["memory_ratio"] > 0


def test_opacus_has_figures_where_it_can_take_the_network_and_none_where_it_cannot(rows):
    unet, *residual = rows
    assert unet["hooks_time_ratio"] > 0
    assert unet["hooks_memory_ratio"] > 0
    assert [(row["hooks_time_ratio"], row["hooks_memory_ratio"]) for row in residual] == [(None, None)] * 2


def test_it_is_there_by_its_name():
    assert benchmarks.BENCHMARKS["private-step"] is private_step.measure


@pytest.mark.parametrize("case", private_step._CASES, ids=lambda case: case.network)
def test_both_steps_see_the_same_images(case):
    plain, private = case.job(private=False), case.job(private=True)
    assert plain.training == private.training
    assert private.privacy.sample_rate == 1
    assert plain.network == private.network
