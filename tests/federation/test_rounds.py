"""Rounds over a real coordinator and real daemons, TLS and all."""

import pytest
from harness import TINY, federation

pytestmark = pytest.mark.federation


def test_three_sites_answer_every_round_and_arrays_arrive_as_they_were_sent(tmp_path, any_job):
    with federation(tmp_path, sites=3, **TINY) as fed:
        fed.plan(rounds=5, sites=3, bytes=400_000, arrays=20)
        run = fed.submit(any_job)
        row = fed.wait(run)
        assert row.status == "completed", row.message
        report = fed.report(run)
        print(report["seconds"])
        assert [len(said) for said in report["replies"]] == [3] * 5
        assert report["model"]["layer7"] == [12.0, 12.0, 5000]
