"""The operator's decision: what is known counts, what nobody knows counts as spent, and it is written down."""

import multiprocessing
import os
import shutil
import signal
import sqlite3

import pytest
from spending import CHARGE, of, over_budget, reserve, rewrite, untrusted

from client.ledger import acceptance, journal, witness
from client.ledger.acceptance import accept, examine
from client.ledger.entries import Decision
from shared import accounting
from shared.errors import BadInput

REASON = "the disk failed; NN, 3 March"


def decide(ledger, **at_least) -> None:
    accept(ledger, examine(ledger), reason=REASON, at_least=at_least, datasets=["data"])


def decisions(ledger) -> list[Decision]:
    return [entry for entry in ledger.read().entries.values() if isinstance(entry, Decision)]


@pytest.fixture
def old(ledger, tmp_path):
    """The home after one round; two more have been charged since."""
    reserve(ledger)
    shutil.copytree(ledger.site.home, tmp_path / "old")
    reserve(ledger, number=2)
    reserve(ledger, number=2, job="b" * 64, run="other")
    return tmp_path / "old"


def put_back(old, ledger) -> None:
    shutil.copy2(old / "ledger.sqlite", ledger.file)


def delete(old, ledger) -> None:
    ledger.file.unlink()


def damage(old, ledger) -> None:
    ledger.file.write_bytes(ledger.file.read_bytes()[:4096] + bytes(8192))


def edit(old, ledger) -> None:
    database = sqlite3.connect(ledger.file)
    database.execute("UPDATE entries SET body = replace(body, '10', '1') WHERE number = 2")
    database.commit()
    database.close()


def restore(old, ledger) -> None:
    shutil.rmtree(ledger.site.home)
    shutil.copytree(old, ledger.site.home)


def lose_the_witness(old, ledger) -> None:
    shutil.rmtree(ledger.site.witness)


def empty_the_witness(old, ledger) -> None:
    lose_the_witness(old, ledger)
    ledger.site.witness.mkdir()


def lose_both(old, ledger) -> None:
    damage(old, ledger)
    empty_the_witness(old, ledger)


KNOWN = [put_back, delete, damage, edit]
UNKNOWN = [restore, lose_the_witness, empty_the_witness, lose_both]


def test_a_ledger_that_is_trusted_needs_no_decision(ledger):
    assert examine(ledger).trouble is None
    reserve(ledger)
    assert examine(ledger).trouble is None


@pytest.mark.parametrize("lose", KNOWN)
def test_what_the_witness_knows_is_not_lost(ledger, old, lose):
    last, spent = ledger.read().last, ledger.spent("data")
    lose(old, ledger)
    untrusted(ledger)
    findings = examine(ledger)
    assert findings.complete
    decide(ledger)
    assert ledger.history("data") == [(1.0, 0.1, 30)]
    assert ledger.history("data", job="b" * 64) == [CHARGE]
    assert ledger.spent("data") == spent
    assert ledger.rules("data").epsilon == 6.0
    [decision] = decisions(ledger)
    assert (decision.reason, decision.found, decision.presumed) == (REASON, findings.trouble, {})
    assert min(number for number, entry in ledger.read().entries.items() if entry == decision) == last + 1
    reserve(ledger, number=3)
    assert ledger.history("data") == [(1.0, 0.1, 40)]


@pytest.mark.parametrize("lose", UNKNOWN)
def test_what_nobody_knows_counts_as_spent_in_full(ledger, old, lose):
    lose(old, ledger)
    untrusted(ledger)
    assert not examine(ledger).complete
    decide(ledger)
    assert ledger.spent("data") >= 6.0
    over_budget(ledger, charge=(50.0, 0.01, 1))
    over_budget(ledger, charge=(50.0, 0.01, 1), split="test")
    assert decisions(ledger)[0].presumed == {"data": 6.0}
    ledger = rewrite(ledger)
    ledger.raise_budget("data", epsilon=9.0, delta=None, reason="x")
    reserve(ledger, charge=(50.0, 0.01, 1))


