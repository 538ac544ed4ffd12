"""A home with a record; `recording` can be imported by its name."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from recording import site_at

from client.site import Site


@pytest.fixture
def site(tmp_path) -> Site:
    return site_at(tmp_path / "home")
