"""The device that site.toml names, and the threads that the policy allows."""

import os

import pytest
import torch

from client import device
from client.site import Policy, SiteConfig
from shared.errors import InsituError


def test_the_processor_can_be_asked_for():
    assert device.choose(SiteConfig(name="north", device="cpu")) == torch.device("cpu")


def test_automatic_takes_a_gpu_where_there_is_one():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert device.choose(SiteConfig(name="north")).type == expected


def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(InsituError, match="cuda:99"):
        device.choose(SiteConfig(name="north", device="cuda:99"))


def test_threads_are_bounded_by_the_policy():
    before = torch.get_num_threads()
    try:
        device.bound_threads(Policy(threads=1))
        assert torch.get_num_threads() == 1
        device.bound_threads(Policy(threads=0))
        assert torch.get_num_threads() == max(1, len(os.sched_getaffinity(0)) // 2)
    finally:
        torch.set_num_threads(before)
