"""Where the executor meets a SuperNode of another user: who may listen there, and what is believed of it."""

import json
import os
import socket
import stat
import threading
import time

import pytest
from flwr.proto.runtime_pb2 import AcquireTaskRequest

from client import link, state
from client.flower.executor import Patient
from shared.errors import BadInput
from shared.files import held


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "carried"
    made.mkdir(mode=0o750)
    (made / "state").mkdir()
    return made


def test_the_socket_is_for_the_owner_and_the_group_and_gone_afterwards(folder):
    with link.listening(folder):
        assert stat.S_IMODE(link.path(folder).stat().st_mode) == 0o660
        assert link.problem(folder) is None
    assert not link.path(folder).exists()
    assert "the SuperNode does not answer at" in str(link.problem(folder))


def test_the_socket_of_one_that_was_killed_is_replaced(folder):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(link.path(folder)))
    assert "does not answer" in str(link.problem(folder))
    with link.listening(folder):
        assert link.problem(folder) is None


def test_a_path_too_long_for_a_socket_is_refused(tmp_path):
    with pytest.raises(BadInput, match="too long"):
        link.path(tmp_path / ("x" * 100))


@pytest.mark.parametrize("mode", [0o770, 0o757, 0o1777])
def test_a_folder_in_which_others_write_is_refused(folder, mode):
    folder.chmod(mode)
    with pytest.raises(BadInput, match="others than the SuperNode's user can write here"):
        link.check(folder)


def test_a_folder_below_one_in_which_others_write_is_refused(folder):
    link.check(folder)
    folder.parent.chmod(0o777)
    with pytest.raises(BadInput, match="others"):
        link.check(folder)
    folder.parent.chmod(0o1777)  # as /tmp is: nobody can rename what is another's
    link.check(folder)


def test_a_folder_behind_a_link_or_that_is_not_there_is_refused(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(BadInput, match="a link leads to it"):
        link.check(tmp_path / "link")
    with pytest.raises(BadInput, match="cannot be reached"):
        link.check(tmp_path / "nowhere")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_below_another_users_is_refused(folder):
    os.chown(folder, 64001, 64001)
    link.check(folder)
    os.chown(folder.parent, 64003, 64003)
    with pytest.raises(BadInput, match="others"):
        link.check(folder)


def test_a_secret_that_is_none_is_refused(folder):
    with pytest.raises(BadInput, match="in the group"):
        link.secret(folder)
    for wrong in (b"short", b"x" * 33):
        (folder / "secret").write_bytes(wrong)
        with pytest.raises(BadInput, match="not a secret of 32 bytes"):
            link.secret(folder)


def test_the_secret_of_the_home_cannot_be_slipped_to_the_executor_by_a_link(folder, tmp_path):
    (tmp_path / "keys-secret").write_bytes(b"s" * 32)
    (folder / "secret").symlink_to(tmp_path / "keys-secret")
    with pytest.raises(BadInput, match="cannot be read"):
        link.secret(folder)


def test_what_the_supernode_says_is_what_status_shows(folder, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    state.write(folder, "daemon", {"coordinator": "there:1", "supernode": {"pid": 7, "restarts": 2}, "pid": 3})
    state.write(folder, "supernode", {"pid": 7, "contact": time.time(), "problem": None})
    with held(home, "daemon"):
        state.write(home, "daemon", {"pid": 1, "since": 5.0, "link": str(folder), "executor": {"pid": 2}})
        with link.listening(folder):
            facts = state.summary(home)
            assert (facts["pid"], facts["coordinator"], facts["connected"]) == (1, "there:1", True)
            assert facts["supernode"]["restarts"] == 2
        facts = state.summary(home)
        assert not facts["connected"]
        assert "does not answer at" in facts["problem"]


@pytest.mark.parametrize(
    "lie",
    [
        b"",
        b"[]",
        b"7",
        b"\xff\xfe",
        b"[" * 50000,
        b'{"problem": 7}',
        b'{"problem": "' + b"x" * 70000 + b'"}',
        b'{"contact": "now"}',
        b'{"pid": {"a": 1}}',
    ],
)
def test_what_another_user_wrote_there_can_only_be_a_few_facts(folder, lie):
    for part in ("daemon", "supernode"):
        (folder / "state" / f"{part}.json").write_bytes(lie)
    kept, said = link.standing(folder)
    assert said == {"pid": None, "contact": None, "problem": None}
    assert kept["supernode"]["pid"] is None


def test_what_a_terminal_would_act_on_is_not_shown(folder):
    (folder / "state" / "supernode.json").write_text(json.dumps({"problem": "a\x1b[2J\nb" + "c" * 1000, "more": 1}))
    _, said = link.standing(folder)
    assert said["problem"].startswith("a[2Jbc")
    assert len(said["problem"]) == 300
    assert set(said) == {"pid", "contact", "problem"}


def test_a_pipe_is_not_waited_for_and_a_link_not_followed(folder, tmp_path):
    os.mkfifo(folder / "state" / "daemon.json")
    (tmp_path / "elsewhere").write_text('{"problem": "of another file"}')
    (folder / "state" / "supernode.json").symlink_to(tmp_path / "elsewhere")
    assert link.standing(folder)[1]["problem"] is None


def test_the_executor_speaks_to_the_socket_past_any_proxy(folder, monkeypatch):
    heard = []
    with link.listening(folder) as bound, socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.2)
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")

        def answer() -> None:
            connection, _ = bound.accept()
            heard.append(connection.recv(1000))
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with Patient(str(link.path(folder))) as client:
            client.AcquireTask(AcquireTaskRequest())
        thread.join()
        with pytest.raises(TimeoutError):
            proxy.accept()
    assert heard[0].startswith(b"POST /v1/runtime/acquire-task")
