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
from shared import tasks
from shared.job import Job
from simulations import figures
from simulations.engine import Engine, Finished, simulate
from simulations.hospitals import DATASET, pool
from simulations.hospitals import POOLED as POOLED_SITE
from simulations.watching import on

ALONE = "alone"
POOLED = "pooled"
POOLED_TOTAL = "pooled-total"
FEDERATED = "federated"
PRIVATE = "federated-private"
ARMS = (ALONE, POOLED, FEDERATED, PRIVATE)


@dataclass(frozen=True)
class Arm:
    """One way of training, and what came of it at every hospital (exact figures of the test patients)."""

    name: str
    job: Job
    finished: Finished
    figures: dict[str, figures.Figures]

    def as_row(self) -> dict[str, Any]:
        """The arm as `summary.json` has it."""
        main = tasks.of(self.job).main
        rows = self.figures.values()
        return {"sites": self.figures, "mean": figures.mean(rows), "worst": figures.worst(rows, main)}


class Comparison:
    """Trains the arms that are asked for, one after the other, each with a coordinator's home of its own.

    Args:
        job: what is trained.
        sites: the virtual hospitals.
        out: where the homes are made.
        engine: of the federated arms; a hospital alone is always trained in this process.
        progress: shows a bar an arm.
    """

    def __init__(self, job: Job, sites: Mapping[str, Site], out: Path, *, engine: Engine, progress: Progress) -> None:
        self._job = job
        self._sites = sites
        self._out = out
        self._engine = engine
        self._progress = progress

    def arms(self, names: Sequence[str]) -> dict[str, Arm]:
        """The arms of these names, from `ARMS`; `federated-private` only where the job has privacy."""
        arms: list[Arm] = []
        plain = self._job.without_privacy()
        if ALONE in names:
            for name, site in self._sites.items():
                arms.append(self._train(f"{ALONE}:{name}", _in_one_go(plain, self._steps()), {name: site}))
        if POOLED in names:
            arms += self._pooled(plain)
        if FEDERATED in names:
            arms.append(self._train(FEDERATED, plain, self._sites, engine=self._engine))
        if PRIVATE in names and self._job.private:
            arms.append(self._train(PRIVATE, self._job, self._sites, engine=self._engine))
        return {arm.name: arm for arm in arms}

    def _train(self, name: str, job: Job, sites: Mapping[str, Site], *, engine: Engine = "process") -> Arm:
        home = self._out / "arms" / name.replace(":", "-")
        finished = simulate(job, sites, home, engine=engine, watch=on(self._progress, name))
        return self._evaluated(name, job, finished)

    def _pooled(self, plain: Job) -> list[Arm]:
        """One run of as many rounds as there are hospitals: the first is `pooled`, all are `pooled-total`."""
        in_sequence = _in_one_go(plain, self._steps())
        job = in_sequence.varied(federation={"rounds": len(self._sites)})
        total = self._train(POOLED_TOTAL, job, {POOLED_SITE: pool(self._sites, self._out / "sites")})
        return [self._evaluated(POOLED, in_sequence, total.finished, number=1), total]

    def _evaluated(self, name: str, job: Job, finished: Finished, *, number: int | None = None) -> Arm:
        exact = figures.exact(job, finished.model(number), self._sites, split="test", full=True)
        return Arm(name, job, finished, exact)

    def _steps(self) -> int:
        """Optimiser steps in sequence of the whole federation, at the hospital that takes most."""
        training = self._job.training
        steps = self._job.steps_per_round
        if steps is None:
            most = max(len(Cohort(site, DATASET, self._job, "train")) for site in self._sites.values())
            steps = math.ceil(math.ceil(most / training.batch_size) * (training.local_epochs or 0))
        return steps * self._job.federation.rounds


def _in_one_go(job: Job, steps: int) -> Job:
    return job.varied(
        training={"local_steps": steps, "local_epochs": None},
        federation={"rounds": 1, "min_sites": 1, "evaluate_every": 0, "evaluate_at_end": False},
    )