@pytest.mark.parametrize("lose", [restore, lose_both])
def test_the_operator_may_say_how_much_counts(ledger, old, lose):
    lose(old, ledger)
    decide(ledger, data=5.0)
    assert 5.0 <= ledger.spent("data") < 5.1
    assert decisions(ledger)[0].presumed == {"data": 5.0}
    over_budget(ledger, charge=(0.8, 0.1, 10))
    reserve(ledger, charge=(50.0, 0.01, 1))


@pytest.mark.parametrize("lose", [put_back, restore])
def test_nothing_that_is_known_can_be_said_away(ledger, old, lose):
    lose(old, ledger)
    known = examine(ledger).known().history("data")
    decide(ledger, data=0.0)
    assert ledger.history("data") == known


def test_of_two_budgets_the_stricter_one_counts(ledger, old):
    rewrite(ledger).raise_budget("data", epsilon=20.0, delta=1e-3, reason="x")
    put_back(old, ledger)
    decide(ledger)
    assert (rewrite(ledger).rules("data").epsilon, rewrite(ledger).rules("data").delta) == (6.0, 1e-5)


def test_a_file_that_cannot_be_read_is_set_aside_with_its_journal(ledger, old):
    ledger.file.write_bytes(b"")
    ledger.file.with_name("ledger.sqlite-journal").write_bytes(b"of the damaged one")
    decide(ledger)
    kept = sorted(ledger.site.home.glob("ledger.sqlite.*"))
    assert [file.read_bytes() for file in kept] == [b"", b"of the damaged one"]
    assert not ledger.file.with_name("ledger.sqlite-journal").exists()


def test_a_second_loss_keeps_the_first_decision(ledger, old):
    put_back(old, ledger)
    decide(ledger)
    delete(old, ledger)
    decide(ledger)
    assert len(decisions(ledger)) == 2
    assert ledger.history("data") == [(1.0, 0.1, 30)]


def test_the_stored_reply_of_a_round_that_is_only_known_in_the_sum_can_be_sent(ledger, old):
    delete(old, ledger)
    decide(ledger)
    ledger.settle(of(2))


def test_a_dataset_that_is_not_there_is_refused(ledger, old):
    put_back(old, ledger)
    with pytest.raises(BadInput, match="no dataset 'dada' here; there are: data"):
        decide(ledger, dada=4.0)
    untrusted(ledger)


def test_where_no_dataset_is_known_there_is_nothing_to_decide(tmp_path, ledger, old):
    lose_both(old, ledger)
    ledger = rewrite(ledger)
    with pytest.raises(BadInput, match="register them first"):
        accept(ledger, examine(ledger), reason=REASON, at_least={}, datasets=[])
    untrusted(ledger)


def die(*args, **kwargs) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(function):
    def call_and_die(*args, **kwargs):
        function(*args, **kwargs)
        die()

    return call_and_die


STEPS = {
    "before a file is set aside": (acceptance, "_set_aside", die),
    "after a file is set aside": (acceptance, "_set_aside", after(acceptance._set_aside)),
    "before the ledger is written": (journal, "save", die),
    "before it is witnessed": (journal, "save", after(journal.save)),
    "before the older witness is gone": (witness, "sync", after(witness.sync)),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("lose", [*KNOWN, *UNKNOWN])
def test_killed_at_any_point_a_decision_is_made_or_not(ledger, old, lose, step):
    lose(old, ledger)
    owner, name, deadly = STEPS[step]

    def decide_and_die() -> None:
        setattr(owner, name, deadly)
        decide(ledger)

    child = multiprocessing.get_context("fork").Process(target=decide_and_die)
    child.start()
    child.join()
    findings = examine(ledger)
    if findings.trouble is not None:
        untrusted(ledger)
        decide(ledger)
    assert ledger.spent("data") >= (6.0 if lose in UNKNOWN else accounting.epsilon([(1.0, 0.1, 30)], delta=1e-5))
    assert decisions(ledger)
