"""A SuperNode that is another user's: the site works as ever, and the SuperNode can open nothing of it."""

import json
import os
import shutil
import signal
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

import httpx
import pictures
import pytest
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from harness import Federation, Running, alive, free_port, listening, until
from users import AS_ROOT, User, interpreter

from client import credentials
from client.data.registry import Registry
from client.flower.executor import Patient, TaskToken
from client.site import Approval, Coordinator, DatasetRules, Policy, Site, SiteConfig
from server import admission
from server.home import Home, ServerConfig

pytestmark = [
    pytest.mark.federation,
    pytest.mark.skipif(AS_ROOT and interpreter() is None, reason="no other user may run this Python"),
]
needs_users = pytest.mark.skipif(not AS_ROOT, reason="only root can be other users")

CARRIER = User(64001)
SITE = User(64002, groups=[CARRIER.uid])
STRANGER = User(64003)

JOB = pictures.JOB.varied(federation={"rounds": 2, "min_sites": 1})


@dataclass
class Separated(Federation):
    """One site in two halves, each its own user's."""

    carrier: Running | None = None

    @property
    def north(self) -> Path:
        return self.sites["north"].home

    @property
    def apart(self) -> Path:
        return self.folder / "carried"

    def start_carrier(self) -> None:
        self.carrier = CARRIER.start_client("supernode", "--folder", self.apart, log=self.folder / "carrier.log")

    def start_site(self, name: str) -> None:
        self.daemons[name] = SITE.start_client("start", "--home", self.north, log=self.folder / "north.log")

    def completes(self) -> None:
        row = self.wait(self.submit(JOB))
        assert row.status == "completed", row.message + self.logs()


@pytest.fixture(scope="module")
def fed():
    # Not in pytest's own folder, into which other users may not look.
    folder = Path(tempfile.mkdtemp(prefix="insitu-"))
    folder.chmod(0o711)
    try:
        running = _made(folder)
        try:
            running.start_coordinator()
            running.start_carrier()
            running.start_site("north")
            running.connected("north")
            yield running
        finally:
            if running.carrier is not None:
                running.daemons["carrier"] = running.carrier
            running.stop()
    finally:
        shutil.rmtree(folder)


def _made(folder: Path) -> Separated:
    port = free_port()
    home = Home.create(folder / "coordinator", ServerConfig(host="localhost", listen="127.0.0.1", port=port))
    config = SiteConfig(
        name="north",
        device="cpu",
        policy=Policy(threads=1, min_sites=1),
        approve=(Approval(),),
        datasets={"discs": DatasetRules(epsilon=100.0, delta=1e-4)},
    )
    site = Site.create(folder / "north", config)
    admission.admit(home, "north", credentials.equip(site))
    site = credentials.trust(site, Coordinator(address=f"127.0.0.1:{port}"), ca=home.ca.read_bytes())
    scans = folder / "scans"
    Registry(site).add("discs", pictures.write(scans, patients=60, brightness=90, seed=1))
    scans.chmod(0o700)
    running = Separated(folder, home, {"north": site}, None, None)
    running.apart.mkdir()
    SITE.gets(site.home, scans, running.apart)
    done = SITE.client("separate", "--home", site.home, "--out", running.apart)
    assert done.returncode == 0, done.stderr
    CARRIER.gets(running.apart)
    return running


def test_a_run_completes_and_its_privacy_is_in_the_ledger(fed):
    fed.completes()
    told = SITE.client("budget", "--home", fed.north, "--json")
    assert [row["spent"] > 0 for row in json.loads(told.stdout)["datasets"] if row["split"] == "train"] == [True]


def test_the_two_are_processes_of_two_users_and_neither_listens_on_a_port(fed):
    status = fed.connected("north")
    supernode, executor = status["supernode"]["pid"], status["executor"]["pid"]
    if AS_ROOT:
        assert Path(f"/proc/{supernode}").stat().st_uid == CARRIER.uid
        assert Path(f"/proc/{executor}").stat().st_uid == SITE.uid
    assert listening(supernode) == []
    assert listening(executor) == []
    assert _sockets(executor) & _inet(executor) == set()  # not even one that dials


def _sockets(pid: int) -> set[str]:
    return {link for link in _open(pid) if link.startswith("socket:")}


def _inet(pid: int) -> set[str]:
    tables = (Path(f"/proc/{pid}/net/{table}") for table in ("tcp", "tcp6", "udp", "udp6"))
    return {f"socket:[{line.split()[9]}]" for table in tables for line in table.read_text().splitlines()[1:]}


def _open(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.readlink(entry))
        except FileNotFoundError:
            continue
    return found


def test_the_supernode_has_nothing_of_the_home_and_does_not_know_where_it_is(fed):
    for pid in (fed.carrier.process.pid, fed.connected("north")["supernode"]["pid"]):
        process = Path(f"/proc/{pid}")
        has = {*_open(pid), os.readlink(process / "cwd"), *(process / "maps").read_text().split()}
        assert not [one for one in has if one.startswith((str(fed.north), str(fed.folder / "scans")))]
        assert str(fed.north) not in (process / "cmdline").read_text() + (process / "environ").read_text()
    for file in fed.apart.rglob("*"):
        if file.is_file():
            assert str(fed.north).encode() not in file.read_bytes(), file


