"""What is done beside a run's rounds, one concern a file: they watch the loop and are no part of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from server.store import RoundRow
from shared.arrays import Arrays


class Observer(Protocol):
    """Told of the start, of every round once its model is there, and of the end."""

    def began(self, model: Arrays) -> None:
        """The initial model is there."""

    def standings_changed(self, standings: Mapping[str, str]) -> None:
        """A site has said whether it takes part: name → `accepted`, or the code of why not."""

    def waits(self, what: str) -> None:
        """The run cannot go on by itself for now: for whom it waits."""

    def round_ended(self, row: RoundRow, model: Arrays, state: Arrays) -> None:
        """A round has a new global model; `state` is what else the algorithm needs to go on from there."""

    def ended(self, model: Arrays, figures: Mapping[str, Mapping[str, float]]) -> None:
        """All rounds are done; `figures` is what the sites said of the final model."""
