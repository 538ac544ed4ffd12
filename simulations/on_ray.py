"""The same apps on Flower's own engine, which runs the sites side by side in Ray's workers.

Ray starts a dashboard process even where none is asked for. All that one does is to ask the clouds' metadata services
where it runs and to report to Ray's makers, if only that reports are switched off; so it is not started.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ray._private.services
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

import client.app
import server.app
from server.store import Store
from shared import console

_NODES = "nodes.json"

# What Ray itself returns where its dashboard could not be started: no address and no process.
ray._private.services.start_api_server = lambda *_, **__: (None, None)


class _ClientAppAtHome(ClientApp):
    """The hospitals' ClientApp, told its home: Ray's workers know a node by its number only."""

    def __init__(self, nodes: Path) -> None:
        super().__init__()
        self._nodes = nodes

    def __call__(self, message: Message, context: Context) -> Message:
        homes = json.loads(self._nodes.read_text())
        context.node_config["home"] = homes[str(context.node_id)]
        return client.app.app(message, context)


def on_ray(homes: Mapping[str, Path], store: Store, run: str) -> None:
    """Conduct a run.

    Args:
        homes: of the virtual hospitals, by name.
        store: of their coordinator; the sites are admitted to it under the numbers that Flower gives them.
        run: submitted to it.

    Raises:
        InsituError: as the ServerApp does.
    """
    nodes_file = store.home.resolve() / _NODES
    failures: list[BaseException] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        while len(node_ids := sorted(grid.get_node_ids())) < len(homes):  # Flower starts us before its nodes
            time.sleep(0.05)
        nodes = dict(zip(node_ids, sorted(homes), strict=True))
        nodes_file.write_text(json.dumps({str(node): str(homes[name].resolve()) for node, name in nodes.items()}))
        store.sites.admit_virtual(nodes)
        context.run_config = {"home": str(store.home), "run": run}
        try:
            server.app.app(grid, context)
        except BaseException as error:  # Flower's engine would only log it
            failures.append(error)

    with _ended_by_an_interrupt():
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


@contextmanager
def _ended_by_an_interrupt() -> Iterator[None]:
    """Ctrl-C ends this process as it stands, and within seconds Ray's: Flower would wait for the ServerApp's thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(console.INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
