"""Benchmarks: what is compared is measured side by side in one run. They judge nothing and are no tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared.errors import BadInput
from simulations.benchmarks import private_step, round_cost

BENCHMARKS: dict[str, Callable[[], dict[str, Any]]] = {
    "private-step": private_step.measure,
    "round-cost": round_cost.measure,
}


def run(name: str | None) -> dict[str, dict[str, Any]]:
    """One benchmark, or all: name → its figures, of which `rows` is for people.

    Raises:
        BadInput: if there is none of this name.
    """
    if name is not None and name not in BENCHMARKS:
        raise BadInput(f"got {name!r}, expected one of {', '.join(BENCHMARKS)}")
    return {each: measure() for each, measure in BENCHMARKS.items() if name in (None, each)}
