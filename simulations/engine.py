"""Runs a job over virtual hospitals: in this process, or on Flower's Ray engine. The same apps, the same messages."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from flwr.app import Context, RecordDict
from flwr.app.user_config import UserConfig

import client.app
import server.app
from client.site import Site
from server.observers.checkpoint import FINAL, of_round
from server.store import RoundRow, Store
from shared import arrays
from shared.arrays import Arrays
from shared.job import Job
from simulations.grid import COORDINATOR, RUN_ID, InProcessGrid
from simulations.watching import Watch, unwatched

# Progress is shown by rounds; Flower's own lines would run through it.
logging.getLogger("flwr").setLevel(logging.ERROR)

Engine = Literal["process", "ray", "processes"]


@dataclass(frozen=True)
class Finished:
    """A run that came to its end, in the store of its coordinator."""

    store: Store
    run: str

    @property
    def rounds(self) -> list[RoundRow]:
        """What every round came to."""
        return self.store.rounds(self.run)

    @property
    def first_round_seconds(self) -> float:
        """From submitting the job to the model of the first round."""
        submitted = datetime.fromisoformat(self.store.run(self.run).submitted)
        return (datetime.fromisoformat(self.rounds[0].ended) - submitted).total_seconds()

    def model(self, number: int | None = None) -> Arrays:
        """The global model after a round; 0 is the initial one, None the final one."""
        folder = self.store.folder(self.run)
        return arrays.load(folder / FINAL if number is None else of_round(folder, number))


def simulate(
    job: Job, sites: Mapping[str, Site], home: Path, *, engine: Engine = "process", watch: Watch = unwatched
) -> Finished:
    """Run the job to its end.

    Args:
        job: what is trained.
        sites: the virtual hospitals, by name.
        home: the coordinator's, not there yet.
        engine: `process` runs one site after the other here; `ray` runs them side by side in Flower's workers;
            `processes` starts a real coordinator and a real daemon for every site, talking TLS on loopback.
        watch: shows how far the run is.

    Raises:
        InsituError: if the run fails.
    """
    if engine == "processes":
        from simulations.processes import over_processes

        return Finished(*over_processes(job, sites, home, watch=watch))
    home.mkdir(parents=True)
    store = Store(home / "store.sqlite")
    run = store.create_run(job)
    homes = {name: site.home for name, site in sites.items()}
    with watch(store, run):
        if engine == "process":
            _in_process(homes, store, run)
        else:
            from simulations.on_ray import on_ray

            on_ray(homes, store, run)
    return Finished(store, run)


def _in_process(homes: Mapping[str, Path], store: Store, run: str) -> None:
    nodes = dict(enumerate(sorted(homes), start=COORDINATOR + 1))
    grid = InProcessGrid(client.app.app, {node: homes[name] for node, name in nodes.items()})
    store.sites.admit_virtual(nodes)
    config: UserConfig = {"home": str(store.home), "run": run}
    context = Context(run_id=RUN_ID, node_id=COORDINATOR, node_config={}, state=RecordDict(), run_config=config)
    server.app.app(grid, context)
