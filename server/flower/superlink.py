"""Flower's SuperLink, inside the coordinator's process.

Flower serves everything on one port, and whoever reaches it may start runs and take tokens. Here its application is
served twice: in public, over TLS, only the fleet interface, where every request is signed by an admitted site; and
on loopback only the runtime interface, where every request carries the token of a run's own process. The control
interface is served nowhere: what it does, the coordinator does itself, on behalf of who may write in its home.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread
import uvicorn
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, Status, SubStatus
from flwr.proto.control_pb2 import RegisterNodeRequest, StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.server.superlink.linkstate import LinkState
from flwr.supercore import sql_mixin
from flwr.supercore.auth.typing import AccountInfo
from flwr.supercore.constant import TaskType
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.logger import update_console_handler
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import (
    SuperLinkLifespanConfig,
    get_federation_manager,
    get_objectstore_linkstate_factories,
)
from flwr.superlink.main import create_app
from flwr.superlink.servicer.control import control_handlers
from flwr.superlink.servicer.runtime import runtime_handlers

from shared import bundle
from shared.errors import BadInput, InsituError
from shared.holding import Application, Bell, Holding, Receive, Scope, Send

update_console_handler(level=logging.WARNING, timestamps=True, colored=False)
# Flower lets every connection keep 64 MB of pages, and map 256 MB more: several models' worth, for nothing.
sql_mixin.SQLITE_PRAGMAS = tuple(  # type: ignore[attr-defined, assignment]
    (name, value)
    for name, value in sql_mixin.SQLITE_PRAGMAS  # type: ignore[attr-defined]
    if name not in ("cache_size", "mmap_size")
)

PUBLIC = ("/v1/fleet/",)
LOOPBACK = ("/v1/runtime/",)
_HEALTH = "/health"
# What the coordinator's middle may skip: of interfaces that are served nowhere, or of things that are switched off.
_NEEDED_MIDDLEWARE = frozenset({"BaseHTTPMiddleware", "ProtobufTranslationMiddleware", "NodeAuthMiddleware"})
# Of one request: Flower sends a model in pieces of 5 MB; whoever is not admitted is parsed before they are refused.
_LONGEST_BODY = 32 * 2**20
_KEEP_ALIVE_SECONDS = 75

_ACCOUNT = AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME)


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


@dataclass(frozen=True)
class Task:
    """A run that waits for its process, and the token that process signs with."""

    flower_run: int
    token: str
    task: int


class SuperLink:
    """What the coordinator does with Flower's memory; every call is safe beside a running SuperLink."""

    def __init__(self, state: LinkState) -> None:
        self.state = state

    @classmethod
    def open(cls, database: Path) -> SuperLink:
        """Open Flower's SQLite file; made if it is not there yet."""
        _, factory = get_objectstore_linkstate_factories(str(database), get_federation_manager())
        return cls(factory.state())

    def admit(self, name: str, public_pem: bytes) -> int:
        """Register a site's public key; Flower's node id of it.

        Raises:
            BadInput: if the key is already registered.
        """
        try:
            request = RegisterNodeRequest(public_key=public_pem, name=name)
            return int(control_handlers.register_node(request, _ACCOUNT, self.state).node_id)
        except FlowerError as error:
            if error.code == ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
                raise BadInput("this key is already admitted, under this name or another") from None
            raise

    def known(self, public_pem: bytes) -> int | None:
        """Flower's node id of a key, if it is registered; it may be from an admission that broke off."""
        return self.state.get_node_id_by_public_key(public_pem)

    def start_run(self) -> int:
        """Start a Flower run of our bundle without code; Flower's run id."""
        request = StartRunRequest(fab=Fab(hash_str=bundle.DIGEST, content=bundle.CONTENT))
        return int(control_handlers.start_run(request, _ACCOUNT, self.state, None).run_id)

    def acquire(self) -> Task | None:
        """The oldest run that waits for its process, which is then ours to start; None if none waits."""
        request = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
        response = runtime_handlers.acquire_task(request, self.state)
        if not response.token:
            return None
        return Task(flower_run=response.task.run_id, token=response.token, task=response.task.task_id)

    def end(self, task: Task, *, completed: bool) -> None:
        """Say that a run's process has ended, so that no site works on for it."""
        self.state.finish_task(task.task, SubStatus.COMPLETED if completed else SubStatus.FAILED, "")
        self.state.delete_messages(self.state.get_message_ids_from_run_id(task.flower_run))
        self.state.object_store.delete_objects_in_run(task.flower_run)

    def end_all(self) -> None:
        """End what an earlier coordinator left unfinished; its processes are gone."""
        for task in self.state.get_tasks(statuses=[Status.PENDING, Status.STARTING, Status.RUNNING]):
            self.end(Task(flower_run=task.run_id, token="", task=task.task_id), completed=False)


