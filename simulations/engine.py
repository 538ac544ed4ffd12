"""Runs a job over virtual hospitals: in this process, or on Flower's Ray engine. The same apps, the same messages."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

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
_NODES = "nodes.json"


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
    start = _in_process if engine == "process" else _on_ray
    with watch(store, run):
        start({name: site.home for name, site in sites.items()}, store, run)
    return Finished(store, run)


def _in_process(homes: Mapping[str, Path], store: Store, run: str) -> None:
    nodes = dict(enumerate(sorted(homes), start=COORDINATOR + 1))
    grid = InProcessGrid(client.app.app, {node: homes[name] for node, name in nodes.items()})
    _admit(store, nodes)
    server.app.app(grid, _server_context(store, run))


def _admit(store: Store, nodes: Mapping[int, str]) -> None:
    for node, name in nodes.items():
        store.admit(name, node_id=node, public_key=f"none: {name} is virtual")


def _server_context(store: Store, run: str) -> Context:
    config: UserConfig = {"home": str(store.home), "run": run}
    return Context(run_id=RUN_ID, node_id=COORDINATOR, node_config={}, state=RecordDict(), run_config=config)


class _ClientAppAtHome(ClientApp):
    """The hospitals' ClientApp, told its home: Ray's workers know a node by its number only."""

    def __init__(self, nodes: Path) -> None:
        super().__init__()
        self._nodes = nodes

    def __call__(self, message: Message, context: Context) -> Message:
        homes = json.loads(self._nodes.read_text())
        context.node_config["home"] = homes[str(context.node_id)]
        return client.app.app(message, context)


def _on_ray(homes: Mapping[str, Path], store: Store, run: str) -> None:
    from flwr.simulation import run_simulation

    nodes_file = store.home.resolve() / _NODES
    failures: list[BaseException] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        while len(node_ids := sorted(grid.get_node_ids())) < len(homes):  # Flower starts us before its nodes
            time.sleep(0.05)
        nodes = dict(zip(node_ids, sorted(homes), strict=True))
        nodes_file.write_text(json.dumps({str(node): str(homes[name].resolve()) for node, name in nodes.items()}))
        _admit(store, nodes)
        context.run_config = {"home": str(store.home), "run": run}
        try:
            server.app.app(grid, context)
        except BaseException as error:  # Flower's engine would only log it
            failures.append(error)

    run_simulation(
        server_app=server_app,
        client_app=_ClientAppAtHome(nodes_file),
        num_supernodes=len(homes),
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"include_dashboard": False, "log_to_driver": False},
        },
    )
    if failures:
        raise failures[0]
