"""Writes the global model after every round, before anybody is told of the round; a run that broke off goes on there.

runs/<run>/initial.safetensors          the initial model
runs/<run>/rounds/0001.safetensors      the model after the first round, and so on
runs/<run>/rounds/0001.state            what else the algorithm needs to go on; of the last rounds only
runs/<run>/model.safetensors            the final model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from server.store import RoundRow
from shared import arrays
from shared.arrays import Arrays
from shared.errors import InsituError
from shared.job import Job

INITIAL = "initial.safetensors"
FINAL = "model.safetensors"


def of_round(folder: Path, number: int) -> Path:
    """Where the global model after this round is; round 0 is the initial model."""
    return folder / "rounds" / f"{number:04d}.safetensors" if number else folder / INITIAL


def state_of_round(folder: Path, number: int) -> Path:
    """Where the algorithm's state after this round is."""
    return folder / "rounds" / f"{number:04d}.state"


def resume(folder: Path, rows: Sequence[RoundRow]) -> tuple[int, Arrays, Arrays]:
    """Where a run goes on: how many rounds are done, the model after them, the algorithm's state.

    Args:
        folder: the run's.
        rows: its rounds, as the store has them, in order; none for a run that broke off before its first.

    Raises:
        InsituError: if the model is not the one that the round came to.
    """
    if not rows:
        return 0, arrays.load(of_round(folder, 0)), {}
    last = rows[-1]
    file = of_round(folder, last.round)
    model = arrays.load(file)
    if arrays.digest(model) != last.model:
        raise InsituError(f"{file} is not the model of round {last.round}: it was changed, or is damaged")
    return last.round, model, arrays.load(state_of_round(folder, last.round))


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

    def waits(self, what: str) -> None:
        """Changes no model."""

    def round_ended(self, row: RoundRow, model: Arrays, state: Arrays) -> None:
        """Write the algorithm's state and the round's model; the state before the last one is needed no more."""
        metadata = {**self._metadata, "round": str(row.round)}
        arrays.save(state_of_round(self._folder, row.round), state, metadata)
        arrays.save(of_round(self._folder, row.round), model, metadata)
        state_of_round(self._folder, row.round - 2).unlink(missing_ok=True)

    def ended(self, model: Arrays, figures: Mapping[str, Mapping[str, float]]) -> None:
        """Write the final model."""
        arrays.save(self._folder / FINAL, model, self._metadata)
