"""The harness can be imported by its name, here and in the processes it starts."""

import sys
from pathlib import Path

import pytest

from shared.job import Job

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def any_job() -> Job:
    """A job whose contents the tiny apps do not look at."""
    return Job.from_dict(
        {
            "name": "tiny",
            "task": "segmentation",
            "classes": ["background", "lesion"],
            "images": {"size": [16, 16]},
            "network": {"name": "UNet"},
            "privacy": {"mode": "none"},
            "training": {"local_steps": 0},
        }
    )
