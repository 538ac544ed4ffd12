"""What the design says is refused is tried here, against real processes."""

import io
import json
import socket
import ssl
import stat
import threading
import zipfile

import httpx
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest, GetNodesRequest, PullTaskInputRequest
from flwr.supercore.interceptors import SuperExecAuthHttpInterceptor
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.servicer.control import control_handlers
from harness import TINY, federation, listening, until

from client import credentials
from client.flower.executor import TaskToken
from client.site import Coordinator, Site, SiteConfig
from server.flower.serverapp import WaitingGrid
from server.flower.superlink import ACCOUNT, SuperLink
from shared import identity

pytestmark = pytest.mark.federation

PROTOBUF = {"content-type": PROTOBUF_MEDIA_TYPE}


@pytest.fixture(scope="module")
def fed(tmp_path_factory):
    with federation(tmp_path_factory.mktemp("security"), sites=("north",), **TINY) as running:
        running.plan(rounds=1, sites=1)
        yield running


@pytest.fixture
def outside(fed):
    """Somebody who has the CA certificate and can reach the public port."""
    with httpx.Client(
        base_url=f"https://localhost:{fed.home.config.port}", verify=str(fed.home.ca), headers=PROTOBUF
    ) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("/v1/control/list-nodes", ListNodesRequest()),
        ("/v1/control/start-run", StartRunRequest()),
        ("/v1/control/register-node", RegisterNodeRequest(public_key=b"x")),
        ("/v1/control/stop-run", StartRunRequest()),
        ("/v1/runtime/acquire-task", AcquireTaskRequest(supported_task_types=["flwr-serverapp"])),
        ("/v1/runtime/pull-task-input", PullTaskInputRequest()),
        ("/v1/runtime/get-nodes", GetNodesRequest()),
        ("/v1/runtime/responses", GetNodesRequest()),
        ("/v1//control/list-nodes", ListNodesRequest()),
        ("/v1/fleet/../control/list-nodes", ListNodesRequest()),
        ("/v1/fleet/%2e%2e/control/list-nodes", ListNodesRequest()),
        ("/docs", GetNodesRequest()),
        ("/openapi.json", GetNodesRequest()),
        ("/", GetNodesRequest()),
    ],
)
def test_the_public_port_answers_nothing_but_the_fleet_interface(outside, path, request_):
    url = httpx.URL(str(outside.base_url)).copy_with(raw_path=path.encode())
    response = outside.post(url, content=request_.SerializeToString())
    assert response.status_code in (403, 404)
    assert not response.content or response.status_code == 404
    if not path.startswith("/v1/fleet/"):
        assert response.status_code == 403
    assert outside.get(url).status_code in (403, 404)


def test_the_public_port_says_that_it_is_healthy(outside):
    assert outside.get("/health").status_code == 200


def test_the_loopback_port_has_no_control_interface_and_hands_tasks_to_nobody(fed):
    with httpx.Client(base_url=f"http://127.0.0.1:{fed.home.running()['loopback']}", headers=PROTOBUF) as local:
        for path in ("/v1/control/list-nodes", "/v1/control/start-run", "/v1/fleet/pull-messages", "/docs"):
            assert local.post(path, content=b"").status_code == 403
        asked = AcquireTaskRequest(supported_task_types=["flwr-serverapp"]).SerializeToString()
        assert local.post("/v1/runtime/acquire-task", content=asked).status_code == 401
        assert local.post("/v1/runtime/get-nodes", content=b"").status_code == 401


def test_the_loopback_port_is_on_loopback_and_the_hospital_listens_nowhere_else(fed):
    addresses = {name: listening(pid) for name, pid in fed.processes().items()}
    assert {address for address, _ in addresses.pop("coordinator")} == {"127.0.0.1"}
    assert addresses["north supernode"]
    for found in addresses.values():
        assert all(address == "127.0.0.1" for address, _ in found)


def test_an_unsigned_question_to_the_fleet_interface_is_refused(fed, outside):
    node = next(iter(fed.home.store.sites.admitted().values())).node_id
    asked = PullMessagesRequest(node=Node(node_id=node)).SerializeToString()
    assert outside.post("/v1/fleet/pull-messages", content=asked).status_code == 401
    key = identity.public_pem(identity.new_key().public_key())
    activate = ActivateNodeRequest(public_key=key, heartbeat_interval=30).SerializeToString()
    assert outside.post("/v1/fleet/activate-node", content=activate).status_code == 401


def test_a_body_that_is_too_long_is_refused_before_it_is_read(outside, fed):
    with socket.create_connection(("127.0.0.1", fed.home.config.port)) as raw:
        context = ssl.create_default_context(cafile=str(fed.home.ca))
        with context.wrap_socket(raw, server_hostname="localhost") as tls:
            tls.sendall(
                b"POST /v1/fleet/push-object HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
                b"content-length: 99999999\r\n\r\n"
            )
            assert tls.recv(100).startswith(b"HTTP/1.1 413")

    def endless():
        yield b"x" * 10

    assert outside.post("/v1/fleet/push-object", content=endless()).status_code == 411


def test_an_old_tls_is_refused(fed):
    context = ssl.create_default_context(cafile=str(fed.home.ca))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", fed.home.config.port)) as raw,
        pytest.raises(ssl.SSLError),
        context.wrap_socket(raw, server_hostname="localhost"),
    ):
        pass


def test_without_tls_the_public_port_answers_nothing(fed):
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://localhost:{fed.home.config.port}/health")


