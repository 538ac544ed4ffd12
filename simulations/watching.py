"""Shows on a progress bar how many rounds of a run are done, from its store, whoever runs them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.progress import Progress

from server.store import Store

_SECONDS = 0.2

Watch = Callable[[Store, str], AbstractContextManager[None]]


def unwatched(store: Store, run: str) -> AbstractContextManager[None]:
    """Shows nothing."""
    return nullcontext()


def on(progress: Progress, label: str) -> Watch:
    """Shows a bar under this label while the run goes on."""

    @contextmanager
    def watch(store: Store, run: str) -> Iterator[None]:
        total = store.run(run).job.federation.rounds
        task = progress.add_task(label, total=total)
        done = threading.Event()

        def look() -> None:
            while not done.wait(_SECONDS):
                row = store.run(run)
                progress.update(task, completed=len(store.rounds(run)), description=f"{label} {row.message}".rstrip())

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield
            progress.update(task, completed=total, description=label)
        finally:
            done.set()
            watcher.join()

    return watch
