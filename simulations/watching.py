"""Shows on a progress bar how many rounds of the newest run are done, from the store, whoever runs them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import Progress

from server.store import Store
from shared.job import Job

_SECONDS = 0.2


@contextmanager
def watched(progress: Progress, store: Store, job: Job, label: str) -> Iterator[None]:
    """Advance a bar for the next run of this job while the block runs."""
    task = progress.add_task(label, total=job.federation.rounds)
    before = len(store.runs())
    done = threading.Event()

    def look() -> None:
        while not done.wait(_SECONDS):
            runs = store.runs()
            if len(runs) > before:
                progress.update(task, completed=len(store.rounds(runs[0].id)))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
        progress.update(task, completed=job.federation.rounds)
    finally:
        done.set()
        watcher.join()
