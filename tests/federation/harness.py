"""A whole federation in real processes on loopback, TLS and all; for every test of this folder.

with federation(folder, sites=3) as fed:
    run = fed.submit(job)
    row = fed.wait(run)
"""

import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Message, RecordDict

from client import credentials, state
from client.site import Approval, Coordinator, Policy, Site, SiteConfig
from server import admission
from server.flower.serverapp import WaitingGrid
from server.flower.superlink import SuperLink
from server.home import Home, ServerConfig
from server.store import ENDED, RunRow
from shared.job import Job

HERE = Path(__file__).parent
NAMES = ("north", "south", "west", "east", "centre", "coast", "island", "valley")
_START = {
    "server": "from server import coordinator; from server.home import Home; from pathlib import Path; "
    "coordinator.run(Home.open(Path({home!r})), app={app!r})",
    "client": "from client import daemon; from client.site import Site; from pathlib import Path; "
    "daemon.run(Site.open(Path({home!r})), app={app!r})",
}


def until(condition, seconds: float = 30.0, what: str = "what was waited for"):
    """The first true value of `condition()`, asked for every 50 ms."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {seconds} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Running:
    """One command in a process of its own, and what it says."""

    process: subprocess.Popen
    log: Path

    def stop(self, seconds: float = 20.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    @property
    def said(self) -> str:
        return self.log.read_text()


def start(arguments: list[str], log: Path) -> Running:
    """Start a command."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE), "PYTHONUNBUFFERED": "1"}
    with log.open("ab") as output:
        process = subprocess.Popen(arguments, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment)
    return Running(process, log)


def started(side: str, home: Path, app: str | None, log: Path) -> Running:
    """`insitu-server start` or `insitu-client start`; with another app than the installed one, the same by hand."""
    if app is None:
        command = Path(sys.executable).with_name(f"insitu-{side}")
        return start([str(command), "start", "--home", str(home)], log)
    program = _START[side].format(home=str(home), app=app)
    return start([sys.executable, "-c", program], log)


@dataclass
class Federation:
    """A coordinator and its sites, running."""

    folder: Path
    home: Home
    sites: dict[str, Site]
    server_app: str | None
    client_app: str | None
    coordinator: Running | None = None
    daemons: dict[str, Running] = field(default_factory=dict)

    def start_coordinator(self) -> None:
        self.coordinator = started("server", self.home.path, self.server_app, self.folder / "server.log")
        until(lambda: self.home.running() or self.coordinator.process.poll() is not None, what="the coordinator")
        assert self.coordinator.process.poll() is None, self.coordinator.said

    def start_site(self, name: str) -> None:
        site = self.sites[name]
        self.daemons[name] = started("client", site.home, self.client_app, self.folder / f"{name}.log")

    def status(self, name: str) -> dict:
        return state.summary(self.sites[name].home)

    def connected(self, name: str, seconds: float = 60.0) -> dict:
        """Wait until a site is connected and ready; its status."""

        def there() -> dict | None:
            status = self.status(name)
            return status if status.get("connected") and status.get("ready") else None

        try:
            return until(there, seconds, f"{name}: connected")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.status(name)}\n{self.daemons[name].said}\n{self.logs()}") from None

    def submit(self, job: Job) -> str:
        return self.home.store.create_run(job)

    def wait(self, run: str, seconds: float = 120.0) -> RunRow:
        """Wait until a run has ended; its row."""

        def ended() -> RunRow | None:
            row = self.home.store.run(run)
            return row if row.status in ENDED else None

        try:
            return until(ended, seconds, f"{run}: ended")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def report(self, run: str) -> dict:
        """What the tiny ServerApp wrote."""
        file = self.home.store.folder(run) / "tiny.json"
        assert file.exists(), self.logs()
        return json.loads(file.read_text())

    def plan(self, **plan) -> None:
        """What the tiny apps shall do."""
        (self.home.path / "tiny.json").write_text(json.dumps(plan))

    def processes(self) -> dict[str, int]:
        """Name → pid of every process."""
        pids = {"coordinator": self.coordinator.process.pid}
        for name, daemon in self.daemons.items():
            status = self.status(name)
            pids |= {
                f"{name} daemon": daemon.process.pid,
                f"{name} supernode": status["supernode"]["pid"],
                f"{name} executor": status["executor"]["pid"],
            }
        return {name: pid for name, pid in pids.items() if pid}

    def logs(self) -> str:
        files = [*self.folder.glob("*.log"), *self.folder.glob("*/log/*.log")]
        return "\n".join(f"--- {file.relative_to(self.folder)}\n{file.read_text()[-3000:]}" for file in sorted(files))

    def stop(self) -> None:
        for running in [*self.daemons.values(), self.coordinator]:
            if running is not None and running.process.poll() is None:
                running.process.send_signal(signal.SIGTERM)
        for running in [*self.daemons.values(), self.coordinator]:
            if running is not None:
                running.stop()


