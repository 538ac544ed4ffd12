"""A process that is killed while it writes to the record: what it acted on is there, and the record is whole."""

import multiprocessing
import os
import random
import signal
import time

import pytest
from recording import decided, faults, filled, lines, refusal, site_at, update

from client.audit import Record, counts, files, heads
from client.audit.entries import Mended, parsed
from client.site import Site

FORK = multiprocessing.get_context("fork")


def killed(work) -> None:
    child = FORK.Process(target=work)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def die(*args, **kwargs) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half_a_line() -> None:
    def write(handle, data, **given):
        os.write(handle, data[: len(data) // 2])
        die()

    files.write = write


def all_but_its_end() -> None:
    def write(handle, data, **given):
        os.write(handle, data[:-1])
        die()

    files.write = write


def before_the_line() -> None:
    files.write = die


def before_the_head() -> None:
    heads.write = die


POINTS = [half_a_line, all_but_its_end, before_the_line, before_the_head]


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("arrange", POINTS)
def test_killed_at_any_point_the_record_goes_on(site, arrange, before):
    filled(site, before + 1)

    def work() -> None:
        arrange()
        Record(Site.open(site.home)).append(update(99))

    killed(work)
    assert faults(site) == {}
    assert Record(site).troubles() == []
    record = Record(Site.open(site.home))
    number = record.append(update(100))
    assert number == len(lines(site))
    assert parsed.validate_json(lines(site)[-1].body).round == 100
    assert faults(site) == {}


def test_killed_twice_before_the_head_the_record_goes_on(site):
    filled(site, 3)
    for number in (4, 5):

        def work(number: int = number) -> None:
            write = heads.write
            heads.write = lambda folder, head, **given: die() if head.number == number else write(folder, head, **given)
            Record(Site.open(site.home)).append(update())

        killed(work)
    assert len(lines(site)) == 5
    assert faults(site) == {}
    assert Record(site).append(decided()) == 6


def test_killed_between_the_sum_and_the_end_of_its_hour_nothing_is_counted_twice(site):
    record = Record(site)
    for _ in range(5):
        record.append(refusal(time=1000.0))

    def work() -> None:
        counts.forget = die
        Record(Site.open(site.home)).append(refusal(time=9000.0))

    killed(work)
    record.append(refusal(time=9001.0))
    sums = [entry for line in lines(site) if (entry := parsed.validate_json(line.body)).kind == "counted"]
    assert [sum(count.times for count in entry.answers) for entry in sums] == [4]


def writes_until_it_is_killed(home, said) -> None:
    record = Record(Site.open(home))
    for number in range(10**6):
        record.append(update(number, run=f"run-{os.getpid()}"))
        os.write(said, f"{os.getpid()} {number}\n".encode())


@pytest.mark.parametrize("durable", [True, False])
def test_killed_many_times_at_random_everything_acted_on_is_there_and_in_order(tmp_path, durable):
    site = site_at(tmp_path / "home", durable=durable)
    choose = random.Random(4)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    acted: list[bytes] = []
    for _ in range(25):
        children = [FORK.Process(target=writes_until_it_is_killed, args=(site.home, writing)) for _ in range(2)]
        for child in children:
            child.start()
        time.sleep(choose.uniform(0.005, 0.06))
        for child in children:
            os.kill(child.pid, signal.SIGKILL)
        for child in children:
            child.join()
        try:
            while data := os.read(reading, 2**20):
                acted.append(data)
        except BlockingIOError:
            pass
        assert faults(site) == {}
    Record(site).append(decided())
    found = [parsed.validate_json(line.body) for line in lines(site)]
    recorded = [f"{entry.run.removeprefix('run-')} {entry.round}" for entry in found if entry.kind == "released"]
    said = b"".join(acted).decode().split("\n")[:-1]
    assert len(said) > 100
    assert set(said) <= set(recorded)
    assert len(recorded) == len(set(recorded))
    assert not [entry for entry in found if isinstance(entry, Mended) and entry.bytes > 2000]
