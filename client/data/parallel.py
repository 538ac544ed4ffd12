"""The same work on many files, by two or more processes where there are enough files to pay for starting them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from client.data.records import Progress

# A process takes a second or two to start and import; a file one to three milliseconds to decode.
_WORTH_IT = 1500
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
    results: list[Result] = []
    workers = min(os.cpu_count() or 1, _MOST)
    if len(arguments) >= _WORTH_IT and workers > 1 and not multiprocessing.current_process().daemon:
        # Never fork: the caller may have threads (torch, gRPC), and a forked child would inherit their locks.
        context = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(workers, mp_context=context) as pool:
                for result in pool.map(work, arguments, chunksize=_CHUNK):
                    results.append(result)
                    if advance is not None:
                        advance()
        except BrokenProcessPool:
            # No processes to be had here (a script without a main guard, too little memory): the rest is done here.
            pass
    for argument in arguments[len(results) :]:
        results.append(work(argument))
        if advance is not None:
            advance()
    return results


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
