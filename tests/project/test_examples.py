"""The examples in the docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

PACKAGES = ("client", "server", "shared", "simulations")


def modules() -> list[str]:
    found = []
    for package in map(importlib.import_module, PACKAGES):
        found += [
            package.__name__,
            *(item.name for item in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")),
        ]
    return found


@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
