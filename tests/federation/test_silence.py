"""A whole federation speaks to nobody but itself, as the kernel sees it, real or simulated on Ray.

Every `connect`, `sendto`, `sendmsg` and `sendmmsg` of every process is recorded by strace, name look-ups included;
and where the system lets us, all of it happens in a network that has loopback and nothing else, so that whatever was
tried would have failed. The recorder is shown to see what must not be there.
"""

import ipaddress
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.federation,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed (apt install strace)"),
]

HERE = Path(__file__).parent
_ADDRESS = re.compile(r'(?:inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)")')
_LOCAL_SOCKET = re.compile(r'sun_path=@?"([^"]+)"')
# Sockets in the file system behind which somebody else looks names up, or speaks to the world.
_GO_BETWEENS = re.compile(r"nscd|resolve|avahi|dbus|mdns", re.IGNORECASE)
# Asking nscd who is user 0 is not looking a host up, and nothing leaves: it is asked before the files are read.
_NSCD = "/var/run/nscd/socket"


def _alone() -> tuple[str, ...]:
    """A prefix that gives a command a network of its own, where that is allowed."""
    prefix = ("unshare", "--user", "--map-root-user", "--net", "--")
    try:
        allowed = subprocess.run([*prefix, "true"], capture_output=True, timeout=20).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        allowed = False
    return prefix if allowed else ()


def _watched(folder: Path, what: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run `silent.py` under the recorder; what it said, and the lines that lead outside."""
    record = folder / "record"
    watcher = ["strace", "-f", "-qq", "-s", "64", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(record)]
    done = subprocess.run(
        [*_alone(), *watcher, sys.executable, str(HERE / "silent.py"), str(folder), what],
        capture_output=True,
        text=True,
        timeout=540,
        env={**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"},
    )
    lines = record.read_text(errors="replace").splitlines()
    assert len(lines) > 3, done.stderr
    return done, [line for line in lines if _leads_outside(line)]


def _leads_outside(line: str) -> bool:
    for found in _ADDRESS.finditer(line):
        address = ipaddress.ip_address(found[1] or found[2])
        if not (getattr(address, "ipv4_mapped", None) or address).is_loopback:
            return True
        if "htons(53)" in line:
            return True
    return any(_GO_BETWEENS.search(path) and path != _NSCD for path in _LOCAL_SOCKET.findall(line))


def test_the_recorder_sees_a_connection_a_datagram_and_a_look_up(tmp_path):
    _, outside = _watched(tmp_path, "loud")
    assert any("192.0.2.1" in line and "connect(" in line for line in outside)
    assert any("192.0.2.2" in line and "sendto(" in line for line in outside)
    assert any("htons(53)" in line or _GO_BETWEENS.search(line) for line in outside)


def test_a_whole_federation_tries_no_connection_but_its_own(tmp_path):
    done, outside = _watched(tmp_path, "federation")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "completed" in done.stdout
    assert outside == []
    # All its processes were watched: each spoke over loopback.
    record = (tmp_path / "record").read_text(errors="replace")
    speakers = {line.split()[0] for line in record.splitlines() if 'inet_addr("127.0.0.1")' in line}
    assert len(speakers) >= 5  # two SuperNodes, two executors, the run's own process


def test_a_simulation_on_ray_tries_no_connection_but_its_own(tmp_path):
    done, outside = _watched(tmp_path, "ray")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "completed" in done.stdout
    assert outside == []
