"""The coordinator in the foreground: Flower's SuperLink, and a process for every run that is submitted.

Runs are submitted by writing them into the store: who may write in the coordinator's home may submit, with or
without a coordinator running, and there is no port that would take a run from anybody else.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from dataclasses import dataclass
from types import FrameType

from server import health
from server.certificates import Certificate
from server.enrolment import service as enrolment
from server.flower.listeners import Listeners
from server.flower.superlink import SuperLink, Task
from server.home import Home
from server.store import ENDED, Store
from shared import console, identity
from shared.errors import InsituError
from shared.processes import Child

log = logging.getLogger(__name__)

_LOOK_EVERY_SECONDS = 0.1
_SPARE_AGAIN_SECONDS = 30.0
# What a run imports only when it builds its network; it takes seconds.
_LIBRARIES = ["monai.networks.nets"]
_BROKEN_OFF = "the coordinator ended during this run; it goes on after its last round"
_MOST_RESTARTS = 5  # of a run's process, in a row, without a round in between


@dataclass
class Conducted:
    """A run with its process."""

    run: str
    task: Task
    child: Child


class Coordinator:
    """Watches the store and conducts what is submitted.

    Args:
        home: the coordinator's.
        superlink: Flower's memory.
        address: host:port of the loopback listener.
        app: `module:attribute` of the ServerApp.
    """

    def __init__(self, home: Home, superlink: SuperLink, *, address: str, app: str) -> None:
        self._home = home
        self._store: Store = home.store
        self._superlink = superlink
        self._address = address
        self._app = app
        self._waiting: dict[int, str] = {}  # Flower's run id → ours, between starting and acquiring
        self._conducted: list[Conducted] = []
        self._restarts: dict[str, tuple[int, int]] = {}  # run → times in a row, rounds that were done then
        self._spare: Child | None = None
        self._spare_at = 0.0

    def recover(self) -> None:
        """Take up what an earlier coordinator left unfinished; its processes are gone, the rounds are in the store."""
        self._superlink.end_all()
        for run in self._store.runs():
            if run.status == "running":
                self._store.set_status(run.id, "submitted", _BROKEN_OFF)
                console.say(f"{run.id}: goes on after round {len(self._store.rounds(run.id))}")
            elif run.status == "stopping":
                self._store.set_status(run.id, "stopped", run.message)

    def look(self) -> None:
        """Start what was submitted, note what has ended, and keep a process ready for the next run."""
        for run in self._store.waiting():
            if run not in self._waiting.values():
                flower_run = self._superlink.start_run()
                self._store.set_flower_run(run, flower_run)
                self._waiting[flower_run] = run
        while self._waiting and (task := self._superlink.acquire()):
            self._start(task)
        stopped = {run for run in self._store.stopping() if run not in self._waiting.values()}
        for conducted in list(self._conducted):
            if conducted.run in stopped:
                conducted.child.stop()
            code = conducted.child.poll()
            if code is not None:
                self._conducted.remove(conducted)
                self._ended(conducted, code)
        if not self._conducted:
            self._keep_spare()

    def _keep_spare(self) -> None:
        """One process that has everything imported, which takes several seconds: a run begins at once."""
        if self._spare is not None and self._spare.poll() is not None:
            console.say(f"the process kept ready ended; see {self._home.log('ready')}")
            self._spare.close()
            self._spare = None
            self._spare_at = time.monotonic() + _SPARE_AGAIN_SECONDS
        if self._spare is None and time.monotonic() >= self._spare_at:
            self._spare = self._process()

    def _process(self) -> Child:
        return Child(
            "server.flower.serverapp",
            {"app": self._app, "libraries": _LIBRARIES},
            log=self._home.log("ready"),
            environment={"FLWR_HOME": str(self._home.path.resolve() / "log"), "MALLOC_ARENA_MAX": "2"},
        )

    def _start(self, task: Task) -> None:
        run = self._waiting.pop(task.flower_run, None)
        if run is None or self._store.run(run).status != "submitted":
            self._superlink.end(task, completed=False)
            return
        self._store.set_status(run, "running")
        child, self._spare = self._spare or self._process(), None
        home = self._home.path.resolve()
        child.instruct(
            {
                "address": self._address,
                "token": task.token,
                "log": str(home / "log" / f"{run}.log"),
                "config": {"home": str(home), "run": run},
            }
        )
        self._conducted.append(Conducted(run, task, child))
        console.say(f"{run}: running (process {child.pid})")

    def _ended(self, conducted: Conducted, code: int) -> None:
        conducted.child.close()
        row = self._store.run(conducted.run)
        self._superlink.end(conducted.task, completed=row.status == "completed")
        if row.status == "stopping":
            self._store.set_status(conducted.run, "stopped", row.message)
        elif row.status not in ENDED:
            self._again(conducted.run, code)
        row = self._store.run(conducted.run)
        console.say(f"{conducted.run}: {row.status}{': ' + row.message if row.message else ''}")

    def _again(self, run: str, code: int) -> None:
        """A run's process ended without saying why: the next one goes on, unless that happens again and again."""
        rounds = len(self._store.rounds(run))
        restarts, before = self._restarts.get(run, (0, rounds))
        restarts = restarts + 1 if rounds == before else 1
        self._restarts[run] = (restarts, rounds)
        why = f"its process ended ({code}) without saying why; see {self._home.log(run)}"
        if restarts > _MOST_RESTARTS:
            self._store.set_status(run, "failed", f"{why}; that was {restarts} times in a row")
        else:
            self._store.set_status(run, "submitted", f"{why}; it goes on after round {rounds}")

    def stop(self) -> None:
        """End all runs' processes; the runs go on when a coordinator is started again."""
        for conducted in self._conducted:
            conducted.child.stop()
            if self._store.run(conducted.run).status not in ENDED:
                self._store.set_status(conducted.run, "submitted", _BROKEN_OFF)
            self._superlink.end(conducted.task, completed=False)
        self._conducted.clear()
        if self._spare is not None:
            self._spare.stop()


