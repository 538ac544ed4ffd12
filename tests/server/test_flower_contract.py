"""What `server/flower` relies on in Flower's inside. A failure here means: Flower has moved, look at the room again."""

import contextlib
import inspect
import socket
import sqlite3
import ssl
import threading
from dataclasses import fields

import flwr
import httpx
import pytest
from fastapi.routing import iter_route_contexts
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import Message as Proto
from flwr.proto.message_pb2 import Metadata as ProtoMetadata
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.server.superlink.linkstate import LinkState
from flwr.supercore import sql_mixin
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.grid import HttpGrid, http_grid
from flwr.superlink.main import create_app
from flwr.superlink.servicer.control import control_handlers
from flwr.superlink.servicer.runtime import runtime_handlers

from server.admission import admit
from server.flower import superlink
from server.flower.listeners import Listeners
from server.flower.serverapp import OneAtATime, WaitingGrid
from server.flower.superlink import SuperLink
from server.home import Home, ServerConfig
from shared import bundle, identity
from shared.errors import BadInput

MOVED = "Flower has moved what server/flower relies on: see that room, and notes in its modules"


def test_the_release_is_the_one_this_room_was_written_for():
    assert flwr.__version__.startswith("1.41."), MOVED


def test_the_superlink_is_configured_by_the_fields_that_are_given():
    assert {field.name for field in fields(SuperLinkLifespanConfig)} == {
        "control_address",
        "health_server_address",
        "host",
        "port",
        "insecure",
        "certificates",
        "superexec_auth_secret",
        "authn_plugin",
        "event_log_plugin",
        "fleet_event_log_plugin",
        "enable_event_log",
        "artifact_provider",
        "enable_supernode_auth",
        "fleet_api_type",
        "fleet_api_address",
        "simulation",
        "ssl_ca_certfile",
        "ssl_certfile",
        "ssl_keyfile",
        "database",
        "isolation",
        "runtime_dependency_install",
    }, MOVED


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (control_handlers.register_node, ["request", "account", "state"]),
        (control_handlers.start_run, ["request", "account", "state", "fleet_api_type", "source"]),
        (runtime_handlers.acquire_task, ["request", "state"]),
        (LinkState.finish_task, ["self", "task_id", "sub_status", "details"]),
        (LinkState.get_node_id_by_public_key, ["self", "public_key"]),
        (LinkState.get_message_ids_from_run_id, ["self", "run_id"]),
        (LinkState.delete_messages, ["self", "message_ins_ids"]),
        (LinkState.delete_node, ["self", "owner_aid", "node_id"]),
        (LinkState.deactivate_node, ["self", "node_id"]),
    ],
)
def test_what_is_called_in_process_takes_what_it_is_given(function, parameters):
    assert list(inspect.signature(function).parameters) == parameters, MOVED


def test_every_path_of_flowers_belongs_to_an_interface_that_is_known():
    paths = {context.path for context in iter_route_contexts(create_app().routes)}
    known = ("/v1/fleet/", "/v1/runtime/", "/v1/control/")
    others = {path for path in paths if not path.startswith(known)}
    assert others <= {"/health", "/docs", "/docs/oauth2-redirect", "/openapi.json"}, MOVED
    for held in ("/v1/fleet/pull-messages", "/v1/runtime/pull-messages"):
        assert held in paths, MOVED
    assert PullMessagesResponse().SerializeToString() == b"", MOVED
    assert PullAppMessagesResponse().SerializeToString() == b"", MOVED


def test_the_layers_that_are_kept_are_there_and_those_left_out_are_the_ones_known():
    layers = [layer.cls.__name__ for layer in create_app().user_middleware]
    assert [name for name in layers if name in superlink.NEEDED_MIDDLEWARE] == [
        "BaseHTTPMiddleware",
        "ProtobufTranslationMiddleware",
        "NodeAuthMiddleware",
    ], MOVED
    assert set(layers) - superlink.NEEDED_MIDDLEWARE == {
        "ControlSensitiveResponseMiddleware",
        "ControlAuthenticationMiddleware",
        "ControlLicenseMiddleware",
        "RuntimeTracingMiddleware",
        "ControlEventLogMiddleware",
        "FleetEventLogMiddleware",
    }, MOVED


def test_the_grid_connects_as_it_is_overridden():
    source = inspect.getsource(HttpGrid)
    for name in ("self._client", "self._addr", "self._token", "self._retry_invoker", "self._runtime_client"):
        assert name in source, MOVED
    assert "self._connect()" in inspect.getsource(HttpGrid._runtime_client.fget), MOVED
    pull = getattr(http_grid.pull_objects, "func", http_grid.pull_objects)
    assert {"initial_backoff", "backoff_cap"} <= set(inspect.signature(pull).parameters), MOVED


def test_sqlite_waits_for_others_and_keeps_little_in_memory():
    names = [name for name, _ in sql_mixin.SQLITE_PRAGMAS]
    assert {"busy_timeout", "journal_mode", "foreign_keys"} <= set(names), MOVED
    assert not {"cache_size", "mmap_size"} & set(names), MOVED


