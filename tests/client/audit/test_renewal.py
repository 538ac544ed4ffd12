"""A record that is not trusted: set aside by the operator's decision, and the one after it says so for ever."""

import multiprocessing
import os
import signal

import pytest
from recording import decided, faults, filled, head, lines, rewrite, untrusted, update

from client.audit import Record, heads, renewal
from client.audit.entries import parsed
from client.audit.verification import verify
from client.ledger import Ledger, Round
from shared import errors

SPOILS = {
    "the last entries are missing": lambda site: rewrite(site, raws(site)[:-2]),
    "an entry is changed": lambda site: rewrite(site, [*raws(site)[:2], b"{}", *raws(site)[3:]]),
    "the file is gone": lambda site: (site.home / "record.jsonl").unlink(),
    "the head is gone": lambda site: (site.witness / "record").unlink(),
    "the head is damaged": lambda site: (site.witness / "record").write_bytes(b"x"),
    "the key is gone": lambda site: (site.home / "keys" / "record.pem").unlink(),
    "all of it is gone": lambda site: [
        path.unlink()
        for path in (site.home / "record.jsonl", site.witness / "record", site.home / "keys" / "record.pem")
    ],
}


def raws(site) -> list[bytes]:
    return (site.home / "record.jsonl").read_bytes().splitlines()


def first(site):
    return parsed.validate_json(lines(site)[0].body)


@pytest.mark.parametrize("spoil", SPOILS)
def test_after_the_operators_decision_another_record_begins_that_says_why(site, spoil):
    filled(site, 6)
    SPOILS[spoil](site)
    before = (site.home / "record.jsonl").read_bytes() if (site.home / "record.jsonl").exists() else None
    assert faults(site)
    accepted = renewal.accept(site, reason="disk replaced; NN")
    assert accepted == head(site)
    assert faults(site) == {}
    began = first(site)
    assert began.reason == "disk replaced; NN"
    assert began.found
    assert began.policy == Record(site).policy
    if spoil != "all of it is gone":
        assert began.after.number == 6
        assert lines(site)[0].number == 7
    assert any("begun anew" in note for note in verify(site).notes)
    aside = [path.read_bytes() for path in site.home.glob("record.jsonl.*.untrusted")]
    assert aside == ([] if before is None else [before])
    assert Record(site).append(update()) == accepted.number + 1
    assert faults(site) == {}


def test_what_is_missing_after_it_is_found_as_before(site):
    filled(site, 6)
    rewrite(site, raws(site)[:-1])
    renewal.accept(site, reason="x")
    Record(site).append(update())
    Record(site).append(decided())
    rewrite(site, [raws(site)[0], raws(site)[2]])
    assert list(faults(site)) == [8]
    rewrite(site, raws(site)[1:])
    assert 1 in faults(site)


def test_an_earlier_head_is_where_the_old_record_ended_or_it_is_said_where_to_look(site):
    filled(site, 6)
    old = head(site)
    middle = lines(site)[2].head
    rewrite(site, raws(site)[:-1])
    renewal.accept(site, reason="x")
    assert faults(site, earlier=old) == {}
    assert "begun anew after entry 6" in faults(site, earlier=middle)[3]


def test_nothing_is_set_aside_where_nothing_is_wrong(site):
    filled(site, 6)
    assert renewal.accept(site, reason="x") is None
    assert not list(site.home.glob("*.untrusted"))


def test_the_ledger_is_decided_first(site):
    record = filled(site, 3)
    ledger = Ledger(site)
    of = Round(job="a" * 64, name="lesions", run="run-1", number=1, model="m" * 64)
    ledger.reserve("data", (20.0, 0.1, 10), of=of, planned=10)
    ledger.settle(of)
    assert None in faults(site)  # settled, and not recorded
    ledger.file.rename(ledger.file.with_name("aside"))
    with pytest.raises(errors.Refused) as found:
        renewal.accept(site, reason="x")
    assert found.value.code == "ledger"
    ledger.file.with_name("aside").rename(ledger.file)
    renewal.accept(site, reason="it was the old version")
    assert faults(site) == {}
    assert first(site).settled == 2
    assert record.append(update()) == 5


@pytest.mark.parametrize("point", ["_set_aside", "write_atomically", "heads.put"])
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_point_the_same_command_does_the_rest(site, point, after):
    filled(site, 6)
    rewrite(site, raws(site)[:-1])
    owner, name = (heads, "put") if point == "heads.put" else (renewal, point)

    def work() -> None:
        function = getattr(owner, name)

        def called(*args, **given):
            if after:
                function(*args, **given)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, called)
        renewal.accept(site, reason="x")

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    if faults(site):
        untrusted(Record(site).append, update())
        renewal.accept(site, reason="once more")
    assert faults(site) == {}
    assert Record(site).append(update()) == lines(site)[0].number + 1
