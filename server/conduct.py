"""One run from its row in the store to its final model, however it ends."""

from __future__ import annotations

import logging

from flwr.serverapp import Grid

from server import pretraining
from server.observers.checkpoint import Checkpoint
from server.observers.record import Record
from server.rounds import Federation
from server.store import RunRow, Store
from shared.arrays import Arrays
from shared.errors import InsituError

log = logging.getLogger(__name__)


def conduct(grid: Grid, store: Store, run_id: str) -> None:
    """Run all rounds; the store says how it ended, the run's folder has the models.

    Raises:
        InsituError: as it ended, after it is in the store.
    """
    run = store.run(run_id)
    federation = Federation(
        grid=grid,
        job=run.job,
        run=run.id,
        sites={site.node_id: name for name, site in store.sites().items()},
        observers=(Checkpoint(store.folder(run.id), run.job), Record(store, run.id)),
    )
    try:
        federation.train(_initial(store, run))
    except InsituError as error:
        store.set_status(run.id, "failed", str(error))
        raise
    except BaseException as error:
        # The store must say that the run ended, whatever ended it; the log has the rest.
        store.set_status(run.id, "failed", f"the coordinator failed ({type(error).__name__}); its log says more")
        raise
    store.set_status(run.id, "completed")


def _initial(store: Store, run: RunRow) -> Arrays:
    def say(done: int) -> None:
        store.set_status(run.id, "running", f"pretraining on phantoms: {done} of {pretraining.STEPS} steps")

    model = pretraining.initial(run.job, say)
    store.set_status(run.id, "running")
    return model
