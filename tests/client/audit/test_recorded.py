"""Whole rounds of a site: what it records by itself agrees with its ledger, with its replies and with what left."""

from flwr.app import RecordDict

from client import work
from client.audit import Released
from client.audit.verification import verify
from client.ledger import Ledger
from shared import arrays, networks
from shared.messages import EvaluateRequest, Offer, Refusal, TrainRequest


def ask(site, kind, request):
    reply = work.answer(site.home, kind, request.pack())
    assert not isinstance(reply, Refusal), (reply, (site.home / "log" / "site.log").read_text())
    return reply


def test_what_the_site_itself_records_agrees_with_its_ledger_and_its_replies(hospital, private_job):
    site = hospital(rules={"epsilon": 1000.0, "delta": 1e-4})
    job = private_job.varied(federation={"evaluate_every": 1})
    ask(site, Offer, Offer(job=job, run="run-1"))
    model = arrays.of_network(networks.build(job))
    for number in (1, 2):
        request = TrainRequest(job=job, run="run-1", round=number, model=model)
        reply = ask(site, TrainRequest, request)
        assert ask(site, TrainRequest, request).numbers == reply.numbers
        model = reply.model
    ask(site, EvaluateRequest, EvaluateRequest(job=job, run="run-1", round=2, model=model))
    assert isinstance(work.answer(site.home, Offer, RecordDict()), Refusal)
    findings = verify(site)
    assert (findings.faults, findings.notes) == ([], [])
    said = [
        (one.entry.kind, getattr(one.entry, "message", ""), getattr(one.entry, "again", False))
        for one in findings.entries
    ]
    assert said == [
        ("began", "", False),
        ("decided", "", False),
        ("released", "Update", False),
        ("released", "Update", True),
        ("released", "Update", False),
        ("released", "Update", True),
        ("released", "Figures", False),
        ("refused", "Offer", False),
    ]
    charged = Ledger(site).read().entries
    released = [one.entry for one in findings.entries if isinstance(one.entry, Released)]
    paid = [[charged[number].split for number, _ in entry.charges] for entry in released]
    assert paid == [["train", "validation"], [], ["train", "validation"], [], ["test"]]
