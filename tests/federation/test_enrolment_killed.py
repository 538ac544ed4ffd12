"""`join` is killed at every step, and the same command with the same ticket does the rest, with the same key."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from enrolling import coordinating

from client.audit import verification
from client.ledger import Ledger
from client.site import Site
from shared import identity

pytestmark = pytest.mark.federation

PROGRAM = Path(__file__).with_name("killed_joining.py")


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    with coordinating(tmp_path_factory.mktemp("killed")) as running:
        yield running


def _join(there, name: str, step: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROGRAM, there.file(name), there.folder / name, str(step)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.chaos
def test_killed_at_any_step_the_same_command_does_the_rest(there):
    there.invite("whole")
    done = _join(there, "whole", 0)
    assert done.returncode == 0, done.stderr
    steps = int(done.stdout)
    assert steps > 30
    # Each process begins where the one before was killed, one step further than that one came: every step is the last
    # of some process, and the last process comes to the end.
    there.invite("killed")
    sent = None
    for step in range(1, steps + 1):
        done = _join(there, "killed", step)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        admitted = there.home.store.sites.admitted().get("killed")
        if admitted is not None:
            sent = sent or admitted.public_key
            assert admitted.public_key == sent
    else:
        assert _join(there, "killed", 0).returncode == 0
    _whole(there, "killed")


@pytest.mark.parametrize("step", range(5, 60, 11))
def test_killed_once_while_a_home_is_made_or_proven_nothing_is_left_undone(there, step):
    name = f"once-{step}"
    there.invite(name)
    first = _join(there, name, step)
    assert first.returncode in (0, -signal.SIGKILL), first.stderr
    again = _join(there, name, 0)
    assert again.returncode == 0, f"after step {step}: {again.stderr}"
    _whole(there, name)


def _whole(there, name: str) -> None:
    """Everything is there, once, and works."""
    site = Site.open(there.folder / name)
    assert site.config.coordinator is not None
    key = identity.read_private(site.home / "keys" / "site.pem")
    public = identity.public_pem(key.public_key())
    assert (site.home / "keys" / "site.pub").read_bytes() == public
    assert there.home.store.sites.admitted()[name].public_key == public.decode()
    assert (site.home / "ca.pem").read_bytes() == there.home.ca.read_bytes()
    assert not [file.name for file in site.home.iterdir() if file.name.startswith(".join")]
    assert not Ledger(site).troubles()
    findings = verification.verify(site)
    assert not findings.faults
    assert {one.entry.kind for one in findings.entries} == {"began", "decided"}
    for file in (site.home / "keys").iterdir():
        assert file.name.endswith(".pub") or file.stat().st_mode & 0o777 == 0o600, file
