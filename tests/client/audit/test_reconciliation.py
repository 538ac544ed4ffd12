"""The record against the ledger and the replies that are kept: what was charged left, and what left was charged."""

import pytest
from recording import JOB, decided, faults, head, lines, rewrite, site_at, untrusted, update

from client.audit import Record, heads
from client.audit.verification import verify
from client.ledger import Ledger, Round, acceptance
from client.replies import Replies
from client.site import DatasetRules
from shared import arrays, networks
from shared.messages import Figures, TrainRequest, Update

CHARGE = (20.0, 0.1, 10)


@pytest.fixture
def site(tmp_path):
    return site_at(tmp_path / "home", datasets={"data": DatasetRules(epsilon=100.0)})


def of(number: int, **given) -> Round:
    return Round(**({"job": JOB, "name": "lesions", "run": "run-1", "number": number, "model": "m" * 64} | given))


class Rounds:
    """Charges, records and settles rounds, as `client.work` does."""

    def __init__(self, site) -> None:
        self.ledger, self.record = Ledger(site), Record(site)

    def charge(self, number: int, *splits: str, **given) -> tuple[tuple[int, str], ...]:
        numbers = [
            self.ledger.reserve("data", CHARGE, of=of(number, **given), planned=10, split=split) for split in splits
        ]
        links = self.ledger.read().links
        return tuple((number, links[number]) for number in numbers)

    def release(self, number: int, *splits: str, settle: bool = True, **given) -> tuple[tuple[int, str], ...]:
        charges = self.charge(number, *splits)
        numbers = {"dice": 0.5} if "validation" in splits or "test" in splits else {}
        facts = {"private": True, "norm": 1.0, "numbers": numbers, "charges": charges, "epsilon": 1.0} | given
        self.record.append(update(number, **facts))
        if settle:
            self.ledger.settle(of(number))
        return charges


@pytest.fixture
def rounds(site) -> Rounds:
    return Rounds(site)


def test_rounds_that_were_charged_recorded_and_settled_agree(site, rounds):
    rounds.release(1, "train")
    rounds.release(2, "train", "validation")
    rounds.release(3, "test", message="Figures", norm=0.0)
    rounds.record.append(update(2, again=True, private=True, norm=0.0))
    rounds.release(4, "train", settle=False)  # killed before it could settle
    rounds.charge(5, "train")  # killed before it could release
    rounds.record.append(update(6, private=True, norm=0.0, numbers={}))  # no step was taken
    rounds.record.append(update(7, private=True, message="Figures", norm=0.0, numbers={}))  # over budget
    findings = verify(site)
    assert (findings.faults, findings.notes) == ([], [])


def test_a_charge_that_was_answered_and_is_in_no_entry_is_found(site, rounds):
    rounds.release(1, "train")
    rounds.charge(2, "train")
    rounds.ledger.settle(of(2))
    assert "charge 3 of the ledger was answered (round 2 of run run-1)" in faults(site)[None]


def test_a_record_cut_short_together_with_its_head_is_found_by_the_ledger_and_by_an_earlier_head(site, rounds):
    rounds.release(1, "train")
    rounds.release(2, "train")
    noted = head(site)
    rewrite(site, [line.encoded()[:-1] for line in lines(site)[:-1]])
    heads.write(site.witness, lines(site)[-1].head, durable=False)
    assert "round 2 of run run-1" in faults(site)[None]
    assert "is not here" in faults(site, earlier=noted)[3]


@pytest.mark.parametrize(
    ("given", "split"),
    [
        ({"norm": 1.0, "numbers": {}}, "train"),
        ({"norm": 0.0, "numbers": {"dice": 0.5}}, "validation"),
        ({"norm": 0.0, "numbers": {"dice": 0.5}, "message": "Figures"}, "test"),
    ],
)
def test_a_release_under_privacy_that_names_no_charge_is_found(site, rounds, given, split):
    rounds.record.append(update(1, private=True, **given))
    assert f"names no charge to its {split} patients" in faults(site)[2]


