"""A coordinator that sites join over the wire, for the tests of that; at an address that no proxy setting leaves out.

with coordinating(folder) as there:
    there.invite("north")
    there.command("client", "join", there.ticket("north"), "--home", there.folder / "north")
"""

import os
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from harness import Federation, free_port, until

from client.enrolment.channel import Service
from client.site import Site
from server.enrolment import invitations
from server.home import Home, ServerConfig
from shared.tickets import Ticket

HOST = "127.0.0.2"
_PROXIES = ("https_proxy", "http_proxy", "all_proxy", "no_proxy")


class Enrolling(Federation):
    """A federation whose sites come one by one."""

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.ticket"

    def invite(self, name: str, *, seconds: float = 600.0) -> Ticket:
        """A ticket; one that lies there is replaced."""
        self.file(name).unlink(missing_ok=True)
        return invitations.invite(self.home, name, valid=timedelta(seconds=seconds), out=self.file(name))

    def command(self, side: str, *arguments: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess:
        """Run a command to its end; its exit code is checked."""
        own = {key: value for key, value in os.environ.items() if key.lower() not in _PROXIES}
        done = subprocess.run(
            [Path(sys.executable).with_name(f"insitu-{side}"), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            env={**own, "OMP_NUM_THREADS": "1", "COLUMNS": "300", **environment},
        )
        assert done.returncode == code, f"{done.args}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done

    def join(self, name: str, **environment: str) -> Site:
        """Invite a site and let it join, by the commands."""
        self.file(name).unlink(missing_ok=True)
        self.command("server", "invite", name, "--home", self.home.path, "--out", self.file(name))
        self.command("client", "join", self.file(name), "--home", self.folder / name, **environment)
        self.sites[name] = Site.open(self.folder / name)
        return self.sites[name]

    def calls(self, ticket: Ticket) -> Service:
        return Service(ticket.enrolment, ticket.authority)

    def forget_tries(self) -> None:
        """All tests come from one address, which must not become tiresome."""
        with sqlite3.connect(self.home.path / "store.sqlite", timeout=30) as db:
            db.execute("DELETE FROM refused_tries")

    def wait_said(self, words: str) -> None:
        until(lambda: words in self.coordinator.said, 10, f"{words!r} in the coordinator's log")

    def restart(self) -> None:
        assert self.coordinator.stop() == 0
        self.start_coordinator()


@contextmanager
def coordinating(
    folder: Path, *, server_app: str | None = "tiny:server", client_app: str | None = "tiny:client", **options
):
    """A coordinator without sites, running."""
    folder.mkdir(parents=True, exist_ok=True)
    config = ServerConfig(host=HOST, listen=HOST, port=free_port(), enrolment_port=free_port(), **options)
    home = Home.create(folder / "coordinator", config)
    there = Enrolling(folder, home, {}, server_app, client_app)
    try:
        there.start_coordinator()
        yield there
    finally:
        there.stop()
