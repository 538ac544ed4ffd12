"""The lock is what `make` installs: it pins all that the project asks for, and nothing comes in beside it."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def locked() -> dict[str, str]:
    """Name → exact version: the lock's lines, and torch, which the Makefile installs before them."""
    pins = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!]+)", line)
        assert match, f"not an exact version: {line!r}"
        assert canonicalize_name(match[1]) not in pins, f"twice in the lock: {match[1]}"
        pins[canonicalize_name(match[1])] = match[2]
    torch = re.search(r"pip install .*\btorch==([0-9.]+)", (ROOT / "Makefile").read_text())
    assert torch, "the Makefile installs no exact torch"
    return pins | {"torch": torch[1]}


def direct() -> list[Requirement]:
    """What pyproject.toml asks for: to run, to test, to build."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    texts = data["project"]["dependencies"] + data["build-system"]["requires"]
    for extra in data["project"]["optional-dependencies"].values():
        texts = texts + extra
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("requirement", direct(), ids=lambda requirement: requirement.name)
def test_the_lock_pins_what_the_project_asks_for(requirement):
    version = locked().get(canonicalize_name(requirement.name))
    assert version is not None, f"{requirement.name} is not in requirements.lock"
    assert requirement.specifier.contains(version), f"{version} in the lock is not {requirement.specifier}"


def test_everything_that_is_pulled_in_is_pinned_too():
    pins = locked()
    todo, seen = [(item.name, frozenset(item.extras)) for item in direct()], set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        assert canonicalize_name(name) in pins, f"{name} would be installed in any version"
        for text in distribution(name).requires or []:
            needed = Requirement(text)
            wanted = [needed.marker is None or needed.marker.evaluate({"extra": extra}) for extra in {"", *extras}]
            if any(wanted):
                todo.append((needed.name, frozenset(needed.extras)))


def test_the_lock_is_what_these_tests_run_with():
    for name, version in locked().items():
        assert distribution(name).version.split("+")[0] == version, f"{name}: run `make setup`"
