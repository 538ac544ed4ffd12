"""The units by which systemd runs the services: it understands every line of them, and little is left open to them."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import client
import server

UNITS = {
    path.name: path for package in (client, server) for path in Path(package.__file__ or "").parent.glob("*.service")
}
# What `systemd-analyze security` makes of them, times ten: 0 is nothing exposed, 100 all. Without hardening it is 92.
EXPOSED = {"insitu-client.service": 10, "insitu-supernode.service": 15, "insitu-server.service": 20}

analyzed = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
each = pytest.mark.parametrize("unit", sorted(EXPOSED))


def _analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def _service(unit: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)  # a line may be there twice
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS[unit])
    return parser["Service"]


def test_there_is_a_unit_for_each_service():
    assert set(UNITS) == set(EXPOSED)


@pytest.fixture
def here(tmp_path):
    """The units with a command that is there; where the package will be installed, none is yet."""
    folder = tmp_path / "units"
    folder.mkdir()
    for name, path in UNITS.items():
        text, count = re.subn(
            r"^ExecStart=/opt/insitu/.venv/bin/insitu-\w+ ", "ExecStart=/bin/true ", path.read_text(), flags=re.M
        )
        assert count == 1
        (folder / name).write_text(text)
    return folder


@analyzed
def test_systemd_understands_every_line(here):
    done = _analyze("verify", "--man=no", *here.iterdir())
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "insitu" in line], done.stderr


@analyzed
def test_a_line_that_systemd_does_not_understand_is_found(here):
    """Or the test above would show nothing."""
    unit = here / "insitu-client.service"
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSystems=strict"))
    assert "ProtectSystems" in _analyze("verify", "--man=no", unit).stderr


@analyzed
@each
def test_little_is_left_open_to_it(here, unit):
    done = _analyze("security", "--offline=true", f"--threshold={EXPOSED[unit]}", here / unit)
    assert done.returncode == 0, done.stdout + done.stderr


@each
def test_what_its_command_is_called_with_is_understood(unit):
    command, *arguments = _service(unit)["ExecStart"].split()
    name = Path(command).name
    called = [Path(sys.executable).with_name(name), arguments[0], "--help"]
    told = subprocess.run(called, capture_output=True, text=True, check=True, timeout=60).stdout
    assert arguments[1] in told
    assert len(arguments) == 3


def test_who_sees_the_scans_has_no_network():
    service = _service("insitu-client.service")
    assert service["PrivateNetwork"] == "yes"
    assert service["RestrictAddressFamilies"] == "AF_UNIX"


def test_who_has_the_network_is_another_user_and_does_not_see_the_home():
    site, carrier = _service("insitu-client.service"), _service("insitu-supernode.service")
    assert site["User"] != carrier["User"] == site["SupplementaryGroups"]
    assert "SupplementaryGroups" not in carrier
    home = Path(site["ExecStart"].split()[-1])
    hidden = [Path(one.partition(":")[0]) for one in carrier["TemporaryFileSystem"].split()]
    assert any(home.is_relative_to(one) for one in hidden)
    assert not home.is_relative_to(carrier["BindPaths"])
    assert not Path(carrier["BindPaths"]).is_relative_to(home)