class Listeners:
    """The SuperLink's two listeners.

    Args:
        database: Flower's SQLite file.
        certificate, key, ca: PEM files of the public one.
        public: a bound socket for the sites.
        loopback: a bound socket for the runs' own processes.
    """

    def __init__(
        self, database: Path, *, certificate: Path, key: Path, ca: Path, public: socket.socket, loopback: socket.socket
    ) -> None:
        host, port = loopback.getsockname()[:2]
        application = create_app(
            SuperLinkLifespanConfig(
                control_address="",
                health_server_address=None,
                host=host,
                port=port,
                insecure=True,  # of what it would start itself, which is nothing; the public listener has TLS
                certificates=None,
                # Nobody knows it: tasks are acquired in this process, and over HTTP by no one.
                superexec_auth_secret=secrets.token_bytes(32),
                authn_plugin=NoOpControlAuthnPlugin(),
                event_log_plugin=None,
                fleet_event_log_plugin=None,
                enable_event_log=False,
                artifact_provider=None,
                enable_supernode_auth=True,
                fleet_api_type="",
                fleet_api_address=None,
                simulation=False,
                ssl_ca_certfile=str(ca),
                ssl_certfile=str(certificate),
                ssl_keyfile=str(key),
                database=str(database),
                isolation="process",
                runtime_dependency_install=False,
            ),
            SuperLinkLifespan,
        )
        self.superlink = SuperLink(application.state.linkstate_factory.state())
        # Of nine layers, six are for the control interface and for records nobody keeps: a third of a request's cost.
        application.user_middleware[:] = [
            layer for layer in application.user_middleware if getattr(layer.cls, "__name__", "") in _NEEDED_MIDDLEWARE
        ]
        for_sites, for_runs = Bell(), Bell()
        fleet = Ringing(
            Holding(application, "/v1/fleet/pull-messages", for_sites),
            ("/v1/fleet/push-messages", "/v1/fleet/push-object"),
            for_runs,
        )
        runtime = Ringing(
            Holding(application, "/v1/runtime/pull-messages", for_runs),
            ("/v1/runtime/push-messages", "/v1/runtime/push-object"),
            for_sites,
        )
        self._sockets = (public, loopback)
        self._servers = (
            uvicorn.Server(
                _config(
                    Only(fleet, PUBLIC),
                    ssl_certfile=str(certificate),
                    ssl_keyfile=str(key),
                    lifespan="off",
                )
            ),
            uvicorn.Server(_config(Only(runtime, LOOPBACK), lifespan="off")),
        )

    def serve(self) -> None:
        """Serve both until `stop`; in a thread of its own, for uvicorn takes the main thread's signals."""
        with asyncio.Runner(loop_factory=self._servers[0].config.get_loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
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

    def stop(self) -> None:
        """End serving; from any thread."""
        for server in self._servers:
            server.should_exit = True


def _config(application: Application, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=3,
        server_header=False,
        **options,
    )
