"""A job to audit, and noise that is the same in every run of a test."""

import itertools

import pytest

from client.training import private
from client.training.noise import Stream
from shared.job import Job


@pytest.fixture
def audited(private_job) -> Job:
    """ε = 1 over five rounds of four steps that draw every fifth patient."""
    return private_job.varied(
        training={"local_steps": 4},
        privacy={"epsilon": 1.0, "delta": 1e-5, "sample_rate": 0.2, "clipping_norm": 0.5},
        federation={"rounds": 5},
    )


@pytest.fixture
def settled(monkeypatch):
    """The first round's noise and draws are always the same, so are the second's, and so on; no two are alike."""
    numbers = itertools.count()
    monkeypatch.setattr(private, "Stream", lambda: Stream(next(numbers).to_bytes(32, "big")))
