"""The Flower ServerApp: opens the run it is told to conduct and hands it to the round loop."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.conduct import conduct
from server.store import Store

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Conduct `run` of the coordinator at `home`; both are the run's configuration, written by the coordinator."""
    store = Store(Path(str(context.run_config["home"])) / "store.sqlite")
    conduct(grid, store, str(context.run_config["run"]))
