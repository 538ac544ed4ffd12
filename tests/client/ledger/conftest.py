"""A home with a ledger; `spending` can be imported by its name."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from spending import site_at

from client.ledger import Ledger


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    return Ledger(site_at(tmp_path / "home", data={"epsilon": 6.0, "delta": 1e-5}))
