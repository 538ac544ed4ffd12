"""A site whose process is killed between storing a reply and sending it: nothing is lost, and nothing is paid twice."""

import pictures
import pytest
from harness import at_will, federation

from client.audit.verification import verify
from client.ledger import Ledger
from client.site import Policy
from shared import arrays, networks, npy
from shared.messages import TrainRequest

pytestmark = pytest.mark.federation

JOB = pictures.JOB


def test_asked_again_after_it_was_killed_sending_a_site_sends_what_it_stored(tmp_path):
    policy = Policy(threads=1)
    request = TrainRequest(job=JOB, run="run-1", round=1, model=arrays.of_network(networks.build(JOB))).pack()
    with (
        federation(tmp_path, sites=("north",), policy=policy, client_app="dying:app", prepare=pictures.give) as fed,
        at_will(fed) as ask,
    ):
        site = fed.sites["north"]
        first = ask(request)
        assert dict(first.content["config"])["code"] == "failed"  # said by the process that came after
        assert fed.status("north")["executor"]["restarts"] == 1
        spent = Ledger(site).history("discs")
        (stored,) = [file for file in site.home.glob("replies/*/*") if not file.name.startswith(".")]
        second = ask(request)
        model = {name: npy.unpack(array) for name, array in second.content["model"].items()}
        kept = arrays.decode(stored.read_bytes())
        assert arrays.digest(model) == arrays.digest(kept)
        assert Ledger(site).history("discs") == spent
        assert not verify(site).faults
