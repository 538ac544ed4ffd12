"""From three empty folders to a model, by nothing but the commands: what an operator types is typed here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pictures
import pytest
import tomli_w
from harness import free_port, start, until

from client import state
from client.ledger import Ledger
from client.site import Site
from shared import accounting, arrays
from shared.job import Job
from simulations.engine import simulate

pytestmark = pytest.mark.federation

SITES = {"north": 60.0, "south": 90.0, "west": 120.0}


def command(side: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its exit code is checked."""
    done = subprocess.run(
        [Path(sys.executable).with_name(f"insitu-{side}"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == code, f"{done.args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A coordinator and three hospitals with data, made and started by commands."""
    folder = tmp_path_factory.mktemp("commands")
    coordinator = folder / "coordinator"
    port = free_port()
    command("server", "init", "--home", coordinator, "--host", "127.0.0.1", "--port", port)
    running = []
    try:
        for number, (name, brightness) in enumerate(SITES.items()):
            pictures.write(folder / "data" / name, patients=70, brightness=brightness, seed=number)
            site = folder / name
            address = ("--coordinator", f"127.0.0.1:{port}", "--ca", coordinator / "ca.pem")
            made = command("client", "init", name, "--home", site, *address)
            admitted = command("server", "admit", name, site / "keys" / "site.pub", "--home", coordinator)
            # The two operators compare what they see.
            assert made.stderr.split("compare: ")[1] == admitted.stderr.split("sees: ")[1]
            command("client", "data", "add", "data", folder / "data" / name / "manifest.csv", "--home", site)
            _allow(site, "privacy_required", "false")
            with (site / "site.toml").open("a") as file:
                file.write("\n[[approve]]\n")  # every job that the policy allows
        server = Path(sys.executable).with_name("insitu-server")
        running.append(start([str(server), "start", "--home", str(coordinator)], folder / "server.log"))
        for name in SITES:
            client = Path(sys.executable).with_name("insitu-client")
            running.append(start([str(client), "start", "--home", str(folder / name)], folder / f"{name}.log"))
        for name in SITES:
            until(lambda name=name: _ready(folder / name), 90, f"{name}: connected")
        yield folder
    finally:
        for one in reversed(running):
            one.stop()


def _ready(site: Path) -> bool:
    facts = state.summary(site)
    return bool(facts.get("connected") and facts.get("ready"))


def _allow(site: Path, key: str, value: str) -> None:
    """What an operator does with an editor."""
    file = site / "site.toml"
    lines = [f"{key} = {value}" if line.startswith(f"{key} =") else line for line in file.read_text().splitlines()]
    assert f"{key} = {value}" in lines
    file.write_text("\n".join(lines))


@pytest.fixture
def plain(job: Job) -> Job:
    return job.varied(federation={"rounds": 3, "min_sites": 3})


def test_a_job_is_submitted_followed_and_trained(home, plain, tmp_path):
    (tmp_path / "job.toml").write_text(plain.to_toml())
    done = command("server", "submit", tmp_path / "job.toml", "--follow", "--json", "--home", home / "coordinator")
    shown = json.loads(done.stdout)
    assert shown["status"] == "completed"
    assert [sorted(entry["contributed"]) for entry in shown["rounds"]] == [sorted(SITES)] * 3
    assert set(shown["sites"]) == set(SITES)
    assert all(0 <= numbers["dice"] <= 1 for numbers in shown["sites"].values())
    model = arrays.load(Path(shown["model"]))
    # The same hospitals in one process: the same training.
    sites = {name: Site.open(home / name) for name in SITES}
    other = simulate(plain, sites, tmp_path / "in-process").model()
    assert set(model) == set(other)
    for name, array in other.items():
        np.testing.assert_allclose(model[name], array, rtol=1e-4, atol=1e-5)

    runs = json.loads(command("server", "runs", "--json", "--home", home / "coordinator").stdout)
    assert runs[0]["run"] == shown["run"]
    assert json.loads(command("server", "show", shown["run"], "--json", "--home", home / "coordinator").stdout) == shown
    table = command("server", "show", shown["run"], "--home", home / "coordinator").stdout
    assert "completed" in table
    assert "north" in table
    status = json.loads(command("client", "status", "--json", "--home", home / "north").stdout)
    assert status["running"]
    assert status["connected"]
    assert status["last"]["type"] == "evaluate"
    listed = json.loads(command("server", "sites", "--json", "--home", home / "coordinator").stdout)
    assert [site["name"] for site in listed] == sorted(SITES)


def test_a_private_job_spends_at_every_site_what_it_declares(home, private_job, tmp_path):
    job = private_job.varied(federation={"min_sites": 3})
    (tmp_path / "job.toml").write_text(job.to_toml())
    done = command("server", "submit", tmp_path / "job.toml", "--follow", "--json", "--home", home / "coordinator")
    shown = json.loads(done.stdout)
    assert shown["status"] == "completed"
    assert all(numbers == {} for entry in shown["rounds"] for numbers in entry["sites"].values())
    for name in SITES:
        history = Ledger(Site.open(home / name)).history("data", job=job.digest, run=shown["run"])
        assert 0 < accounting.epsilon(history, delta=1e-4) <= 8.0


def test_a_job_that_the_sites_refuse_fails_and_says_which_site_why(home, plain, tmp_path):
    other = Job.from_dict({**plain.model_dump(mode="json", exclude_none=True), "classes": ["background", "tumour"]})
    refused = other.varied(privacy={"mode": "patient", "epsilon": 500.0, "delta": 1e-5})
    (tmp_path / "job.toml").write_text(refused.to_toml())
    failed = command("server", "submit", tmp_path / "job.toml", "--follow", "--home", home / "coordinator", code=1)
    assert "north: epsilon_limit" in failed.stderr


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"network": {"name": "NoSuchNet"}}, "NoSuchNet"),
        ({"federation": {"algorithm": "magic"}}, "magic"),
        ({"federation": {"min_sites": 4}}, "3 sites are admitted"),
        ({"training": {"learning_rate": "fast"}}, "[training] learning_rate"),
    ],
)
def test_a_job_that_cannot_be_is_refused_before_it_is_submitted(home, plain, tmp_path, change, what):
    data = plain.model_dump(mode="json", exclude_none=True)
    for section, keys in change.items():
        data[section] = {**data[section], **keys}
    (tmp_path / "job.toml").write_text(tomli_w.dumps(data))
    before = command("server", "runs", "--json", "--home", home / "coordinator").stdout
    refused = command("server", "submit", tmp_path / "job.toml", "--home", home / "coordinator", code=2)
    assert what in refused.stderr
    assert "job.toml" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert command("server", "runs", "--json", "--home", home / "coordinator").stdout == before


