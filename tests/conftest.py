"""What several rooms' tests need."""

import os

# Before torch is imported anywhere: the machines that test are small.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest

import shared.silence  # noqa: F401
from shared.job import Job

LESIONS = """
name = "lesions"
task = "segmentation"
classes = ["background", "lesion"]
[images]
size = [16, 16]
[network]
name = "UNet"
channels = [4, 8]
strides = [2]
[training]
local_steps = 2
batch_size = 4
[privacy]
mode = "none"
[federation]
rounds = 2
"""


@pytest.fixture
def job() -> Job:
    """A small segmentation job without privacy."""
    return Job.from_toml(LESIONS)


@pytest.fixture
def private_job(job: Job) -> Job:
    """The same with ε = 8 for each patient."""
    privacy = {"mode": "patient", "epsilon": 8.0, "delta": 1e-4, "sample_rate": 0.5}
    return job.varied(privacy=privacy, federation={"evaluate_every": 0})


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The folder of real images, where there is one beside the checkout."""
    folder = Path(os.environ.get("INSITU_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images: set INSITU_DATA (looked in {folder.name} beside the checkout)")
    return folder
