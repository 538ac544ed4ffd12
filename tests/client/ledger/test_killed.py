"""A round in a process that is killed at any point: what has left was charged, and is answered again for nothing."""

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable

import pytest

from client import opened, replies, training, work
from client.audit.verification import verify
from client.egress import Door
from client.ledger import Ledger, journal, witness
from client.replies import Replies
from client.training.private import PatientOptimizer
from shared import arrays, networks
from shared.messages import TrainRequest, Update


def die(*args, **kwargs) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner, name: str, *, time: int = 1) -> Callable[[], None]:
    """Arranges that the process is killed when this is called, at the first time or another."""
    return _at(owner, name, time, kill_before=True)


def after(owner, name: str, *, time: int = 1) -> Callable[[], None]:
    """The same, when it has been called."""
    return _at(owner, name, time, kill_before=False)


def _at(owner, name: str, time: int, *, kill_before: bool) -> Callable[[], None]:
    def arrange() -> None:
        function, calls = getattr(owner, name), []

        def called(*args, **kwargs):
            calls.append(name)
            if kill_before and len(calls) == time:
                die()
            result = function(*args, **kwargs)
            if len(calls) == time:
                die()
            return result

        setattr(owner, name, called)

    return arrange


def once_saved(arrange: Callable[[], None]) -> Callable[[], None]:
    """Arranges the same for when the ledger is written: a new home has a witness before."""

    def later() -> None:
        save = journal.save

        def saved(*args, **kwargs):
            save(*args, **kwargs)
            arrange()

        journal.save = saved

    return later


def at_the_commit() -> None:
    class Connection(sqlite3.Connection):
        commit = die

    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **kwargs: connect(*args, **kwargs, factory=Connection)


def half_a_reply() -> None:
    def write(path, data, **kwargs):
        path.with_name(f".{path.name}.1").write_bytes(data[: len(data) // 2])
        die()

    replies.write_atomically = write


# Where the process is killed: (how, whether the round is in the ledger then, whether its reply is stored).
POINTS = {
    "before it is reserved": (before(Ledger, "reserve"), False, False),
    "before the ledger is written": (before(journal, "save"), False, False),
    "in the middle of writing it": (at_the_commit, False, False),
    "between the ledger and its witness": (after(journal, "save"), True, False),
    "between the witness and its disk": (once_saved(before(witness, "sync")), True, False),
    "between the witness and the older one": (once_saved(after(witness, "sync")), True, False),
    "when it is reserved": (after(Ledger, "reserve"), True, False),
    "in training": (after(PatientOptimizer, "take"), True, False),
    "after training": (after(training, "train"), True, False),
    "before it is recorded": (before(Door, "_record"), True, False),
    "when it is recorded": (after(Door, "_record"), True, False),
    "before the reply is stored": (before(Replies, "keep"), True, False),
    "in the middle of storing it": (half_a_reply, True, False),
    "when the reply is stored": (after(Replies, "keep"), True, True),
    "before that is noted": (before(journal, "save", time=2), True, True),
    "when that is noted": (after(Ledger, "settle"), True, True),
    "before it is sent": (after(work, "handle"), True, True),
}


def train(job, number: int) -> TrainRequest:
    return TrainRequest(job=job, run="run-1", round=number, model=arrays.of_network(networks.build(job)))


def ask(site, request) -> dict[str, bytes]:
    """What leaves the site, name by name."""
    reply = work.answer(site.home, TrainRequest, request.pack())
    assert isinstance(reply, Update), (site.home / "log" / "site.log").read_text()
    return {name: array.tobytes() for name, array in reply.model.items()}


def charges(site) -> list[bool]:
    """Of each charge of the dataset, whether its reply is stored."""
    books = Ledger(site).read()
    return [number in books.settled for number, _ in books.charges("data")]


@pytest.mark.parametrize("rounds_before", [0, 1])
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_nothing_is_released_unpaid_and_nothing_is_paid_twice(
    hospital, private_job, point, rounds_before
):
    arrange, is_charged, is_stored = POINTS[point]
    site = hospital(rules={"epsilon": 1000.0, "delta": 1e-4})
    job = private_job.varied(federation={"rounds": 9, "evaluate_every": 0})
    for number in range(rounds_before):
        ask(site, train(job, number + 1))
    request = train(job, rounds_before + 1)

    def round_in_a_child() -> None:
        opened._sites._values.clear()
        arrange()
        ask(site, request)

    child = multiprocessing.get_context("fork").Process(target=round_in_a_child)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    stored = [file for file in site.home.glob("replies/*/*") if not file.name.startswith(".")]
    assert len(stored) == rounds_before + is_stored
    assert len(charges(site)) == rounds_before + is_charged  # on the disk, and trusted
    opened._sites._values.clear()
    reply = ask(site, request)
    if is_stored:
        kept = arrays.decode(max(stored, key=os.path.getmtime).read_bytes())
        assert reply == {name: array.tobytes() for name, array in kept.items()}
    assert charges(site) == [True] * rounds_before + [False] * (is_charged and not is_stored) + [True]
    assert ask(site, request) == reply
    assert len(charges(site)) == rounds_before + 1 + (is_charged and not is_stored)
    ask(site, train(job, rounds_before + 2))
    assert len(list(site.witness.glob("*.json"))) == 1
    assert not verify(site).faults
