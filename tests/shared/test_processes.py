"""Children get their instructions, end in order, and do not outlive their parent."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from shared.processes import Child

_CHILD = """
import json, os, sys, time
from pathlib import Path
from shared.processes import Orders, write_to
orders = Orders()
first = orders.next()
Path(first["out"]).write_text(json.dumps({**first, "pid": os.getpid(), "arguments": sys.argv}))
print("said", flush=True)
if first.get("further"):
    write_to(Path(first["further"]))
    print(orders.next()["word"], flush=True)
    sys.exit(3)
if first.get("stubborn"):
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(first["out"]).with_suffix(".ready").touch()
time.sleep(60)
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "obedient.py").write_text(textwrap.dedent(_CHILD))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    children = []

    def start(**instructions) -> Child:
        children.append(
            Child("obedient", {"out": str(tmp_path / "out.json"), **instructions}, log=tmp_path / "log" / "child.log")
        )
        return children[-1]

    yield start
    for one in children:
        one.stop(1)


def _until(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _whole(file: Path) -> dict | None:
    try:
        return json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return None


def test_instructions_arrive_and_are_on_no_command_line(child, tmp_path):
    started = child(secret="s3cret")
    _until(lambda: _whole(tmp_path / "out.json"))
    said = _whole(tmp_path / "out.json")
    assert said["secret"] == "s3cret"
    assert said["pid"] == started.pid
    assert "s3cret" not in Path(f"/proc/{started.pid}/cmdline").read_text()
    assert "s3cret" not in Path(f"/proc/{started.pid}/environ").read_text()
    assert started.stop() == -signal.SIGTERM
    assert (tmp_path / "log" / "child.log").read_text() == "said\n"


def test_further_instructions_arrive_and_the_log_can_change(child, tmp_path):
    started = child(further=str(tmp_path / "other" / "log"))
    started.instruct({"word": "onwards"})
    _until(lambda: started.poll() is not None)
    assert started.poll() == 3
    assert (tmp_path / "other" / "log").read_text() == "onwards\n"


def test_who_does_not_end_when_asked_is_ended(child, tmp_path):
    started = child(stubborn=True)
    _until((tmp_path / "out.ready").exists)
    assert started.stop(grace=0.3) == -signal.SIGKILL


def test_a_module_in_the_current_folder_is_not_mistaken_for_ours(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("print('evil')")
    monkeypatch.chdir(tmp_path)
    child = Child("evil", {}, log=tmp_path / "log")
    _until(lambda: child.poll() is not None)
    assert child.poll() == 1
    assert "No module named evil" in (tmp_path / "log").read_text()


def test_a_child_ends_when_its_parent_is_killed(tmp_path, monkeypatch):
    (tmp_path / "obedient.py").write_text(textwrap.dedent(_CHILD))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    program = (
        "from shared.processes import Child; from pathlib import Path; import time; "
        f"Child('obedient', {{'out': {str(tmp_path / 'out.json')!r}}}, log=Path({str(tmp_path / 'log')!r})); "
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    _until(lambda: _whole(tmp_path / "out.json"))
    pid = _whole(tmp_path / "out.json")["pid"]
    parent.kill()
    parent.wait()
    _until(lambda: not _alive(pid))


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")
