"""The same over real processes: a coordinator and a daemon for every virtual hospital, talking TLS on loopback.

What is typed by hand in a real federation is called here: `insitu-server init`, `admit`, `start`, `submit`, and
`insitu-client start`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from client.credentials import equip, trust
from client.site import Coordinator, Site
from server.admission import admit
from server.home import Home, ServerConfig
from server.store import ENDED, Store
from shared.errors import InsituError
from shared.job import Job
from simulations.watching import Watch

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_LOOK_SECONDS = 0.1


def over_processes(job: Job, sites: Mapping[str, Site], home: Path, *, watch: Watch) -> tuple[Store, str]:
    """Run the job to its end, and stop every process.

    Args:
        job: what is trained.
        sites: the virtual hospitals; each gets a key, and the address of this coordinator.
        home: the coordinator's, not there yet.
        watch: shows how far the run is.

    Returns:
        The coordinator's store, and the run's id in it.

    Raises:
        InsituError: if the run fails, or a process does not start or ends.
    """
    coordinator = Home.create(home, ServerConfig(host="127.0.0.1", listen="127.0.0.1", port=0))
    for name, site in sites.items():
        admit(coordinator, name, equip(site))
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_process("server.cli", home, home / "log" / "coordinator.log"))]
        address = f"127.0.0.1:{_port(coordinator, processes)}"
        for site in sites.values():
            trust(site, Coordinator(address=address), ca=coordinator.ca.read_bytes())
            processes.append(stack.enter_context(_process("client.cli", site.home, site.home / "log" / "daemon.log")))
        run = coordinator.store.create_run(job)
        with watch(coordinator.store, run):
            _until_ended(coordinator.store, run, processes)
    return coordinator.store, run


@contextlib.contextmanager
def _process(module: str, home: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m module start --home HOME`, stopped at the end of the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, "start", "--home", str(home)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(coordinator: Home, processes: list[subprocess.Popen[bytes]]) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        _check(processes)
        port = (coordinator.running() or {}).get("port")
        if port:
            return int(port)
        time.sleep(_LOOK_SECONDS)
    raise InsituError(f"the coordinator did not start within {_START_SECONDS:.0f} s; see {coordinator.path}/log")


def _until_ended(store: Store, run: str, processes: list[subprocess.Popen[bytes]]) -> None:
    while (row := store.run(run)).status not in ENDED:
        _check(processes)
        time.sleep(_LOOK_SECONDS)
    if row.status != "completed":
        raise InsituError(f"{run}: {row.status}: {row.message}")


def _check(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is not None:
            raise InsituError(f"`{' '.join(map(str, process.args))}` ended ({process.returncode}); its log says why")  # type: ignore[arg-type]