def _stranger(fed, name: str, *, address: str | None = None, ca: bytes | None = None) -> Site:
    site = Site.create(fed.folder / name, SiteConfig(name=name))
    credentials.equip(site)
    coordinator = Coordinator(address=address or f"127.0.0.1:{fed.home.config.port}")
    fed.sites[name] = credentials.trust(site, coordinator, ca=ca or fed.home.ca.read_bytes())
    fed.start_site(name)
    return fed.sites[name]


def _problem(fed, name: str) -> str:
    try:
        return until(lambda: fed.status(name).get("problem"), 40, f"{name}: a problem")
    finally:
        assert not fed.status(name)["connected"]
        fed.daemons.pop(name).stop()


def test_a_site_that_was_not_admitted_is_refused_and_told_why(fed):
    _stranger(fed, "stranger")
    assert "does not know this site's key" in _problem(fed, "stranger")


def test_a_site_does_not_speak_to_a_coordinator_of_another_authority(fed):
    _stranger(fed, "cautious", ca=identity.new_authority("other").certificate_pem)
    assert "not signed by ca.pem" in _problem(fed, "cautious")


def test_a_site_does_not_speak_to_a_coordinator_without_tls(fed):
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer():
            while True:
                try:
                    connection, _ = plain.accept()
                except OSError:
                    return
                heard.append(connection.recv(1000))
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        _stranger(fed, "prudent", address=f"127.0.0.1:{plain.getsockname()[1]}")
        assert "TLS" in _problem(fed, "prudent")
    assert heard
    assert all(first[:1] == b"\x16" for first in heard)  # a TLS handshake, and nothing of ours in the clear


def test_an_executor_without_the_shared_secret_is_refused(fed):
    ((host, port),) = listening(fed.processes()["north supernode"])
    question = AcquireTaskRequest(supported_task_types=["flwr-clientapp"])
    wrong = SuperExecAuthHttpInterceptor(
        master_secret=b"x" * 32, protected_methods=frozenset({"/flwr.proto.Runtime/AcquireTask"})
    )
    for interceptors in ([], [wrong], [TaskToken()]):
        client = RuntimeHttpClient(f"http://{host}:{port}", interceptors=interceptors, verify=False)
        with client, pytest.raises(httpx.HTTPStatusError) as refused:
            client.AcquireTask(question)
        assert refused.value.response.status_code == 401
    assert fed.status("north")["connected"]


def test_private_keys_and_what_tells_of_patients_are_readable_by_their_owner_only(fed):
    coordinator, site = fed.home.path, fed.sites["north"].home
    for file in (
        coordinator / "keys" / "ca.key",
        coordinator / "keys" / "server.key",
        coordinator / "server.toml",
        coordinator / "coordinator.json",
        site / "keys" / "site.pem",
        site / "keys" / "secret",
        site / "site.toml",
    ):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    for folder in (coordinator, coordinator / "keys", site, site / "keys", site / "state", site / "log"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


def _foreign_bundle(marker) -> bytes:
    code = f"open({str(marker)!r}, 'a').write('ran')\n"
    pyproject = """
[project]
name = "foreign"
version = "1.0.0"
dependencies = []
[tool.flwr.app]
publisher = "mallory"
[tool.flwr.app.components]
serverapp = "foreign:app"
clientapp = "foreign:app"
"""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pyproject.toml", pyproject)
        for name in ("foreign.py", "sitecustomize.py", "client/app.py", "client/__init__.py", "tiny.py"):
            archive.writestr(name, code)
    return buffer.getvalue()


def test_the_code_of_a_foreign_bundle_never_runs_at_a_site(fed, tmp_path):
    marker = tmp_path / "marker"
    superlink = SuperLink.open(fed.home.database)
    content = _foreign_bundle(marker)
    started = control_handlers.start_run(StartRunRequest(fab=Fab(content=content)), ACCOUNT, superlink.state, None)
    task = superlink.acquire()
    assert task.flower_run == started.run_id
    grid = WaitingGrid(f"127.0.0.1:{fed.home.running()['loopback']}", task.token)
    grid.identify()
    (node,) = grid.get_node_ids()
    content = RecordDict({"config": ConfigRecord({"orders": "add"})})
    (asked,) = grid.push_messages([Message(content, dst_node_id=node, message_type="train")])
    (reply,) = until(lambda: list(grid.pull_messages([asked])), 30, "a reply")
    grid.close()
    superlink.end(task, completed=False)
    assert dict(reply.content["config"]) == {"kind": "Refusal", "protocol": 2, "code": "protocol"}
    assert not marker.exists()
    assert not list(fed.sites["north"].home.rglob("foreign*"))


def test_the_text_of_an_exception_does_not_leave_a_site_and_is_in_no_log(fed, any_job):
    fed.plan(rounds=1, sites=1, orders="raise")
    run = fed.submit(any_job)
    assert fed.wait(run).status == "completed"
    report = fed.report(run)
    (said,) = report["replies"][0].values()
    assert said == {"config": {"kind": "Refusal", "protocol": 2, "code": "failed"}}
    assert "DOE" not in json.dumps(report)
    log = (fed.sites["north"].home / "log" / "executor.log").read_text()
    assert "the ClientApp failed: ValueError at client/flower/executor.py:" in log
    assert "DOE" not in log
    fed.plan(rounds=1, sites=1)


def test_the_app_sees_the_sites_own_home_and_nothing_the_coordinator_configured(fed, any_job):
    fed.plan(rounds=1, sites=1)
    run = fed.submit(any_job)
    assert fed.wait(run).status == "completed"
    (said,) = fed.report(run)["replies"][0].values()
    assert said["config"]["home"] == "north"
    assert said["config"]["run_config"] == "{}"
