"""The same job in several ways over the same hospitals: each alone, all pooled, federated, federated with privacy.

Every arm takes the same number of optimiser steps in sequence, S = rounds × steps a round; each hospital alone and
the pooled training take them in one go, without the federation's fresh optimiser every round. `pooled-total` goes on
until it has taken as many steps as all hospitals of the federation together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from client.data.loading import Cohort
from client.site import Site
from server.observers.checkpoint import of_round
from server.store import Store
from shared import arrays, tasks
from shared.arrays import Arrays
from shared.job import Job
from simulations import figures
from simulations.engine import Engine, simulate
from simulations.hospitals import DATASET, pool
from simulations.watching import watched

ALONE = "alone"
POOLED = "pooled"
POOLED_TOTAL = "pooled-total"
FEDERATED = "federated"
PRIVATE = "federated-private"
ARMS = (ALONE, POOLED, FEDERATED, PRIVATE)


@dataclass(frozen=True)
class Arm:
    """One way of training, and what came of it at every hospital."""

    name: str
    job: Job
    run: str
    model: Arrays
    figures: dict[str, figures.Figures]

    def as_row(self) -> dict[str, Any]:
        """The arm as `summary.json` has it."""
        main = tasks.of(self.job).main
        rows = self.figures.values()
        return {"sites": self.figures, "mean": figures.mean(rows), "worst": figures.worst(rows, main)}


class Comparison:
    """Trains the arms that are asked for, one after the other, into one store."""

    def __init__(
        self, job: Job, sites: Mapping[str, Site], store: Store, *, engine: Engine, progress: Progress
    ) -> None:
        self._job = job
        self._sites = sites
        self._store = store
        self._engine = engine
        self._progress = progress

    def arms(self, names: Sequence[str], homes: Path) -> dict[str, Arm]:
        """The arms of these names; `federated-private` only where the job has privacy.

        Args:
            names: from `ARMS`.
            homes: where the home of the pooled data is made.
        """
        arms: list[Arm] = []
        plain = self._job.without_privacy()
        if ALONE in names:
            for name, site in self._sites.items():
                arms.append(self._train(f"{ALONE}:{name}", _in_one_go(plain, self._steps()), {name: site}))
        if POOLED in names:
            arms += self._pooled(plain, pool(self._sites, homes))
        if FEDERATED in names:
            arms.append(self._train(FEDERATED, plain, self._sites))
        if PRIVATE in names and self._job.private:
            arms.append(self._train(PRIVATE, self._job, self._sites))
        return {arm.name: arm for arm in arms}

    def _train(self, name: str, job: Job, sites: Mapping[str, Site]) -> Arm:
        with watched(self._progress, self._store, job, name):
            run = simulate(job, sites, self._store, engine=self._engine)
        return self._evaluated(name, job, run, job.federation.rounds)

    def _pooled(self, plain: Job, site: Site) -> list[Arm]:
        in_sequence = _in_one_go(plain, self._steps())
        job = in_sequence.varied(federation={"rounds": len(self._sites)})
        total = self._train(POOLED_TOTAL, job, {POOLED: site})
        return [self._evaluated(POOLED, in_sequence, total.run, 1), total]

    def _evaluated(self, name: str, job: Job, run: str, rounds: int) -> Arm:
        model = arrays.load(of_round(self._store.folder(run), rounds))
        return Arm(name, job, run, model, figures.exact(job, model, self._sites, split="test", full=True))

    def _steps(self) -> int:
        """Optimiser steps in sequence of the whole federation, at the hospital that takes most."""
        training = self._job.training
        steps = self._job.steps_per_round
        if steps is None:
            most = max(len(Cohort(site, DATASET, self._job, "training")) for site in self._sites.values())
            steps = math.ceil(math.ceil(most / training.batch_size) * (training.local_epochs or 0))
        return steps * self._job.federation.rounds


def _in_one_go(job: Job, steps: int) -> Job:
    return job.varied(
        training={"local_steps": steps, "local_epochs": None},
        federation={"rounds": 1, "min_sites": 1, "evaluate_every": 0},
    )
