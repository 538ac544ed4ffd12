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

    def round_ended(self, row: RoundRow, model: Arrays) -> None:
        """A round has a new global model."""

    def ended(self, model: Arrays, figures: Mapping[str, Mapping[str, float]]) -> None:
        """All rounds are done; `figures` is what the sites said of the final model."""
