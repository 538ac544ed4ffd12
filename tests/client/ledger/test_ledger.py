"""The ledger: every dataset over all jobs, on the disk before anything is spent, never above the budget."""

import multiprocessing
import os
import sqlite3

import pytest
from spending import CHARGE, of, over_budget, refused, reserve, rewrite, site_at, untrusted

from client.ledger import Ledger
from shared import accounting
from shared.errors import BadInput, RefusalCode, Refused


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


def test_a_job_that_does_not_fit_whole_is_not_begun(ledger):
    ledger.check("data", CHARGE, planned=7 * CHARGE[2])
    refused(RefusalCode.OVER_BUDGET, ledger.check, "data", CHARGE, planned=8 * CHARGE[2])
    assert ledger.history("data") == []


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
    reserve(ledger)
    ledger.settle(of())
    assert ledger.history("data") == [(1.0, 0.1, 10)]


def test_what_is_settled_is_the_last_charge_of_the_round(ledger):
    numbers = [reserve(ledger), reserve(ledger), reserve(ledger, number=2)]
    ledger.settle(of())
    ledger.settle(of())
    assert ledger.read().settled == {numbers[1]}


def test_a_round_that_was_never_charged_cannot_be_settled(ledger):
    reserve(ledger)
    assert "knows of no such round" in refused(RefusalCode.LEDGER, ledger.settle, of(number=2))


def test_the_splits_of_a_dataset_are_other_patients_and_have_the_budget_each(ledger):
    for number in range(1, 8):
        reserve(ledger, number=number)
    over_budget(ledger)
    assert ledger.history("data", split="test") == []
    reserve(ledger, split="test")
    ledger.check("data", CHARGE, planned=0, split="test")
    assert ledger.history("data") == [(1.0, 0.1, 70)]
    assert ledger.history("data", split="test") == [(1.0, 0.1, 10)]
    assert ledger.spent("data") == accounting.epsilon([(1.0, 0.1, 70)], delta=1e-5)


@pytest.mark.parametrize("contents", [b"", b"not a database" * 100, None])
def test_a_ledger_that_cannot_be_trusted_stops_everything(ledger, contents):
    reserve(ledger)
    if contents is None:
        whole = ledger.file.read_bytes()
        contents = whole[:4096] + bytes(len(whole) - 4096)  # pages lost, header kept
    ledger.file.write_bytes(contents)
    assert "budget accept" in untrusted(ledger)


def test_another_programs_database_is_no_ledger(ledger):
    database = sqlite3.connect(ledger.file)
    database.execute("CREATE TABLE entries (a)")
    database.close()
    assert "not a ledger" in refused(RefusalCode.LEDGER, reserve, ledger)


def test_a_ledger_that_cannot_be_opened_is_not_called_damaged(ledger):
    reserve(ledger)
    ledger.file.unlink()
    ledger.file.mkdir()
    said = refused(RefusalCode.LEDGER, reserve, ledger)
    assert "cannot be read or written" in said
    assert "accept" not in said


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE entries SET body = replace(body, '\"steps\":10', '\"steps\":1') WHERE number = 2",
        "UPDATE entries SET body = replace(body, '\"run\"', '\"walk\"') WHERE number = 2",
        "DELETE FROM entries WHERE number = 2",
        "DELETE FROM entries WHERE number = 1",
        "UPDATE entries SET number = 40 WHERE number = 4",
        "UPDATE entries SET number = -1 WHERE number = 4",
        "INSERT INTO entries SELECT 9, body, link FROM entries WHERE number = 2",
        "DROP TABLE settled",
    ],
)
def test_an_entry_that_was_edited_taken_out_or_put_in_is_noticed(ledger, spoil):
    for number in (1, 2, 3):
        reserve(ledger, number=number)
    database = sqlite3.connect(ledger.file)
    database.execute(spoil)
    database.commit()
    database.close()
    untrusted(ledger)


def test_the_budget_is_what_site_toml_said_when_the_dataset_was_first_charged(ledger):
    assert ledger.rules("data").epsilon == 6.0
    changed = rewrite(ledger, data={"epsilon": 7.0, "delta": 1e-4, "jobs": ("x-*",)})
    assert changed.rules("data").epsilon == 7.0  # nothing is charged yet
    reserve(ledger)
    rules = changed.rules("data")
    assert (rules.epsilon, rules.delta, rules.jobs) == (6.0, 1e-5, ("x-*",))


def test_site_toml_may_lower_a_budget_at_any_time_and_does_not_raise_it(ledger):
    reserve(ledger)
    lower = rewrite(ledger, data={"epsilon": 2.0, "delta": 1e-6})
    assert (lower.rules("data").epsilon, lower.rules("data").delta) == (2.0, 1e-6)
    over_budget(lower)
    assert lower.troubles() == []
    higher = rewrite(ledger, data={"epsilon": 60.0, "delta": 1e-2})
    for number in range(2, 8):
        reserve(higher, number=number)
    said = over_budget(higher)
    assert "[datasets.data] epsilon = 60 and delta = 0.01 does not count" in said
    assert "budget raise data" in said
    assert higher.troubles() == [said[said.index("site.toml") :]]
    assert higher.spent("data") <= 6.0


def test_a_budget_of_which_site_toml_says_nothing_stays_as_it_was(ledger):
    reserve(ledger)
    assert rewrite(ledger).rules("data").epsilon == 6.0
    assert rewrite(ledger, data={"jobs": ("x",)}).rules("data").delta == 1e-5


def test_raising_a_budget_is_recorded_and_counts_at_once(ledger):
    for number in range(1, 8):
        reserve(ledger, number=number)
    ledger = rewrite(ledger, data={"epsilon": 9.0, "delta": 1e-5})
    over_budget(ledger)
    ledger.raise_budget("data", epsilon=9.0, delta=None, reason="ethics board, 3 March")
    reserve(ledger, number=8)
    budget = ledger.read().budget("data")
    assert (budget.epsilon, budget.delta, budget.reason) == (9.0, 1e-5, "ethics board, 3 March")
    assert ledger.troubles() == []


@pytest.mark.parametrize(
    "raised",
    [
        {"epsilon": 5.0, "delta": None},
        {"epsilon": 6.0, "delta": None},
        {"epsilon": 9.0, "delta": 1e-6},
        {"epsilon": 9.0, "delta": 1.0},
        {"epsilon": float("nan"), "delta": None},
        {"epsilon": float("inf"), "delta": None},
    ],
)
def test_what_is_no_raise_is_refused(ledger, raised):
    reserve(ledger)
    with pytest.raises(BadInput):
        ledger.raise_budget("data", **raised, reason="x")
    assert ledger.rules("data").epsilon == 6.0


def test_there_is_nothing_to_raise_before_the_first_charge(ledger):
    reserve(ledger, dataset="other")
    with pytest.raises(BadInput, match=r"site\.toml.*charged: other"):
        ledger.raise_budget("data", epsilon=9.0, delta=None, reason="x")


def test_to_look_makes_no_file(ledger):
    assert ledger.history("data") == []
    assert ledger.troubles() == []
    assert not ledger.file.exists()


def test_only_its_owner_may_read_it(ledger):
    reserve(ledger)
    assert ledger.file.stat().st_mode & 0o077 == 0
