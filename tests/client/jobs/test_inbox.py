"""A yes is for one job and so many runs of it, and a no stands; no message makes the list grow for ever."""

import stat
import threading

import pytest

from client.jobs import Inbox
from client.jobs import inbox as module
from client.site import Site, SiteConfig
from shared.errors import BadInput, InsituError, RefusalCode, Refused


@pytest.fixture
def site(tmp_path) -> Site:
    return Site.create(tmp_path / "home", SiteConfig(name="north", durable=False))


@pytest.fixture
def inbox(site) -> Inbox:
    return Inbox(site)


def refusal(inbox, job, run="run-1", rule=None) -> RefusalCode:
    with pytest.raises(Refused) as refused:
        inbox.admit(job, run, rule=rule)
    return refused.value.code


def test_a_job_waits_until_the_operator_says_yes(inbox, job):
    assert refusal(inbox, job) is RefusalCode.PENDING
    (entry,) = inbox.entries()
    assert (entry.state, entry.job.digest, entry.runs) == ("pending", job.digest, {})
    inbox.approve(job, runs=1, reason="ethics board")
    assert inbox.admit(job, "run-1", rule=None) == "operator"
    assert inbox.admit(job, "run-1", rule=None) is None  # the same run, once more
    (entry,) = inbox.entries()
    assert (entry.state, entry.by, entry.reason, entry.runs) == (
        "approved",
        "operator",
        "ethics board",
        {"run-1": "operator"},
    )


def test_a_yes_is_for_so_many_runs(inbox, job):
    assert refusal(inbox, job) is RefusalCode.PENDING
    inbox.approve(job, runs=2, reason="")
    inbox.admit(job, "run-1", rule=None)
    inbox.admit(job, "run-2", rule=None)
    with pytest.raises(Refused, match="a further run") as refused:
        inbox.admit(job, "run-3", rule=None)
    assert refused.value.code is RefusalCode.PENDING
    assert inbox.admit(job, "run-1", rule=None) is None  # those under way are not disturbed
    inbox.approve(job, runs=1, reason="")
    assert inbox.admit(job, "run-3", rule=None) == "operator"
    assert refusal(inbox, job, "run-4") is RefusalCode.PENDING


def test_a_changed_job_is_another_job(inbox, job):
    refusal(inbox, job)
    inbox.approve(job, runs=5, reason="")
    inbox.admit(job, "run-1", rule=None)
    changed = job.varied(federation={"rounds": job.federation.rounds + 1})
    assert refusal(inbox, changed, "run-1") is RefusalCode.PENDING


def test_a_no_stands_against_rules_and_runs_until_the_operator_says_yes(inbox, job):
    assert inbox.admit(job, "run-1", rule=1) == "rule 1"
    assert not inbox.revoked(job)
    inbox.revoke(job, reason="complaint")
    assert inbox.revoked(job)
    assert refusal(inbox, job, "run-1", rule=1) is RefusalCode.REVOKED
    assert refusal(inbox, job, "run-2", rule=1) is RefusalCode.REVOKED
    inbox.approve(job, runs=1, reason="")
    assert not inbox.revoked(job)
    assert inbox.admit(job, "run-1", rule=None) is None
    assert inbox.admit(job, "run-2", rule=None) == "operator"


def test_a_no_takes_back_the_runs_that_had_not_begun(inbox, job):
    refusal(inbox, job)
    inbox.approve(job, runs=10, reason="")
    inbox.revoke(job, reason="")
    inbox.approve(job, runs=1, reason="")
    inbox.admit(job, "run-1", rule=None)
    assert refusal(inbox, job, "run-2") is RefusalCode.PENDING


def test_a_no_is_seen_by_another_process_at_once(site, inbox, job):
    inbox.admit(job, "run-1", rule=1)
    operators = Inbox(site)
    operators.revoke(job, reason="")
    assert inbox.revoked(job)
    operators.approve(job, runs=1, reason="")
    assert not inbox.revoked(job)


def test_a_rule_lets_every_run_in_and_says_that_it_did(inbox, job):
    assert inbox.admit(job, "run-1", rule=2) == "rule 2"
    assert inbox.admit(job, "run-2", rule=2) == "rule 2"
    (entry,) = inbox.entries()
    assert (entry.by, entry.runs) == ("rule 2", {"run-1": "rule 2", "run-2": "rule 2"})
    # Once the rule is gone, the runs it let in go on, and others wait.
    assert inbox.admit(job, "run-1", rule=None) is None
    assert refusal(inbox, job, "run-3") is RefusalCode.PENDING