@contextmanager
def federation(
    folder: Path,
    sites: int | tuple[str, ...] = 3,
    *,
    server_app: str | None = None,
    client_app: str | None = None,
    policy: Policy | None = None,
    approve: tuple[Approval, ...] = (Approval(),),
    prepare=None,
) -> Iterator[Federation]:
    """A coordinator and `sites` sites, each in the processes it really has, connected and ready.

    Args:
        folder: gets the homes and logs.
        sites: how many, or their names.
        server_app, client_app: `module:attribute` in place of the installed apps.
        policy: of every site.
        approve: its rules of jobs approved in advance; by default every job is.
        prepare: called with each Site before anything starts, to give it data.
    """
    names = NAMES[:sites] if isinstance(sites, int) else sites
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    home = Home.create(folder / "coordinator", ServerConfig(host="localhost", listen="127.0.0.1", port=port))
    made = {}
    for name in names:
        config = SiteConfig(name=name, device="cpu", policy=policy or Policy(threads=1), approve=approve)
        site = Site.create(folder / name, config)
        admission.admit(home, name, credentials.equip(site))
        made[name] = credentials.trust(site, Coordinator(address=f"127.0.0.1:{port}"), ca=home.ca.read_bytes())
        if prepare is not None:
            prepare(made[name])
    fed = Federation(folder, home, made, server_app, client_app)
    try:
        fed.start_coordinator()
        for name in names:
            fed.start_site(name)
        for name in names:
            fed.connected(name)
        yield fed
    finally:
        fed.stop()


@contextmanager
def at_will(fed: Federation) -> Iterator[Callable[[RecordDict, str], Message]]:
    """A coordinator that sends what it likes: `ask(records, message_type)` to the only site, and its reply."""
    superlink = SuperLink.open(fed.home.database)
    flower_run = superlink.start_run()
    task = superlink.acquire()
    assert task is not None
    assert task.flower_run == flower_run
    grid = WaitingGrid(f"127.0.0.1:{fed.home.running()['loopback']}", task.token)
    grid.identify()
    threading.Thread(target=grid.beat, name="heartbeat", daemon=True).start()  # unheard of for 60 s, a run is given up
    (node,) = grid.get_node_ids()

    def ask(records: RecordDict, message_type: str = "train") -> Message:
        (asked,) = grid.push_messages([Message(records, dst_node_id=node, message_type=message_type)])
        (reply,) = until(lambda: list(grid.pull_messages([asked])), 60, "a reply")
        return reply

    try:
        yield ask
    finally:
        grid.close()
        superlink.end(task, completed=False)


TINY = {"server_app": "tiny:server", "client_app": "tiny:client"}


def listening(pid: int) -> list[tuple[str, int]]:
    """The TCP addresses a process listens on, as the kernel says."""
    sockets = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(os.readlink(entry))
        except OSError:
            continue
    found = []
    for table, size in (("tcp", 4), ("tcp6", 16)):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                address, port = fields[1].split(":")
                raw = b"".join(bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, size * 2, 8))
                bound = ipaddress.ip_address(raw)  # gRPC's sockets are of IPv6, also where they are bound to IPv4
                found.append((str(getattr(bound, "ipv4_mapped", None) or bound), int(port, 16)))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
