"""The same work on many files, by several processes where there is enough of it to pay for starting them."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from client import logs
from client.data.records import Progress

# A process takes a second or two to start and import. What the work takes is measured on the first pieces of it.
_MEASURED = 200
_WORTH_IT = 8.0  # seconds of work left
_CHUNK = 16
_MOST = 8

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def each(
    work: Callable[[Argument], Result],
    arguments: Sequence[Argument],
    *,
    advance: Callable[[], None] | None = None,
) -> list[Result]:
    """`[work(argument) for argument in arguments]`, telling after each.

    Args:
        work: a function of a module (it is sent to other processes by name).
        arguments: picklable.
        advance: called once for every argument done, in this process.
    """
    tell = advance or (lambda: None)
    results: list[Result] = []
    started = time.monotonic()
    for argument in arguments[:_MEASURED]:
        results.append(work(argument))
        tell()
    rest = arguments[len(results) :]
    expected = len(rest) * (time.monotonic() - started) / max(1, len(results))
    if expected > _WORTH_IT:
        _spread(work, rest, results, tell)
    for argument in arguments[len(results) :]:
        results.append(work(argument))
        tell()
    return results


def _spread(
    work: Callable[[Argument], Result],
    arguments: Sequence[Argument],
    results: list[Result],
    tell: Callable[[], None],
) -> None:
    """Add the results to `results`, as far as processes can be had."""
    workers = min(os.cpu_count() or 1, _MOST)
    if workers == 1 or multiprocessing.current_process().daemon:
        return
    # Never fork: the caller may have threads (torch, gRPC), and a forked child would inherit their locks.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, context, logs.guard_a_worker) as pool:
            for result in pool.map(work, arguments, chunksize=_CHUNK):
                results.append(result)
                tell()
    except BrokenProcessPool:
        # A script without a main guard, too little memory: whoever called does the rest itself.
        return


class Steps:
    """Counts steps over several rounds of work and tells `progress` about them.

    >>> steps = Steps(lambda done, total: print(done, "of", total), total=2)
    >>> steps.advance()
    1 of 2
    """

    def __init__(self, progress: Progress | None, *, total: int) -> None:
        self.progress = progress
        self.total = total
        self.done = 0

    def advance(self) -> None:
        """One more."""
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, max(self.total, self.done))
