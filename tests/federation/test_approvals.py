"""A hospital's yes and no over real processes: a run waits for it, and a no stops what is being trained."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pictures
import pytest
from harness import federation, until

from client.site import Approval, Policy

pytestmark = pytest.mark.federation

JOB = pictures.JOB.without_privacy().varied(training={"local_steps": 2}, federation={"rounds": 2, "evaluate_every": 1})


def _prepare(site) -> None:
    if site.name == "south":
        site.config = site.config.model_copy(update={"approve": (Approval(),)})
        site.write_config()
    pictures.give(site, patients=40)


@pytest.fixture(scope="module")
def fed(tmp_path_factory):
    policy = Policy(threads=1, privacy_required=False, min_sites=1)
    folder = tmp_path_factory.mktemp("approvals")
    with federation(folder, sites=("north", "south"), policy=policy, approve=(), prepare=_prepare) as running:
        yield running


def command(side: str, home: Path, *arguments: str) -> str:
    program = str(Path(sys.executable).with_name(f"insitu-{side}"))
    done = subprocess.run(
        [program, *arguments, "--home", str(home)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def standings(fed, run: str) -> dict[str, str]:
    shown = json.loads(command("server", fed.home.path, "show", run, "--json"))
    return {site: one["standing"] for site, one in shown["standings"].items()}


def test_a_run_waits_for_the_hospital_and_begins_when_it_says_yes(fed):
    north = fed.sites["north"].home
    run = fed.submit(JOB)
    until(lambda: len(fed.home.store.standings(run)) == 2, 60, "both answered")
    assert standings(fed, run) == {"north": "pending", "south": "accepted"}
    assert "pending" in command("server", fed.home.path, "show", run)
    assert "wait for your word" in command("client", north, "status")
    assert "discs" in command("client", north, "jobs")
    time.sleep(2)
    assert fed.home.store.run(run).status == "running"
    assert fed.home.store.rounds(run) == []
    command("client", north, "approve", "discs", "--reason", "test")
    assert fed.wait(run).status == "completed"
    assert standings(fed, run) == {"north": "accepted", "south": "accepted"}
    assert [row.contributed for row in fed.home.store.rounds(run)] == [("north", "south")] * 2
    assert set(fed.home.store.figures(run)) == {"north", "south"}


def test_a_no_stops_what_is_being_trained_and_the_run_goes_on_without(fed):
    north = fed.sites["north"].home
    long = JOB.varied(training={"local_steps": 500}, federation={"rounds": 2, "min_sites": 1, "evaluate_every": 0})
    (north.parent / "job.toml").write_text(long.to_toml())
    command("client", north, "approve", str(north.parent / "job.toml"))
    run = fed.submit(long)
    until(lambda: (fed.status("north").get("working") or {}).get("type") == "train", 60, "training at north")
    command("client", north, "revoke", long.digest[:12], "--reason", "complaint")
    assert fed.wait(run).status == "completed"
    rounds = fed.home.store.rounds(run)
    assert all("south" in row.contributed for row in rounds)
    assert rounds[-1].missing == {"north": "revoked"}
    entries = json.loads(command("client", north, "audit", "--json"))
    assert [entry["what"] for entry in entries if entry["kind"] == "decided"][-3:] == [
        "approved",
        "admitted",
        "revoked",
    ]
    command("client", north, "audit", "verify")
