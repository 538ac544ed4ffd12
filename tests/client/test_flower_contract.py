"""What `client/flower` relies on in Flower's inside. A failure here means: Flower has moved, look at the room again."""

import ast
import base64
import hashlib
import inspect
import json
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import flwr
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.proto.runtime_pb2 import AcquireTaskResponse, PullAppMessagesResponse
from flwr.supercore.constant import TaskType
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supernode import start_client_internal as loop
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.runtime import run_clientapp

from client import state
from client.flower import supernode
from client.flower.executor import Executor
from shared import bundle, flat

MOVED = "Flower has moved what client/flower relies on: see that room, and notes in its modules"
SECRET = b"s" * 32


def test_the_release_is_the_one_this_room_was_written_for():
    assert flwr.__version__.startswith("1.41."), MOVED


def test_the_loop_takes_what_it_is_given():
    parameters = inspect.signature(loop.start_client_internal).parameters
    expected = {
        "state_factory",
        "server_address",
        "node_config",
        "root_certificates",
        "insecure",
        "authentication_keys",
        "isolation",
        "runtime_api_address",
        "superexec_auth_secret",
        "runtime_dependency_install",
    }
    assert expected <= set(parameters), MOVED
    # Whatever is new and has no default would be missing.
    assert {name for name, p in parameters.items() if p.default is p.empty} <= expected, MOVED


def test_the_loop_only_sleeps_with_the_module_time_and_calls_what_is_replaced_by_name():
    tree = ast.parse(Path(loop.__file__).read_text())
    used = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "time"}
    assert used == {"sleep"}, MOVED
    naps = sorted(
        n.args[0].value for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "attr", "") == "sleep"
    )
    assert naps == [0.5, 0.5, 3], MOVED
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert {"_pull_and_store_message", "_push_messages", "pull_objects"} <= called, MOVED


@pytest.mark.parametrize(
    ("where", "name"),
    [(loop, "pull_objects"), (run_clientapp, "pull_and_inflate_object_from_tree")],
)
def test_the_impatient_functions_take_a_shorter_wait(where, name):
    function = getattr(where, name)
    function = getattr(function, "func", function)  # the executor's module has replaced its own already
    assert {"initial_backoff", "backoff_cap"} <= set(inspect.signature(function).parameters), MOVED


def test_nothing_to_do_is_an_empty_answer_on_the_path_that_is_held():
    assert AcquireTaskResponse().SerializeToString() == b"", MOVED
    assert PullAppMessagesResponse().SerializeToString() == b"", MOVED
    from fastapi.routing import iter_route_contexts

    paths = {context.path for context in iter_route_contexts(create_app().routes)}
    assert "/v1/runtime/acquire-task" in paths, MOVED


def test_the_codes_that_are_explained_are_flowers_own():
    assert int(ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED) == 2004, MOVED


# The executor against a real SuperNode's memory and interface, with a coordinator's messages put in by hand.


class Node:
    """A SuperNode without a coordinator."""

    def __init__(self) -> None:
        self.states = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
        self.state = self.states.state()
        self.state.set_node_id(7)
        self.gate = supernode.Gate()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.server = supernode.listen(self.states, SECRET, self.socket.detach(), self.gate)
        while not self.server.started:
            time.sleep(0.01)
        self.address = f"127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def bring(self, content: RecordDict, fab: bytes = bundle.CONTENT, run: int = 3) -> None:
        """What the loop does with a message of the coordinator."""
        digest = hashlib.sha256(fab).hexdigest()
        self.state.store_run(replace(Run.create_empty(run), fab_hash=digest, series_id=run))
        self.state.store_fab(Fab(digest, fab, {}))
        context = Context(run, 7, node_config={"from": "flower"}, state=RecordDict(), run_config={"from": "outside"})
        self.state.set_run_series_context(run, context)
        message = make_message(
            metadata=Metadata(
                run_id=run,
                message_id="",
                src_node_id=1,
                dst_node_id=7,
                reply_to_message_id="",
                group_id="4",
                created_at=time.time(),
                ttl=1000,
                message_type="train",
            ),
            content=content,
        )
        assert self.state.create_task(task_type=TaskType.CLIENT_APP, run_id=run, fab_hash=digest)
        loop._insert_message(message, self.state, self.state.object_store)
        self.gate.open()

    def answer(self) -> Message:
        """What the loop would send to the coordinator."""
        (reply,) = self.state.get_messages_legacy(is_reply=True)
        store = self.state.object_store
        contents: dict[str, bytes] = {}

        def walk(tree):
            contents[tree.object_id] = store.get(tree.object_id)
            for child in tree.children:
                walk(child)

        walk(store.get_object_tree(reply.metadata.message_id))
        return inflate_object_from_contents(reply.metadata.message_id, contents)


