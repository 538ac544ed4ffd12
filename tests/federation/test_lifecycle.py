"""Processes that end, well or badly, and what becomes of the others."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import TINY, alive, federation, until

from client.site import Site, SiteConfig
from server.home import Home, ServerConfig

pytestmark = pytest.mark.federation


def _command(side: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name(f"insitu-{side}")
    return subprocess.run([command, *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def fed(tmp_path_factory):
    with federation(tmp_path_factory.mktemp("lifecycle"), sites=("north", "south"), **TINY) as running:
        yield running


def _completes(fed, job, sites: int = 2, **plan) -> dict:
    fed.plan(rounds=1, sites=sites, **plan)
    run = fed.submit(job)
    row = fed.wait(run)
    assert row.status == "completed", row.message + fed.logs()
    return fed.report(run)


def test_a_home_in_use_is_refused_to_a_second_daemon_and_a_second_coordinator(fed):
    second = _command("client", "start", "--home", str(fed.sites["north"].home))
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "already running on this home" in second.stderr
    second = _command("server", "start", "--home", str(fed.home.path))
    assert second.returncode == 2
    assert "already running on this home" in second.stderr


def test_status_says_what_a_running_daemon_does(fed, any_job):
    _completes(fed, any_job)
    status = _command("client", "status", "--home", str(fed.sites["north"].home))
    assert status.returncode == 0
    assert "north: running since" in status.stdout
    assert f"connected to 127.0.0.1:{fed.home.config.port}" in status.stdout
    assert "last answered 'train' of round 0" in status.stdout


def test_an_executor_that_dies_of_a_message_is_replaced_and_the_message_is_refused(fed, any_job):
    before = fed.status("north")["executor"]["pid"]
    report = _completes(fed, any_job, orders="crash")
    assert {tuple(said["config"].values())[-1] for said in report["replies"][0].values()} == {"failed"}
    assert report["seconds"][0] < 45  # the lease of a task is 60
    status = fed.connected("north")
    assert status["executor"]["pid"] != before
    assert status["executor"]["last_exit"] == 7
    assert status["supernode"]["restarts"] == 0
    assert not fed.sites["north"].home.joinpath("state", "unanswered.json").exists()
    assert len(_completes(fed, any_job)["replies"][0]) == 2


def test_a_supernode_that_is_killed_comes_back_though_its_lease_still_runs(fed, any_job):
    status = fed.status("north")
    executor = status["executor"]
    os.kill(status["supernode"]["pid"], signal.SIGKILL)
    until(lambda: fed.status("north")["supernode"]["restarts"] > 0, what="a new SuperNode")
    until(lambda: fed.status("north")["problem"], 60, what="being refused while the lease runs")
    assert "for up to a minute" in fed.status("north")["problem"]
    status = fed.connected("north", 120)
    assert status["executor"] == executor
    assert len(_completes(fed, any_job)["replies"][0]) == 2


def test_a_coordinator_that_is_killed_leaves_nothing_running_and_the_sites_find_the_next_one(fed, any_job):
    fed.plan(rounds=10**6, sites=2)
    unfinished = fed.submit(any_job)
    until(lambda: fed.home.store.run(unfinished).status == "running", what="running")
    before = {name: fed.status(name)["supernode"]["pid"] for name in fed.sites}
    children = _children(fed.coordinator.process.pid)
    assert children
    fed.coordinator.process.kill()
    fed.coordinator.process.wait()
    until(lambda: not any(map(alive, children)), what="the end of its processes")
    fed.plan(rounds=1, sites=2)
    fed.start_coordinator()
    assert fed.wait(unfinished).status == "completed"  # it went on by itself
    assert len(_completes(fed, any_job)["replies"][0]) == 2
    assert {name: fed.connected(name)["supernode"]["pid"] for name in fed.sites} == before


def test_a_run_submitted_while_no_coordinator_runs_begins_with_the_next_one(fed, any_job):
    assert fed.coordinator.stop() == 0
    assert fed.home.running() is None
    fed.plan(rounds=1, sites=2)
    run = fed.submit(any_job)
    fed.start_coordinator()
    assert fed.wait(run).status == "completed"


def _children(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_daemon_takes_its_processes_with_it(fed, how):
    daemon = fed.daemons["south"]
    if daemon.process.poll() is not None:
        fed.start_site("south")
        fed.connected("south", 120)
        daemon = fed.daemons["south"]
    children = _children(daemon.process.pid)
    assert len(children) == 2
    daemon.process.send_signal(how)
    code = daemon.process.wait(30)
    assert code == (-signal.SIGKILL if how == signal.SIGKILL else 0)
    until(lambda: not any(map(alive, children)), what="the end of its processes")
    status = _command("client", "status", "--home", str(fed.sites["south"].home))
    assert status.returncode == 0
    assert "south: not running" in status.stdout


def test_a_daemon_without_a_coordinator_or_a_key_says_what_is_missing(tmp_path):
    site = Site.create(tmp_path / "lonely", SiteConfig(name="lonely"))
    started = _command("client", "start", "--home", str(site.home))
    assert (started.returncode, started.stderr.count("\n")) == (2, 1)
    assert "[coordinator] is missing" in started.stderr


def test_a_port_in_use_is_said_in_one_line(tmp_path, fed):
    home = Home.create(tmp_path / "h", ServerConfig(host="localhost", listen="127.0.0.1", port=fed.home.config.port))
    started = _command("server", "start", "--home", str(home.path))
    assert (started.returncode, started.stderr.count("\n")) == (1, 1)
    assert "cannot listen on 127.0.0.1" in started.stderr
