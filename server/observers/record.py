"""Writes every round into the run store, from which `show`, `--follow` and the report read."""

from __future__ import annotations

from collections.abc import Mapping

from server.store import RoundRow, Store
from shared.arrays import Arrays


class Record:
    """Rounds and final figures in the store."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._run = run
        self._waits = ""

    def began(self, model: Arrays) -> None:
        """The run is under way."""
        self._store.set_status(self._run, "running")

    def standings_changed(self, standings: Mapping[str, str]) -> None:
        """Remember who takes part, and who does not and why."""
        self._store.set_standings(self._run, standings)

    def waits(self, what: str) -> None:
        """Say so, once."""
        if what != self._waits:
            self._store.set_status(self._run, "running", what)
            self._waits = what

    def round_ended(self, row: RoundRow, model: Arrays, state: Arrays) -> None:
        """Remember the round; from here on it is done, whatever happens."""
        self._store.add_round(self._run, row)
        if self._waits:
            self._store.set_status(self._run, "running")
            self._waits = ""

    def ended(self, model: Arrays, figures: Mapping[str, Mapping[str, float]]) -> None:
        """Remember the figures; whoever ran the loop says how it ended."""
        self._store.set_figures(self._run, figures)
