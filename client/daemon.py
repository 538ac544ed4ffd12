"""Keeps a site's two processes alive: the SuperNode, which carries messages, and the executor, which answers them.

This process itself opens no scan and speaks to nobody. It binds the socket over which the two talk, on loopback, and
makes the secret that only they share, so that either may end and come back without the other noticing more than a
pause. A SuperNode that ended badly is refused by the coordinator until its lease of a minute is over: it is started
again, and again.

Where site.toml has a `[supernode]`, that one is another user's and looked after by `insitu-client supernode`. Then this
process keeps the executor alive alone, which finds the SuperNode's socket in the file system (client.link).
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from client import carrier, link, state
from client.site import Coordinator, Site
from client.supervision import Supervised, keep, told_to_stop
from shared import console
from shared.errors import BadInput


def run(site: Site, *, app: str = "client.app:app") -> None:
    """Run in the foreground until SIGTERM or SIGINT.

    Args:
        site: whose home has the key, and whose site.toml says where the coordinator is.
        app: `module:attribute` of the ClientApp, as it is installed here.

    Raises:
        BadInput: if the home is held by another daemon, or lacks the coordinator's address, its CA or the key; or if
            the SuperNode is another user's, and its folder cannot be used.
    """
    stopping = told_to_stop()
    with site.claimed():
        for part in ("daemon", "supernode"):
            state.forget(site.home, part)  # what one before this said
        coordinator = site.config.coordinator
        if coordinator is None:
            raise BadInput("[coordinator] is missing: give its address and its CA", file=site.home / "site.toml")
        if site.config.supernode is None:
            with _loopback() as listening:
                parts = _both(site, coordinator, listening, app)
                _keep(site, parts, f"{site.name}: answering the coordinator at {coordinator.address}", stopping)
        else:
            folder = Path(site.config.supernode.folder)
            ready = f"{site.name}: answering the coordinator's messages that come by {link.path(folder)}"
            _keep(site, _alone(site, folder, app), ready, stopping, link=str(folder))
        console.say(f"{site.name}: stopped")


@contextmanager
def _loopback() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # here too: who asks while the SuperNode is being started again waits, and is not refused
        yield listening


def _both(site: Site, coordinator: Coordinator, listening: socket.socket, app: str) -> dict[str, Supervised]:
    host, port = listening.getsockname()
    address, secret = f"{host}:{port}", secrets.token_bytes(link.SECRET_BYTES)
    return {
        "supernode": carrier.supernode(
            site.home, coordinator, address=address, descriptor=listening.fileno(), secret=secret
        ),
        # The last is stopped first: it must not answer for a SuperNode that has said good-bye.
        "executor": _executor(site, address, secret, app),
    }


def _alone(site: Site, folder: Path, app: str) -> dict[str, Supervised]:
    left = site.home / "keys" / "site.pem"
    if left.exists():
        raise BadInput(
            f"the site's key is still here, though the SuperNode is to have it: "
            f"`insitu-client separate --out {folder}` does what is left to do",
            file=left,
        )
    link.check(folder)
    if folder.stat().st_uid == os.geteuid():
        console.say(f"{folder} belongs to this user: a SuperNode that runs as this user is not separated from the site")
    return {"executor": _executor(site, str(link.path(folder)), link.secret(folder), app)}


def _executor(site: Site, address: str, secret: bytes, app: str) -> Supervised:
    threads = site.config.policy.threads
    return Supervised(
        name="the executor",
        module="client.flower.executor",
        instructions={"home": str(site.home.resolve()), "address": address, "secret": secret.hex(), "app": app},
        log=site.home / "log" / "executor.log",
        environment=carrier.environment(site.home) | ({"OMP_NUM_THREADS": str(threads)} if threads else {}),
    )


def _keep(site: Site, parts: dict[str, Supervised], ready: str, stopping: Any, **more: str) -> None:
    coordinator = site.config.coordinator
    facts = {
        "pid": os.getpid(),
        "since": time.time(),
        "coordinator": coordinator.address if coordinator else None,
        **more,
    }

    def say() -> None:
        state.write(site.home, "daemon", facts | {name: part.facts() for name, part in parts.items()})

    keep(tuple(parts.values()), say, ready=ready, stopping=stopping)