@needs_users
def test_what_is_the_sites_cannot_be_opened_by_the_supernodes_user(fed):
    fed.completes()
    files = ["registry.sqlite", "ledger.sqlite", "jobs.sqlite", "record.jsonl", "site.toml", "state/daemon.json"]
    keys = ["keys/secret", "keys/record.pem", "keys/site.pub"]
    trees = [fed.north, *(fed.north / name for name in ("keys", "cache", "replies", "witness", "log", "state"))]
    closed = [fed.north / name for name in (*files, *keys)] + [*trees, fed.folder / "scans", fed.folder / "scans/0.png"]
    closed += [one for tree in ("cache", "replies", "witness", "log") for one in (fed.north / tree).rglob("*")]
    assert [path for path in closed if not path.exists()] == []
    assert _opened(CARRIER, *closed) == set()
    assert _opened(SITE, *closed) == set(map(str, closed))  # it is not that nobody could


@needs_users
def test_the_sites_user_has_the_secret_but_not_the_key_and_a_stranger_has_nothing(fed):
    key, secret = fed.apart / "keys" / "site.pem", fed.apart / "secret"
    assert _opened(CARRIER, key, secret) == {str(key), str(secret)}
    assert _opened(SITE, key, secret) == {str(secret)}
    assert _opened(STRANGER, key, secret, fed.apart / "state" / "supernode.json", fed.apart) == set()


def _opened(user: User, *paths: Path) -> set[str]:
    """Which of these a process of this user can open."""
    program = """
for path in sys.argv[1:]:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except PermissionError:
        continue
    print(path)
"""
    done = user.run(program, *paths)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines())


@needs_users
@pytest.mark.parametrize("user", [STRANGER, SITE], ids=["stranger", "site"])
def test_nobody_else_can_listen_in_the_supernodes_place(fed, user):
    """Whoever listens there is handed the site's replies."""
    program = """
import socket
for attempt in (os.unlink, lambda path: os.rename(path, path + "2"), lambda path: socket.socket(1).bind(path + "3")):
    try:
        attempt(sys.argv[1])
    except PermissionError:
        print("refused")
try:
    socket.socket(1).connect(sys.argv[1])
    print("connected")
except PermissionError:
    print("not let in")
"""
    done = user.run(program, fed.apart / "socket")
    assert done.stdout.split("\n")[:4] == ["refused"] * 3 + ["connected" if user is SITE else "not let in"]


def test_an_executor_without_the_shared_secret_is_refused(fed):
    question = AcquireTaskRequest(supported_task_types=["flwr-clientapp"])
    wrong = SuperExecAuthHttpInterceptor(
        master_secret=b"x" * 32, protected_methods=frozenset({"/flwr.proto.Runtime/AcquireTask"})
    )
    version = RuntimeVersionHttpInterceptor(component_name="flwr-clientapp")
    for interceptors in ([], [version, wrong], [version, TaskToken()]):
        with Patient(str(fed.apart / "socket"), interceptors=interceptors) as client:
            with pytest.raises(httpx.HTTPStatusError) as refused:
                client.AcquireTask(question)
            assert refused.value.response.status_code == 401
    assert fed.status("north")["connected"]


def test_a_second_supernode_on_the_folder_is_refused(fed):
    second = CARRIER.client("supernode", "--folder", fed.apart)
    assert second.returncode == 2
    assert "already running" in second.stderr
    assert socket.socket(socket.AF_UNIX).connect_ex(str(fed.apart / "socket")) == 0  # and the first's is still there


@needs_users
def test_each_command_runs_as_the_user_whose_folder_it_is(fed):
    for user, command in (
        (User(0), ["supernode", "--folder", fed.apart]),
        (User(0), ["separate", "--home", fed.north, "--out", fed.apart]),
    ):
        done = user.client(*command)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "belongs to another user" in done.stderr


def test_status_says_how_the_supernode_stands(fed):
    fed.connected("north")
    said = SITE.client("status", "--home", fed.north)
    assert f"connected to 127.0.0.1:{fed.home.config.port}" in said.stdout, said.stdout + said.stderr


def test_separating_again_changes_nothing(fed):
    fed.daemons["north"].stop()
    try:
        again = SITE.client("separate", "--home", fed.north, "--out", fed.apart)
        assert again.returncode == 0, again.stderr
        assert "already" in again.stderr
    finally:
        fed.start_site("north")
        fed.connected("north")


def test_a_supernode_that_is_killed_comes_back_and_the_executor_notices_no_more_than_a_pause(fed):
    status = fed.connected("north")
    os.kill(status["supernode"]["pid"], signal.SIGKILL)
    until(lambda: fed.status("north")["supernode"]["restarts"] > status["supernode"]["restarts"], what="a new one")
    until(lambda: fed.status("north")["problem"], 60, what="being refused while the lease runs")
    assert "for up to a minute" in fed.status("north")["problem"]
    after = fed.connected("north", 120)
    assert after["executor"] == status["executor"]
    fed.completes()


def test_a_killed_keeper_takes_the_supernode_along_and_the_next_is_found_at_the_same_place(fed):
    status = fed.connected("north")
    fed.carrier.process.kill()
    fed.carrier.process.wait()
    until(lambda: not alive(status["supernode"]["pid"]), what="the end of the SuperNode")
    said = SITE.client("status", "--home", fed.north)
    assert f"the SuperNode does not answer at {fed.apart / 'socket'}" in said.stdout, said.stdout + said.stderr
    assert "not connected" in said.stdout
    fed.start_carrier()
    assert fed.connected("north", 120)["executor"] == status["executor"]
    fed.completes()
