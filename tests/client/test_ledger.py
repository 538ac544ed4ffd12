"""The ledger: every dataset over all jobs, on the disk before anything is spent, never above the budget."""

import multiprocessing
import os
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.ledger import Ledger, Round
from client.site import DatasetRules, Site, SiteConfig
from shared import accounting
from shared.errors import RefusalCode, Refused

CHARGE = (1.0, 0.1, 10)  # ε = 2.86 at δ = 1e-5, .90 at 1e-2; seven of them 5.98 at 1e-5


def site_at(home: Path, **datasets: dict) -> Site:
    rules = {name: DatasetRules(**given) for name, given in datasets.items()}
    return Site.create(home, SiteConfig(name="north", datasets=rules))


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    return Ledger(site_at(tmp_path / "home", data={"epsilon": 6.0, "delta": 1e-5}))


def of(number=1, job="a" * 64, run="run") -> Round:
    return Round(job=job, run=run, number=number, model="m" * 64)


def reserve(ledger, charge=CHARGE, dataset="data", planned=0, **which) -> int:
    return ledger.reserve(dataset, charge, of=of(**which), planned=planned)


def over_budget(ledger, *args, **kwargs) -> None:
    with pytest.raises(Refused) as refused:
        reserve(ledger, *args, **kwargs)
    assert refused.value.code == RefusalCode.OVER_BUDGET
    assert "data" in refused.value.detail


def test_a_new_dataset_has_spent_nothing(ledger):
    assert ledger.history("data") == []
    assert ledger.spent("data") == 0


def test_charges_of_all_jobs_and_runs_add_up(ledger):
    for job, run in (("a" * 64, "one"), ("a" * 64, "two"), ("b" * 64, "one")):
        reserve(ledger, job=job, run=run)
    assert ledger.history("data") == [(1.0, 0.1, 30)]
    assert ledger.history("data", job="a" * 64) == [(1.0, 0.1, 20)]
    assert ledger.history("data", job="a" * 64, run="two") == [(1.0, 0.1, 10)]
    assert ledger.spent("data") == accounting.epsilon([(1.0, 0.1, 30)], delta=1e-5)
    assert ledger.spent("data", 1e-3) < ledger.spent("data")


def test_what_would_exceed_the_budget_is_refused_and_not_charged(ledger):
    while accounting.within([*ledger.history("data"), CHARGE], delta=1e-5, epsilon=6.0):
        reserve(ledger)
    spent = ledger.spent("data")
    assert spent <= 6.0
    over_budget(ledger)
    over_budget(ledger, planned=10**6)
    with pytest.raises(Refused):
        ledger.check("data", CHARGE, planned=10)
    assert ledger.spent("data") == spent
    reserve(ledger, charge=(50.0, 0.01, 1))  # what still fits still does


def test_a_job_that_does_not_fit_whole_trains_the_rounds_that_fit(ledger):
    for number in range(1, 8):
        reserve(ledger, planned=1000, number=number)
    over_budget(ledger, planned=1000, number=8)
    assert ledger.spent("data") == pytest.approx(5.98, abs=0.01)


def test_the_same_round_again_is_another_charge(ledger):
    assert reserve(ledger) != reserve(ledger)
    assert ledger.history("data") == [(1.0, 0.1, 20)]


def test_datasets_have_budgets_of_their_own(tmp_path):
    ledger = Ledger(site_at(tmp_path / "home", data={"epsilon": 3.0, "delta": 1e-5}, other={"epsilon": 3.0}))
    reserve(ledger)
    over_budget(ledger)
    reserve(ledger, dataset="other")
    assert ledger.history("other") == [(1.0, 0.1, 10)]


def test_the_budget_is_counted_at_the_datasets_own_delta(tmp_path):
    assert accounting.epsilon([CHARGE], delta=1e-2) < 1.5 < accounting.epsilon([CHARGE], delta=1e-5)
    reserve(Ledger(site_at(tmp_path / "lenient", data={"epsilon": 1.5, "delta": 1e-2})))
    over_budget(Ledger(site_at(tmp_path / "strict", data={"epsilon": 1.5, "delta": 1e-5})))


def test_charges_outlive_the_process_that_made_them(ledger):
    def die() -> None:
        reserve(ledger)
        os._exit(9)

    child = multiprocessing.get_context("fork").Process(target=die)
    child.start()
    child.join()
    assert child.exitcode == 9
    assert ledger.history("data") == [(1.0, 0.1, 10)]


def test_two_processes_cannot_spend_the_same_budget(ledger):
    def spend() -> None:
        for _ in range(20):
            try:
                reserve(ledger)
            except Refused:
                return

    children = [multiprocessing.get_context("fork").Process(target=spend) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert 5 < ledger.spent("data") <= 6.0


def test_settling_changes_no_sum(ledger):
    ledger.settle(reserve(ledger))
    assert ledger.history("data") == [(1.0, 0.1, 10)]


@pytest.mark.parametrize("contents", [b"", b"not a database" * 100, None])
def test_a_ledger_that_cannot_be_trusted_stops_everything(ledger, contents):
    reserve(ledger)
    if contents is None:
        whole = ledger.file.read_bytes()
        contents = whole[:4096] + bytes(len(whole) - 4096)  # pages lost, header kept
    ledger.file.write_bytes(contents)
    for ask in (lambda: reserve(ledger), lambda: ledger.history("data"), lambda: ledger.spent("data")):
        with pytest.raises(Refused) as refused:
            ask()
        assert refused.value.code == RefusalCode.LEDGER


def test_another_programs_database_is_no_ledger(ledger):
    database = sqlite3.connect(ledger.file)
    database.execute("CREATE TABLE charges (a)")
    database.close()
    with pytest.raises(Refused, match="not a ledger"):
        reserve(ledger)


def test_a_ledger_whose_rows_were_spoilt_is_not_trusted(ledger):
    reserve(ledger)
    database = sqlite3.connect(ledger.file)
    database.execute("PRAGMA ignore_check_constraints = 1")
    database.execute("UPDATE charges SET sample_rate = 7")
    database.commit()
    database.close()
    with pytest.raises(Refused) as refused:
        reserve(ledger)
    assert refused.value.code == RefusalCode.LEDGER


def test_only_its_owner_may_read_it(ledger):
    reserve(ledger)
    assert ledger.file.stat().st_mode & 0o077 == 0


charges = st.tuples(st.sampled_from([0.7, 1.0, 2.0]), st.sampled_from([0.05, 0.2]), st.integers(0, 40))


@settings(max_examples=8, deadline=None)
@given(st.lists(charges, max_size=6))
def test_what_is_spent_never_falls_and_never_exceeds_the_budget(wanted):
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(site_at(Path(folder) / "home", data={"epsilon": 5.0, "delta": 1e-4}))
        history, spent = [], 0.0
        for charge in wanted:
            if accounting.within([*history, charge], delta=1e-4, epsilon=5.0):
                reserve(ledger, charge=charge)
                history.append(charge)
            else:
                over_budget(ledger, charge=charge)
            now = ledger.spent("data")
            assert spent - 2e-3 <= now <= 5.0  # the numerical bound's grid moves a little
            spent = now
        assert accounting.epsilon(history, delta=1e-4) == spent