def test_wrong_admissions_are_refused(home):
    coordinator = home / "coordinator"
    key = home / "north" / "keys" / "site.pub"
    assert "already admitted" in command("server", "admit", "north", key, "--home", coordinator, code=2).stderr
    assert "already admitted" in command("server", "admit", "other", key, "--home", coordinator, code=2).stderr
    assert "no site name" in command("server", "admit", "No Name", key, "--home", coordinator, code=2).stderr
    private = home / "north" / "keys" / "site.pem"
    assert "never leave" in command("server", "admit", "other", private, "--home", coordinator, code=2).stderr


def test_homes_are_not_made_over_others_and_not_opened_where_there_is_none(home, tmp_path):
    taken = command("server", "init", "--home", home / "coordinator", "--host", "x.org", code=2)
    assert "already in use" in taken.stderr
    assert "already in use" in command("client", "init", "north", "--home", home / "north", code=2).stderr
    assert "server.toml" in command("server", "runs", "--home", tmp_path, code=2).stderr
    assert "site.toml" in command("client", "status", "--home", tmp_path, code=2).stderr
    assert "neither" in command("server", "init", "--home", tmp_path / "h", "--host", "no host", code=2).stderr
    assert not (tmp_path / "h").exists()
    assert "String" in command("client", "init", "No Name", "--home", tmp_path / "s", code=2).stderr
    assert (
        "together" in command("client", "init", "name", "--home", tmp_path / "s", "--coordinator", "a:1", code=2).stderr
    )
