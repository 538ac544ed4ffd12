"""The SuperLink's two listeners.

Flower serves everything on one port, and whoever reaches it may start runs and take tokens. Here its application is
served twice: to the sites, over TLS, only the fleet interface, where every request is signed by an admitted site; and
on loopback only the runtime interface, where every request carries the token of a run's own process.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import anyio.to_thread
import uvicorn

from server.flower.superlink import SuperLink, application
from shared.errors import InsituError
from shared.holding import Application, Bell, Holding, Receive, Scope, Send

PUBLIC = ("/v1/fleet/",)
LOOPBACK = ("/v1/runtime/",)
_HEALTH = "/health"
# Of one request: Flower sends a model in pieces of 5 MB; whoever is not admitted is parsed before they are refused.
_LONGEST_BODY = 32 * 2**20
_KEEP_ALIVE_SECONDS = 75


class Only:
    """Admits some paths, and the health check, of an application that has more.

    Args:
        application: Flower's.
        prefixes: of the paths that are admitted.
    """

    def __init__(self, application: Application, prefixes: tuple[str, ...]) -> None:
        self._application = application
        self._prefixes = prefixes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 403 (413 to a body that is too long)."""
        if scope["type"] != "http":
            return  # uvicorn answers a websocket that is not accepted with 403 itself
        path = scope["path"]
        if path != _HEALTH and not path.startswith(self._prefixes):
            await _answer(send, 403)
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit() and scope["method"] == "POST":
            await _answer(send, 411)
            return
        if length and int(length) > _LONGEST_BODY:
            await _answer(send, 413)
            return
        await self._application(scope, receive, send)


class Ringing:
    """Rings a bell whenever the application has taken something on these paths.

    Args:
        application: the one that takes it.
        paths: where it is brought.
        bell: for those who wait for it.
    """

    def __init__(self, application: Application, paths: tuple[str, ...], bell: Bell) -> None:
        self._application = application
        self._paths = paths
        self._bell = bell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, then ring."""
        await self._application(scope, receive, send)
        if scope["path"] in self._paths:
            self._bell.ring()


async def _answer(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


class Listeners:
    """The SuperLink, listening.

    Args:
        database: Flower's SQLite file.
        certificate, key: PEM files of the sites' listener.
        public: a bound socket for the sites.
        loopback: a bound socket for the runs' own processes.

    Attributes:
        superlink: its memory.
    """

    def __init__(
        self, database: Path, *, certificate: Path, key: Path, public: socket.socket, loopback: socket.socket
    ) -> None:
        flower = application(database)
        self.superlink = SuperLink(flower.state.linkstate_factory.state())
        for_sites, for_runs = Bell(), Bell()
        fleet = Ringing(
            Holding(flower, "/v1/fleet/pull-messages", for_sites),
            ("/v1/fleet/push-messages", "/v1/fleet/push-object"),
            for_runs,
        )
        runtime = Ringing(
            Holding(flower, "/v1/runtime/pull-messages", for_runs),
            ("/v1/runtime/push-messages", "/v1/runtime/push-object"),
            for_sites,
        )
        tls = _config(Only(fleet, PUBLIC), ssl_certfile=str(certificate), ssl_keyfile=str(key))
        tls.load()
        if tls.ssl is None:
            raise InsituError("the listener for the sites has no TLS")
        tls.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
        self._tls, self._files = tls.ssl, (certificate, key)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sockets = (public, loopback)
        self._servers = (uvicorn.Server(tls), uvicorn.Server(_config(Only(runtime, LOOPBACK))))

    def serve(self) -> None:
        """Serve both until `stop`; in a thread of its own, for uvicorn takes the main thread's signals."""
        with asyncio.Runner(loop_factory=self._servers[0].config.get_loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Flower's handlers run in threads. SQLite lets one write at a time, and whoever finds it busy sleeps: taking
        # turns is several times as fast as meeting there.
        anyio.to_thread.current_default_thread_limiter().total_tokens = 1
        pairs = zip(self._servers, self._sockets, strict=True)
        await asyncio.gather(*(server.serve(sockets=[listening]) for server, listening in pairs))

    def wait_until_serving(self, seconds: float = 30.0) -> None:
        """Wait until both take connections.

        Raises:
            InsituError: if they do not.
        """
        deadline = time.monotonic() + seconds
        while not all(server.started for server in self._servers):
            if time.monotonic() > deadline:
                raise InsituError("the listeners did not start")
            time.sleep(0.02)

    def renew(self) -> None:
        """Take up a certificate that has changed, for connections to come; from any thread."""
        if self._loop is not None:  # in the thread in which the handshakes are
            self._loop.call_soon_threadsafe(self._tls.load_cert_chain, *self._files)

    def stop(self) -> None:
        """End serving; from any thread."""
        for server in self._servers:
            server.should_exit = True


def _config(application: Application, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        lifespan="off",  # there is nothing that Flower should start
        log_level="warning",
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=3,
        server_header=False,
        **options,
    )
