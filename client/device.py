"""Where the site computes: the device that site.toml names, and how much of the machine training may use."""

from __future__ import annotations

import os
import resource

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


def bound(policy: Policy, device: torch.device) -> None:
    """Keep this process within the policy's share of the machine, from now on."""
    bound_threads(policy)
    bound_memory(policy)
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(policy.gpu_share, device)


def bound_memory(policy: Policy) -> None:
    """Let this process have so much memory of its own; what asks for more gets an error, which is a refusal.

    RLIMIT_DATA (getrlimit(2)): on Linux all that a process may write and shares with nobody, but not the threads'
    stacks, nor files that are read in place.
    """
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = resource.RLIM_INFINITY if policy.max_memory is None else int(policy.max_memory * 10**9)
    if most != resource.RLIM_INFINITY:
        limit = most if limit == resource.RLIM_INFINITY else min(limit, most)
    if resource.getrlimit(resource.RLIMIT_DATA)[0] != limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def bound_threads(policy: Policy) -> None:
    """Keep this process's training within the policy's threads; 0 takes half of the processors.

    Half, because two processors are mostly one core: measured on a busy machine of two, two threads that wait for
    each other took a hundred times as long a step as one.
    """
    threads = policy.threads or max(1, len(os.sched_getaffinity(0)) // 2)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