@pytest.fixture
def node():
    one = Node()
    yield one
    one.server.should_exit = True


def _executor(node: Node, home: Path, app) -> Executor:
    return Executor(app, address=node.address, secret=SECRET, home=home)


MODEL = RecordDict(
    {"model": ArrayRecord({"w": Array(np.arange(3.0, dtype=np.float32))}), "config": ConfigRecord({"word": "hello"})}
)


def test_a_message_reaches_the_app_as_it_was_sent_and_its_reply_comes_back(node, tmp_path):
    seen = []

    def app(message, context):
        seen.append((message, context))
        doubled = ArrayRecord({"w": Array(message.content["model"]["w"].numpy() * 2)})
        return Message(RecordDict({"model": doubled}), reply_to=message)

    executor = _executor(node, tmp_path, app)
    node.bring(flat.flatten(MODEL))
    assert executor.answer_one()
    (asked, context), *_ = seen
    assert asked.content["config"]["word"] == "hello"
    assert (asked.metadata.message_type, asked.metadata.group_id) == ("train", "4")
    assert context.node_config == {"home": str(tmp_path)}
    assert context.run_config == {}
    assert flat.restore(node.answer().content)["model"]["w"].numpy().tolist() == [0, 2, 4]
    assert state.read(tmp_path, "executor")["last"]["round"] == "4"
    assert state.read(tmp_path, "unanswered") == {}
    assert not executor.answer_one()


def _refusal(node: Node) -> dict:
    content = flat.restore(node.answer().content)
    assert list(content) == ["config"]
    return dict(content["config"])


@pytest.mark.parametrize("secret", ["PatientName DOE^JOHN", "/data/scans/doe.dcm"])
def test_no_text_of_an_exception_and_no_error_of_the_app_leaves(node, tmp_path, secret):
    def raising(message, context):
        raise RuntimeError(secret)

    def erring(message, context):
        return Message(Error(0, secret), reply_to=message)

    for app in (raising, erring, lambda message, context: None, lambda message, context: secret):
        node.bring(flat.flatten(MODEL))
        assert _executor(node, tmp_path, app).answer_one()
        assert _refusal(node) == {"kind": "Refusal", "protocol": 2, "code": "failed"}


def test_a_run_with_another_bundle_and_a_malformed_message_never_reach_the_app(node, tmp_path):
    def app(message, context):
        raise AssertionError("reached")

    executor = _executor(node, tmp_path, app)
    node.bring(flat.flatten(MODEL), fab=bundle.CONTENT + b"more", run=4)
    assert executor.answer_one()
    assert _refusal(node)["code"] == "protocol"
    node.bring(MODEL)
    assert executor.answer_one()
    assert _refusal(node)["code"] == "malformed"


def test_what_an_executor_died_of_is_refused_by_the_next(node, tmp_path):
    class Killed(BaseException):
        pass

    def dying(message, context):
        kept.append(json.loads((tmp_path / "state" / "unanswered.json").read_text()))
        raise Killed

    kept: list[dict] = []
    node.bring(flat.flatten(MODEL))
    with pytest.raises(Killed):
        _executor(node, tmp_path, dying).answer_one()
    assert base64.b64decode(kept[0]["message"])
    state.write(tmp_path, "unanswered", kept[0])  # a process that is killed does not clear up
    _executor(node, tmp_path, dying)._answer_for_the_last()
    assert _refusal(node)["code"] == "failed"
    assert state.read(tmp_path, "unanswered") == {}


def test_a_task_is_handed_out_at_once_and_the_question_is_held_otherwise(node, tmp_path):
    executor = _executor(node, tmp_path, lambda message, context: Message(RecordDict(), reply_to=message))
    began = time.monotonic()
    assert not executor.answer_one()
    assert 0.9 < time.monotonic() - began < 5
    threading.Timer(0.3, node.bring, [flat.flatten(MODEL)]).start()
    began = time.monotonic()
    assert executor.answer_one()
    assert time.monotonic() - began < 1.0


def test_a_message_whose_run_ended_before_its_pieces_came_does_not_hold_up_the_next(node, tmp_path):
    lost = node.state.create_task(task_type=TaskType.CLIENT_APP, run_id=9, fab_hash=bundle.DIGEST)
    assert lost is not None
    supernode.forget_what_never_came(node.state)
    node.bring(flat.flatten(MODEL))
    assert _executor(node, tmp_path, lambda message, context: Message(MODEL, reply_to=message)).answer_one()
    (reply,) = node.state.get_messages_legacy(is_reply=True)
    assert reply.metadata.run_id == 3
