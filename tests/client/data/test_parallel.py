import math
import os

import pytest

from client.data import parallel
from client.data.parallel import Steps, each


def test_results_come_in_order_and_every_step_is_told():
    told = []
    steps = Steps(lambda done, total: told.append((done, total)), total=500)
    assert each(math.sqrt, range(500), advance=steps.advance) == [math.sqrt(n) for n in range(500)]
    assert told == [(n, 500) for n in range(1, 501)]


def test_much_work_is_spread_over_processes_with_the_same_results(monkeypatch):
    if os.cpu_count() == 1:
        pytest.skip("one processor: nothing to spread over")
    monkeypatch.setattr(parallel, "_WORTH_IT", 0.0)
    monkeypatch.setattr(parallel, "_MEASURED", 5)
    assert each(abs, range(-50, 0)) == list(range(50, 0, -1))
    processes = set(each(eval, ["__import__('os').getpid()"] * 60))
    assert len(processes) > 1


def test_what_goes_wrong_in_a_process_is_raised_here(monkeypatch):
    monkeypatch.setattr(parallel, "_WORTH_IT", 0.0)
    monkeypatch.setattr(parallel, "_MEASURED", 1)
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        each(math.sqrt, [1.0, 2.0, -1.0])


def test_nothing_to_do_is_nothing():
    assert each(math.sqrt, []) == []
