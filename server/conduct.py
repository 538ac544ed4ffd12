"""One run from its row in the store to its final model, however it ends."""

from __future__ import annotations

import logging

from flwr.serverapp import Grid

from server.observers.checkpoint import Checkpoint
from server.observers.record import Record
from server.rounds import Federation
from server.store import Store
from shared import arrays
from shared.errors import InsituError
from shared.networks import build

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
        federation.train(arrays.of_network(build(run.job)))
    except InsituError as error:
        store.set_status(run.id, "failed", str(error))
        raise
    except BaseException as error:
        # The store must say that the run ended, whatever ended it; the log has the rest.
        store.set_status(run.id, "failed", f"the coordinator failed ({type(error).__name__}); its log says more")
        raise
    store.set_status(run.id, "completed")