def run(home: Home, *, app: str = "server.app:app") -> None:
    """Run in the foreground until SIGTERM or SIGINT.

    Args:
        home: the coordinator's.
        app: `module:attribute` of the ServerApp, as it is installed here.

    Raises:
        BadInput: if the home is held by another coordinator, or its keys are missing or readable by others.
        InsituError: if the certificate has expired, or the listeners fail.
    """
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with home.claimed():
        identity.read_private(home.key)
        certificate = Certificate(home)
        with (
            _bound(home.config.listen, home.config.port) as public,
            _bound("127.0.0.1", home.config.loopback_port) as loopback,
        ):
            listeners = Listeners(
                home.database,
                certificate=home.certificate,
                key=home.key,
                public=public,
                loopback=loopback,
            )
            fleet = f"{home.config.host}:{public.getsockname()[1]}"
            with enrolment.serving(home, fleet=fleet) as enrols, health.serving(home.config.health_port) as healthy:
                ports = {"enrolment": enrols, "health": healthy}
                _conduct(home, listeners, public, loopback, stopping, app, certificate, ports)


def _conduct(
    home: Home,
    listeners: Listeners,
    public: socket.socket,
    loopback: socket.socket,
    stopping: threading.Event,
    app: str,
    certificate: Certificate,
    ports: dict[str, int],
) -> None:
    host, port = loopback.getsockname()[:2]
    public_port = public.getsockname()[1]
    coordinator = Coordinator(home, listeners.superlink, address=f"{host}:{port}", app=app)
    coordinator.recover()
    serving = threading.Thread(target=listeners.serve, name="listeners", daemon=True)
    serving.start()
    listeners.wait_until_serving()
    home.announce({"port": public_port, "loopback": port, **ports, "since": time.time()})
    console.say(f"serving the sites at {home.config.host}:{public_port}; they join at port {ports['enrolment']}")
    try:
        while not stopping.wait(_LOOK_EVERY_SECONDS):
            coordinator.look()
            certificate.look(listeners.renew)
            if not serving.is_alive():
                raise InsituError("the listeners ended; the log above says why")
    finally:
        coordinator.stop()
        listeners.stop()
        serving.join(timeout=10)
        console.say("stopped")


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # said: else there is no TCP_NODELAY
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise InsituError(f"cannot listen on {host}:{port} ({error.strerror}); see [port] in server.toml") from None
    return listening
