"""Where the site computes: the device that site.toml names, and how much of the processor training may use."""

from __future__ import annotations

import os

import torch

from client.site import Policy, SiteConfig
from shared.errors import InsituError


def choose(config: SiteConfig) -> torch.device:
    """The device of site.toml; `auto` is the first GPU, or the processor where there is none.

    Raises:
        InsituError: if site.toml names a GPU that is not there.
    """
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(config.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InsituError(
            f'site.toml: device = "{config.device}" is not there ({torch.cuda.device_count()} GPUs are); '
            'say another, or "auto"'
        )
    return device


def bound_threads(policy: Policy) -> None:
    """Keep this process's training within the policy's threads; 0 takes half of the processors.

    Half, because two processors are mostly one core: measured on a busy machine of two, two threads that wait for
    each other took a hundred times as long a step as one.
    """
    threads = policy.threads or max(1, len(os.sched_getaffinity(0)) // 2)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
