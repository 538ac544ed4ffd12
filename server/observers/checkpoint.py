"""Writes the global model after every round, before anybody is told of the round."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from server.store import RoundRow
from shared import arrays
from shared.arrays import Arrays
from shared.job import Job

INITIAL = "initial.safetensors"
FINAL = "model.safetensors"


def of_round(folder: Path, number: int) -> Path:
    """Where the global model after this round is; round 0 is the initial model."""
    return folder / "rounds" / f"{number:04d}.safetensors" if number else folder / INITIAL


class Checkpoint:
    """Models in the run's folder, each replaced atomically, each naming the job it belongs to."""

    def __init__(self, folder: Path, job: Job) -> None:
        self._folder = folder
        self._metadata = {"job": job.canonical(), "digest": job.digest}

    def began(self, model: Arrays) -> None:
        """Write the initial model."""
        arrays.save(of_round(self._folder, 0), model, self._metadata)

    def standings_changed(self, standings: Mapping[str, str]) -> None:
        """Changes no model."""

    def round_ended(self, row: RoundRow, model: Arrays) -> None:
        """Write the round's model."""
        arrays.save(of_round(self._folder, row.round), model, {**self._metadata, "round": str(row.round)})

    def ended(self, model: Arrays, figures: Mapping[str, Mapping[str, float]]) -> None:
        """Write the final model."""
        arrays.save(self._folder / FINAL, model, self._metadata)
