"""A run whose coordinator, process or sites are killed goes on after its last round, to the same model."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pictures
import pytest
from harness import federation, until

from client.audit.verification import verify
from client.ledger import Ledger
from client.site import Policy
from shared import arrays

pytestmark = pytest.mark.federation

JOB = pictures.JOB.without_privacy().varied(
    training={"local_steps": 20}, federation={"rounds": 6, "algorithm": "fedavgm", "momentum": 0.5}
)
PRIVATE = pictures.JOB.varied(training={"local_steps": 20}, federation={"rounds": 4})


def _prepare(site) -> None:
    pictures.give(site, epsilon=1e4)


@pytest.fixture(scope="module")
def fed(tmp_path_factory):
    policy = Policy(threads=1, privacy_required=False, min_sites=1)
    with federation(
        tmp_path_factory.mktemp("resuming"), sites=("north", "south"), policy=policy, prepare=_prepare
    ) as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed(fed) -> str:
    """The digest of the model that the job comes to if nothing happens."""
    run = fed.submit(JOB)
    assert fed.wait(run).status == "completed"
    return digest(fed, run)


def digest(fed, run: str) -> str:
    return arrays.digest(arrays.load(fed.home.store.folder(run) / "model.safetensors"))


def after_round(fed, run: str, number: int) -> None:
    until(lambda: len(fed.home.store.rounds(run)) >= number, 90, f"round {number}")


def server_app(fed) -> int:
    """The process of the run under way: the child of the coordinator that holds the run's log open."""
    parent = fed.coordinator.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for child in map(int, children):
        for handle in Path(f"/proc/{child}/fd").iterdir():
            if "discs-" in os.path.basename(os.path.realpath(handle)):
                return child
    raise AssertionError("no run's process")


def kill_coordinator(fed) -> None:
    fed.coordinator.process.kill()
    fed.coordinator.process.wait()
    fed.start_coordinator()


def stop_coordinator(fed) -> None:
    assert fed.coordinator.stop() == 0
    fed.start_coordinator()


def kill_server_app(fed) -> None:
    os.kill(server_app(fed), signal.SIGKILL)


def kill_executor(fed) -> None:
    os.kill(fed.status("north")["executor"]["pid"], signal.SIGKILL)


def kill_daemon(fed) -> None:
    fed.daemons["north"].process.kill()
    fed.daemons["north"].process.wait()
    fed.start_site("north")


def kill_all(fed) -> None:
    for running in [*fed.daemons.values(), fed.coordinator]:
        running.process.kill()
    for running in [*fed.daemons.values(), fed.coordinator]:
        running.process.wait()
    fed.start_coordinator()
    for name in fed.sites:
        fed.start_site(name)


def _chaos(kill):
    return pytest.param(kill, marks=pytest.mark.chaos)


@pytest.mark.parametrize(
    "kill",
    [
        kill_coordinator,
        kill_server_app,
        *map(_chaos, (stop_coordinator, kill_executor, kill_daemon, kill_all)),
    ],
)
def test_whatever_is_killed_the_run_ends_with_the_model_of_an_undisturbed_one(fed, undisturbed, kill):
    run = fed.submit(JOB)
    after_round(fed, run, 2)
    kill(fed)
    row = fed.wait(run, 240)
    assert row.status == "completed", row.message + fed.logs()
    rounds = fed.home.store.rounds(run)
    assert [row.round for row in rounds] == [1, 2, 3, 4, 5, 6]
    assert [row.contributed for row in rounds] == [("north", "south")] * 6
    assert digest(fed, run) == undisturbed
    receipts = fed.folder / f"{run}.jsonl"
    assert command(fed, "receipts", run, "--out", str(receipts)).returncode == 0
    assert len(receipts.read_text().splitlines()) == 6
    for site in fed.sites.values():
        client = str(Path(sys.executable).with_name("insitu-client"))
        checked = subprocess.run(
            [client, "audit", "check", str(receipts), "--home", str(site.home), "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert all(row["agrees"] for row in json.loads(checked.stdout)["rounds"])


def test_under_privacy_no_round_that_was_answered_is_paid_for_twice(fed):
    run = fed.submit(PRIVATE)
    after_round(fed, run, 1)
    kill_coordinator(fed)
    row = fed.wait(run, 240)
    assert row.status == "completed", row.message + fed.logs()
    for site in fed.sites.values():
        books = Ledger(site).read()
        charges = list(books.charges("discs", job=PRIVATE.digest))
        assert len(charges) == PRIVATE.federation.rounds
        assert all(number in books.settled for number, _ in charges)
        assert not verify(site).faults


def command(fed, *arguments: str) -> subprocess.CompletedProcess:
    program = str(Path(sys.executable).with_name("insitu-server"))
    return subprocess.run(
        [program, *arguments, "--home", str(fed.home.path)], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_run_that_is_stopped_ends_and_does_not_go_on(fed):
    run = fed.submit(JOB.varied(federation={"rounds": 1000}))
    after_round(fed, run, 1)
    assert command(fed, "stop", run, "--reason", "a mistake").returncode == 0
    row = fed.wait(run, 30)
    assert (row.status, row.message) == ("stopped", "a mistake")
    assert command(fed, "stop", run).returncode == 2
    stop_coordinator(fed)
    time.sleep(1)
    assert fed.home.store.run(run).status == "stopped"
    shown = json.loads(command(fed, "show", run, "--json").stdout)
    assert shown["status"] == "stopped"