def test_a_charge_to_other_patients_pays_for_nothing(site, rounds):
    rounds.release(1, "validation", settle=False)
    assert "no charge to its train patients" in faults(site)[2]


def test_a_charge_that_pays_for_two_releases_is_found(site, rounds):
    charges = rounds.release(1, "train")
    rounds.record.append(update(1, private=True, norm=1.0, numbers={}, charges=charges, content="e" * 64))
    assert "paid for entry 2 already" in faults(site)[3]


def test_a_charge_that_is_not_in_the_ledger_is_found(site, rounds):
    ((number, link),) = rounds.release(1, "train")
    for charge in ((number, "0" * 64), (99, link)):
        rounds.record.append(update(1, private=True, norm=1.0, numbers={}, charges=(charge,)))
    found = faults(site)
    assert all("not in the ledger" in found[entry] for entry in (3, 4))


def test_a_charge_of_another_round_is_found(site, rounds):
    charges = rounds.charge(1, "train")
    rounds.record.append(update(2, private=True, norm=1.0, numbers={}, charges=charges))
    assert "of another round" in faults(site)[2]


def test_a_release_without_privacy_needs_no_charge(site, rounds):
    rounds.record.append(update(1))
    assert faults(site) == {}


def test_a_ledger_that_is_not_trusted_is_a_fault(site, rounds):
    rounds.release(1, "train")
    (site.home / "ledger.sqlite").unlink()
    assert "is not trusted" in faults(site)[None]


def test_charges_that_an_accepted_ledger_has_lost_are_a_note(site, rounds):
    rounds.release(1, "train")
    rounds.release(2, "train")
    (site.home / "ledger.sqlite").unlink()
    ledger = Ledger(site)
    acceptance.accept(ledger, acceptance.examine(ledger), reason="disk", at_least={}, datasets=["data"])
    findings = verify(site)
    assert findings.faults == []
    assert "2 charges" in findings.notes[0]
    rounds.release(3, "train")
    assert verify(site).faults == []
    rounds.record.append(update(4, private=True, norm=1.0, numbers={}, charges=((99, "0" * 64),)))
    assert "not in the ledger" in faults(site)[5]


def test_what_was_answered_before_there_was_a_record_is_a_note(site, rounds):
    rounds.charge(1, "train")
    rounds.ledger.settle(of(1))
    rounds.release(2, "train")
    findings = verify(site)
    assert findings.faults == []
    assert "up to number 2" in findings.notes[0]


def test_a_reply_sent_again_that_was_never_sent_is_found(site, rounds):
    rounds.record.append(update(1))
    rounds.record.append(update(1, again=True))
    assert faults(site) == {}
    rounds.record.append(update(2, again=True))
    assert "sent before is not recorded" in faults(site)[4]


@pytest.mark.parametrize("kind", [Update, Figures])
def test_a_kept_reply_that_is_not_in_the_record_is_found(site, rounds, job, kind):
    from shared.messages import content_digest

    model = arrays.of_network(networks.build(job))
    request = TrainRequest(job=job, run="run-1", round=1, model=model)
    numbers = {"dice": 0.125}
    reply = Update(round=1, model=model, numbers=numbers) if kind is Update else Figures(numbers=numbers)
    rounds.record.append(decided())
    Replies(site).keep(request, arrays.digest(model), reply)
    (found,) = [fault for fault in verify(site).faults if "kept reply" in fault.what]
    assert "remove it" in found.do
    rounds.record.append(update(1, content=content_digest(reply)))
    assert faults(site) == {}
    (next((site.home / "replies").glob("*/*"))).write_bytes(b"damaged: never sent")
    assert faults(site) == {}


def test_nothing_is_recorded_before_the_record_is_trusted(site, rounds):
    rounds.release(1, "train")
    (site.witness / "record").unlink()
    untrusted(rounds.record.append, update(2))
