"""Flower's SuperLink, inside the coordinator's process: its memory, and what is done in it.

Flower's control interface, over which anybody who reaches it may start runs and admit keys, is served nowhere: what
it does, the coordinator does here itself, on behalf of who may write in its home.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, Status, SubStatus
from flwr.proto.control_pb2 import RegisterNodeRequest, StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.server.superlink.linkstate import LinkState
from flwr.supercore import sql_mixin
from flwr.supercore.auth.typing import AccountInfo
from flwr.supercore.constant import NodeStatus, TaskType
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.logger import update_console_handler
from flwr.supercore.state.schema.linkstate_models import Node as NodeModel
from flwr.supercore.utils import uint64_to_int64
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
from sqlalchemy import update

from shared import bundle
from shared.errors import BadInput

update_console_handler(level=logging.WARNING, timestamps=True, colored=False)
# Flower lets every connection keep 64 MB of pages, and map 256 MB more: several models' worth, for nothing.
sql_mixin.SQLITE_PRAGMAS = tuple(  # type: ignore[attr-defined, assignment]
    (name, value)
    for name, value in sql_mixin.SQLITE_PRAGMAS  # type: ignore[attr-defined]
    if name not in ("cache_size", "mmap_size")
)

# Of Flower's layers around a request; the others are for the control interface, or keep records nobody reads.
NEEDED_MIDDLEWARE = frozenset({"BaseHTTPMiddleware", "ProtobufTranslationMiddleware", "NodeAuthMiddleware"})
ACCOUNT = AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME)


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
            return int(control_handlers.register_node(request, ACCOUNT, self.state).node_id)
        except FlowerError as error:
            if error.code == ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
                raise BadInput("this key is already admitted, under this name or another") from None
            raise

    def known(self, public_pem: bytes) -> int | None:
        """Flower's node id of a key, if it is registered; it may be from an admission that broke off."""
        return self.state.get_node_id_by_public_key(public_pem)

    def dismiss(self, node: int) -> None:
        """Forget a site's key, if it is not forgotten yet: its next request is refused, and so is every later one."""
        with suppress(ValueError):
            self.state.delete_node(owner_aid=NOOP_FLWR_AID, node_id=node)

    def rekey(self, node: int, public_pem: bytes) -> None:
        """Put another key in the place of a site's. Flower has no such call; the node stays the same to every run."""
        changed = (
            update(NodeModel)
            .where(NodeModel.node_id == uint64_to_int64(node), NodeModel.status != NodeStatus.UNREGISTERED)
            .values(public_key=public_pem)
        )
        with self.state.session() as session:  # type: ignore[attr-defined]
            session.execute(changed)
        # With the new key it may connect at once: nobody can sign off with the old one any more.
        self.state.deactivate_node(node)

    def start_run(self) -> int:
        """Start a Flower run of our bundle without code; Flower's run id."""
        request = StartRunRequest(fab=Fab(hash_str=bundle.DIGEST, content=bundle.CONTENT))
        return int(control_handlers.start_run(request, ACCOUNT, self.state, None).run_id)

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


def application(database: Path) -> FastAPI:
    """Flower's application, with all its interfaces: serve of it only what is meant for whom. It starts nothing.

    Args:
        database: Flower's SQLite file.
    """
    made = create_app(
        SuperLinkLifespanConfig(
            control_address="",
            health_server_address=None,
            host="127.0.0.1",
            port=0,
            insecure=True,  # of what it would start itself, which is nothing; the sites' listener has TLS
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
            ssl_ca_certfile=None,
            ssl_certfile=None,
            ssl_keyfile=None,
            database=str(database),
            isolation="process",
            runtime_dependency_install=False,
        ),
        SuperLinkLifespan,
    )
    made.user_middleware[:] = [
        layer for layer in made.user_middleware if getattr(layer.cls, "__name__", "") in NEEDED_MIDDLEWARE
    ]
    return made
