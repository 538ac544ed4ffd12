"""One run from its row in the store to its final model; one that broke off goes on after its last round."""

from __future__ import annotations

import logging
from functools import partial

from flwr.serverapp import Grid

from server import algorithms, pretraining
from server.observers import checkpoint
from server.observers.checkpoint import Checkpoint
from server.observers.record import Record
from server.receipts import Receipts
from server.rounds import Federation
from server.store import RunRow, Store
from shared import identity
from shared.arrays import Arrays
from shared.errors import InsituError

log = logging.getLogger(__name__)


def conduct(grid: Grid, store: Store, run_id: str) -> None:
    """Run all rounds; the store says how it ended, the run's folder has the models.

    Raises:
        InsituError: as it ended, after it is in the store.
    """
    run = store.run(run_id)
    algorithm = algorithms.of(run.job)
    federation = Federation(
        grid=grid,
        job=run.job,
        run=run.id,
        sites={site.node_id: name for name, site in store.sites.admitted().items()},
        algorithm=algorithm,
        # The store's row comes last: with it a round is done.
        observers=(Checkpoint(store.folder(run.id), run.job), _receipts(store, run), Record(store, run.id)),
    )
    try:
        model, done = _begin(store, run, algorithm)
        federation.train(model, done=done)
    except InsituError as error:
        store.set_status(run.id, "failed", str(error))
        raise
    except BaseException as error:
        # The store must say that the run ended, whatever ended it; the log has the rest.
        store.set_status(run.id, "failed", f"the coordinator failed ({type(error).__name__}); its log says more")
        raise
    store.set_status(run.id, "completed")


def _receipts(store: Store, run: RunRow) -> Receipts:
    """Signed with the coordinator's key; a simulation has none."""
    folder, key = store.folder(run.id), store.home / "keys" / "server.key"
    if not key.exists():
        return Receipts(folder, run.job, run.id)
    certificate = (store.home / "server.pem").read_text()
    return Receipts(
        folder, run.job, run.id, certificate=certificate, sign=partial(identity.sign, identity.read_private(key))
    )


def _begin(store: Store, run: RunRow, algorithm: algorithms.Algorithm) -> tuple[Arrays, int]:
    """Where the run begins, or goes on: the model, and how many rounds are done."""
    folder, rows = store.folder(run.id), store.rounds(run.id)
    if not rows and not checkpoint.of_round(folder, 0).exists():
        return _initial(store, run), 0
    done, model, state = checkpoint.resume(folder, rows)
    algorithm.restore(state)
    log.info("%s goes on after round %d", run.id, done)
    store.set_status(run.id, "running")
    return model, done


def _initial(store: Store, run: RunRow) -> Arrays:
    def say(done: int) -> None:
        store.set_status(run.id, "running", f"pretraining on phantoms: {done} of {pretraining.STEPS} steps")

    model = pretraining.initial(run.job, say)
    store.set_status(run.id, "running")
    return model