def test_what_the_policy_refused_is_shown_and_only_the_last_of_it_is_remembered(inbox, job, monkeypatch):
    monkeypatch.setattr(module, "MOST_REFUSED", 3)
    jobs = [job.varied(training={"seed": seed}) for seed in range(6)]
    for refused in jobs:
        inbox.answered(refused, RefusalCode.TASK, "the policy says no")
    shown = inbox.entries()
    assert {entry.job.training.seed for entry in shown} == {3, 4, 5}
    assert all((entry.state, entry.code, entry.detail) == ("refused", "task", "the policy says no") for entry in shown)


def test_what_the_operator_decided_is_never_forgotten(inbox, job, monkeypatch):
    monkeypatch.setattr(module, "MOST_REFUSED", 2)
    refusal(inbox, job)
    inbox.revoke(job, reason="no")
    for seed in range(1, 9):
        inbox.answered(job.varied(training={"seed": seed}), RefusalCode.TASK, "")
    assert inbox.find(job.digest[:12]).state == "revoked"


def test_only_so_many_jobs_wait_and_the_next_is_told_so(inbox, job, monkeypatch):
    monkeypatch.setattr(module, "MOST_PENDING", 3)
    jobs = [job.varied(training={"seed": seed}) for seed in range(5)]
    assert [refusal(inbox, one) for one in jobs] == [RefusalCode.PENDING] * 3 + [RefusalCode.INBOX_FULL] * 2
    assert len(inbox.entries()) == 3
    inbox.revoke(jobs[0], reason="")
    assert refusal(inbox, jobs[3]) is RefusalCode.PENDING


def test_a_flood_of_runs_does_not_make_the_file_grow_for_ever(site, inbox, job, monkeypatch):
    monkeypatch.setattr(module, "MOST_RUNS", 5)
    for number in range(5):
        inbox.admit(job, f"run-{number}", rule=1)
    assert refusal(inbox, job, "run-5", rule=1) is RefusalCode.INBOX_FULL
    for number in range(20):
        assert refusal(inbox, job.varied(training={"seed": 1}), f"run-{number}") is RefusalCode.PENDING
    assert inbox.file.stat().st_size < 100_000


def test_an_answer_that_is_the_same_is_not_written_again(inbox, job):
    inbox.answered(job, RefusalCode.TASK, "no")
    before = inbox.file.stat().st_mtime_ns
    inbox.answered(job, RefusalCode.TASK, "no")
    assert inbox.file.stat().st_mtime_ns == before
    inbox.admit(job, "run-1", rule=1)
    inbox.answered(job, None)
    assert inbox.find(job.name).code is None


def test_a_job_is_found_by_name_or_digest_and_never_guessed(inbox, job):
    other = job.varied(training={"seed": 7})
    refusal(inbox, job)
    refusal(inbox, other)
    assert inbox.find(other.digest[:10]).job == other
    with pytest.raises(BadInput, match="2 jobs are called"):
        inbox.find(job.name)
    with pytest.raises(BadInput, match="no job 'other' was offered"):
        inbox.find("other")
    with pytest.raises(BadInput):
        inbox.find(other.digest[:2])


def test_two_processes_never_let_in_more_runs_than_were_approved(site, job):
    first = Inbox(site)
    refusal(first, job)
    first.approve(job, runs=3, reason="")
    let_in = []

    def ask(number: int) -> None:
        inbox = Inbox(site)
        for attempt in range(4):
            try:
                if inbox.admit(job, f"run-{number}-{attempt}", rule=None):
                    let_in.append((number, attempt))
            except Refused:
                pass

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(let_in) == 3


def test_a_no_that_comes_while_a_run_is_being_let_in_stands(site, inbox, job, monkeypatch):
    inbox.admit(job, "run-1", rule=1)
    enter = Inbox._enter

    def late(self, *arguments):
        Inbox(site).revoke(job, reason="")
        return enter(self, *arguments)

    monkeypatch.setattr(Inbox, "_enter", late)
    assert refusal(inbox, job, "run-2", rule=1) is RefusalCode.PENDING
    monkeypatch.undo()
    assert refusal(inbox, job, "run-2", rule=1) is RefusalCode.REVOKED
    assert inbox.find(job.name).runs == {"run-1": "rule 1"}


def test_the_file_is_the_owners_and_a_damaged_one_lets_nobody_in(inbox, job):
    inbox.admit(job, "run-1", rule=1)
    assert stat.S_IMODE(inbox.file.stat().st_mode) == 0o600
    inbox.file.write_bytes(b"no database" * 100)
    for attempt in (lambda: inbox.admit(job, "run-1", rule=1), lambda: inbox.revoked(job)):
        with pytest.raises(InsituError, match=r"jobs\.sqlite"):
            attempt()
