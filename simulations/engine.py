"""Runs a job over virtual hospitals: in this process, or on Flower's Ray engine. The same apps, the same messages."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

import client.app
import server.app
from client.site import Site
from server.store import Store
from shared.job import Job
from simulations.grid import COORDINATOR, RUN_ID, InProcessGrid

Engine = Literal["process", "ray", "processes"]
_NODES = "nodes.json"


def simulate(job: Job, sites: Mapping[str, Site], store: Store, *, engine: Engine = "process") -> str:
    """Run the job to its end; the store and the run's folder have all of it.

    Args:
        job: what is trained.
        sites: the virtual hospitals, by name.
        store: the coordinator's; its sites are replaced by those of this simulation.
        engine: `process` runs one site after the other here; `ray` runs them side by side in workers.

    Returns:
        The run's id in the store.

    Raises:
        InsituError: if the run fails.
    """
    run = store.create_run(job)
    start = _in_process if engine == "process" else _on_ray
    start({name: site.home for name, site in sites.items()}, store, run)
    return run


def _in_process(homes: Mapping[str, Path], store: Store, run: str) -> None:
    nodes = dict(enumerate(sorted(homes), start=COORDINATOR + 1))
    grid = InProcessGrid(client.app.app, {node: homes[name] for node, name in nodes.items()})
    store.replace_sites(nodes)
    server.app.app(grid, _server_context(store, run))


def _server_context(store: Store, run: str) -> Context:
    config = {"home": str(store.home), "run": run}
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
        store.replace_sites(nodes)
        context.run_config = {"home": str(store.home), "run": run}
        try:
            server.app.app(grid, context)
        except BaseException as error:  # Flower's engine would only log it
            failures.append(error)

    silent = {name: value for name, value in os.environ.items() if name.startswith(("FLWR_", "RAY_"))}
    run_simulation(
        server_app=server_app,
        client_app=_ClientAppAtHome(nodes_file),
        num_supernodes=len(homes),
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"include_dashboard": False, "runtime_env": {"env_vars": silent}, "log_to_driver": False},
        },
    )
    if failures:
        raise failures[0]
