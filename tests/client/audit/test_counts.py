"""However many messages are refused, the record grows by a bounded number of entries, and says how many there were."""

import json

from recording import JOB, OTHER, decided, faults, lines, refusal, update

from client.audit import Record, counts
from client.audit.entries import parsed
from client.audit.verification import verify


def entries(site, kind: str):
    return [entry for line in lines(site) if (entry := parsed.validate_json(line.body)).kind == kind]


def answers(site) -> int:
    """All refusals that the record or the counts know of."""
    summed = [count.times for entry in entries(site, "counted") for count in entry.answers]
    return len(entries(site, "refused")) + sum(summed) + sum(count.times for count in verify(site).pending)


def test_the_same_refusal_is_written_once_an_hour_and_counted_meanwhile(site):
    record = Record(site)
    numbers = [
        record.append(refusal("pending", "Offer", job=JOB, name="lesions", time=1000.0 + at)) for at in range(100)
    ]
    assert numbers == [2] + [0] * 99
    assert [(count.times, count.job) for count in verify(site).pending] == [(99, JOB)]
    assert record.append(refusal("pending", "Offer", job=JOB, name="lesions", time=5000.0)) == 4
    [summed] = entries(site, "counted")
    assert summed.since == 1000.0
    assert [(count.times, count.code, count.name) for count in summed.answers] == [(99, "pending", "lesions")]
    assert answers(site) == 101
    assert faults(site) == {}


def test_other_refusals_of_the_hour_have_entries_of_their_own(site):
    record = Record(site)
    for given in ({}, {"job": JOB}, {"job": OTHER}, {"code": "over_budget"}, {"message": "Offer"}):
        assert record.append(refusal(**given, time=1000.0))
        assert not record.append(refusal(**given, time=1001.0))


def test_a_flood_of_different_messages_grows_the_record_by_sixty_entries_an_hour(site):
    record = Record(site)
    for number in range(800):
        record.append(
            refusal(["malformed", "epsilon_limit"][number % 2], job=f"{number:064x}", name="x", time=1000.0 + number)
        )
    assert len(lines(site)) == 1 + counts.ENTRIES_AN_HOUR
    assert answers(site) == 800
    for number in range(800):
        record.append(refusal(job=f"{number:064x}", time=10_000.0 + number))
    assert len(lines(site)) == 2 + 2 * counts.ENTRIES_AN_HOUR
    assert answers(site) == 1600
    assert (site.home / "record.counts").stat().st_size < 64_000
    assert (site.home / "record.counts").stat().st_mode & 0o777 == 0o600
    assert max(len(line.body) for line in lines(site)) < 64_000
    assert faults(site) == {}


def test_what_leaves_for_the_first_time_and_what_is_decided_is_always_written(site):
    record = Record(site)
    for _ in range(100):
        assert record.append(update(time=1000.0))
        assert record.append(decided(time=1000.0))


def test_a_stored_reply_that_is_asked_for_again_and_again_is_counted(site):
    record = Record(site)
    record.append(update(time=1000.0))
    assert [bool(record.append(update(again=True, time=1000.0))) for _ in range(5)] == [True] + [False] * 4
    assert [(count.message, count.code, count.times) for count in verify(site).pending] == [("Update", None, 4)]
    record.append(decided(time=9000.0))
    assert [count.times for count in entries(site, "counted")[0].answers] == [4]
    assert verify(site).pending == []
    assert faults(site) == {}


def test_the_counts_outlive_the_process_and_the_next_entry_of_any_kind_writes_them(site):
    for _ in range(4):
        Record(site).append(refusal(time=1000.0))
    assert not entries(site, "counted")
    Record(site).append(update(time=4700.0))
    assert [count.times for count in entries(site, "counted")[0].answers] == [3]
    assert not (site.home / "record.counts").exists()


def test_a_clock_that_was_put_back_ends_the_hour(site):
    record = Record(site)
    for at in (5000.0, 5001.0, 1000.0):
        record.append(refusal(time=at))
    assert len(entries(site, "counted")) == 1
    assert answers(site) == 3


def test_counts_that_cannot_be_understood_are_begun_anew(site):
    record = Record(site)
    record.append(refusal())
    for garbage in (b"", b"\xff", b"[]", json.dumps({"since": "x"}).encode()):
        (site.home / "record.counts").write_bytes(garbage)
        assert record.append(refusal())
    assert faults(site) == {}