# The real thing, on two real ports, without sites.


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = tmp_path_factory.mktemp("contract") / "home"
    return Home.create(path, ServerConfig(host="coordinator.example.org", listen="127.0.0.1", port=0))


@pytest.fixture(scope="module")
def listeners(home):
    with contextlib.ExitStack() as stack:
        public, loopback = (stack.enter_context(_bound()) for _ in range(2))
        one = Listeners(home.database, certificate=home.certificate, key=home.key, public=public, loopback=loopback)
        one.public_port, one.loopback_port = (bound.getsockname()[1] for bound in (public, loopback))
        serving = threading.Thread(target=one.serve, daemon=True)
        serving.start()
        one.wait_until_serving()
        yield one
        one.stop()
        serving.join(20)
        assert not serving.is_alive()


def _bound() -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    return bound


def test_a_key_is_registered_with_flower_and_in_the_store_beside_a_running_superlink(home, listeners):
    key = identity.new_key().public_key()
    node = admit(home, "north", key)
    row = home.store.sites.admitted()["north"]
    assert (row.node_id, row.public_key) == (node, identity.public_pem(key).decode())
    assert listeners.superlink.known(identity.public_pem(key)) == node
    with pytest.raises(BadInput, match="already admitted"):
        admit(home, "other", key)
    with pytest.raises(BadInput, match="already admitted"):
        admit(home, "north", identity.new_key().public_key())
    with pytest.raises(BadInput, match="already admitted"):
        listeners.superlink.admit("twice", identity.public_pem(key))


def test_an_admission_that_broke_off_is_taken_up_again(home, listeners):
    key = identity.new_key().public_key()
    node = SuperLink.open(home.database).admit("south", identity.public_pem(key))
    assert "south" not in home.store.sites.admitted()
    assert admit(home, "south", key) == node


def test_a_run_is_started_acquired_once_identified_and_ended(home, listeners):
    run = listeners.superlink.start_run()
    task = listeners.superlink.acquire()
    assert task.flower_run == run
    assert listeners.superlink.acquire() is None
    grid = WaitingGrid(f"127.0.0.1:{listeners.loopback_port}", task.token)
    assert grid.identify()[0] == run
    assert grid.run.fab_hash == bundle.DIGEST
    assert list(grid.get_node_ids()) == []
    listeners.superlink.end(task, completed=True)
    asked = httpx.post(
        f"http://127.0.0.1:{listeners.loopback_port}/v1/runtime/get-nodes",
        headers={"content-type": PROTOBUF_MEDIA_TYPE, "flwr-task-token": task.token},
    )
    assert asked.status_code == 401
    grid.close()


def test_what_an_earlier_coordinator_left_is_ended(listeners):
    listeners.superlink.start_run()
    listeners.superlink.end_all()
    assert listeners.superlink.acquire() is None


def test_both_ports_admit_their_own_interface_only(home, listeners):
    context = ssl.create_default_context(cafile=str(home.ca))
    for base, verify, own, others in (
        (f"https://localhost:{listeners.public_port}", context, "fleet", ("runtime", "control")),
        (f"http://127.0.0.1:{listeners.loopback_port}", True, "runtime", ("fleet", "control")),
    ):
        with httpx.Client(base_url=base, verify=verify, headers={"content-type": PROTOBUF_MEDIA_TYPE}) as client:
            assert client.get("/health").status_code == 200
            assert client.post(f"/v1/{own}/pull-messages").status_code == 401
            for other in others:
                assert client.post(f"/v1/{other}/pull-messages").status_code == 403
            assert client.get("/docs").status_code == 403


def test_flowers_memory_is_a_file_of_sqlite_in_the_home(home, listeners):
    with contextlib.closing(sqlite3.connect(home.database)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"node", "run", "message_ins", "message_res", "objects"} <= tables, MOVED


def test_a_key_is_changed_in_its_place_and_a_dismissed_one_is_known_no_more(tmp_path):
    memory = SuperLink.open(tmp_path / "superlink.sqlite")
    old, new = (identity.public_pem(identity.new_key().public_key()) for _ in range(2))
    node = memory.admit("north", old)
    memory.rekey(node, new)
    assert (memory.known(old), memory.known(new)) == (None, node), MOVED
    memory.dismiss(node)
    memory.dismiss(node)
    assert memory.known(new) is None, MOVED


def test_a_reply_that_nobody_asks_for_any_more_is_dropped_and_the_next_is_handed_on(monkeypatch):
    """Flower hands over all that is there, whatever is asked for: with it those of a round that is over."""

    def arrived(self, request):
        messages = [Proto(metadata=ProtoMetadata(reply_to_message_id=name)) for name in ("late", "a", "b")]
        return PullAppMessagesResponse(messages_list=messages, message_object_trees=[ObjectTree() for _ in messages])

    monkeypatch.setattr(RuntimeHttpClient, "PullMessages", arrived)
    client = OneAtATime("http://127.0.0.1:1", interceptors=[], verify=False)
    found = [client.PullMessages(PullAppMessagesRequest(message_ids=["a", "b"])) for _ in range(2)]
    assert [one.messages_list[0].metadata.reply_to_message_id for one in found] == ["a", "b"]
