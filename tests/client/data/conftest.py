"""Sites and small scans for the tests of datasets."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from client.site import Site, SiteConfig

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def make_site(tmp_path: Path) -> Callable[..., Site]:
    """Homes, by name; every one has another secret, the same in every run."""

    def make(name: str = "north", **config: object) -> Site:
        secret = (name.encode() * 32)[:32]
        return Site.create(tmp_path / "homes" / name, SiteConfig(name=name, **config), secret=secret)

    return make


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """One home."""
    return make_site()
