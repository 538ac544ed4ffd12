"""What a hospital installs: a wheel of four packages and three commands, which need no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("client", "server", "shared", "simulations")
COMMANDS = ("insitu-client", "insitu-server", "insitu-sim")
SOURCES = {".py", ".pyi", ".html", ".css", ".toml", ".proto", ".service", ".typed"}


def run(*command: object, cwd: Path) -> str:
    """Run outside the checkout, with nothing in the environment that leads back to it; what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sources() -> set[str]:
    """Every file of the four packages, as the wheel should name it."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    return {path.relative_to(ROOT).as_posix() for path in files if path.is_file() and "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    copy = tmp_path_factory.mktemp("source") / "insitu"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", copy.parent, copy, cwd=copy.parent)
    return next(copy.parent.glob("insitu-*.whl"))


@dataclass(frozen=True)
class Installed:
    """An environment that holds the wheel; the libraries are those of the environment that runs the tests."""

    bin: Path
    elsewhere: Path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Installed:
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=elsewhere,
    )
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=elsewhere).strip())
    # A path named in a .pth file is searched last, and the .pth files in it (the checkout's, too) are not read.
    libraries = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (own / "libraries.pth").write_text("\n".join(libraries) + "\n")
    return Installed(home / "bin", elsewhere)


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    own = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert {name.split("/")[0] for name in own} == set(PACKAGES)
    assert own == sources()


def test_only_kinds_of_files_that_belong_there_are_in_the_packages():
    assert {Path(name).suffix or Path(name).name for name in sources()} <= SOURCES


def test_the_wheel_brings_types_templates_and_the_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
        licence = archive.read(next(name for name in names if name.endswith("licenses/LICENSE"))).decode()
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert "server/templates/report.html" in names
    assert "License-Expression: Apache-2.0" in metadata
    assert licence == (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_runs_outside_the_checkout(installed, command):
    assert f"Usage: {command}" in run(installed.bin / command, "--help", cwd=installed.elsewhere)


def test_what_runs_is_the_wheel_not_the_checkout(installed):
    code = f"import {', '.join(PACKAGES)}; print(*(module.__file__ for module in ({', '.join(PACKAGES)})), sep='\\n')"
    files = run(installed.bin / "python", "-c", code, cwd=installed.elsewhere).split()
    assert all(Path(file).is_relative_to(installed.bin.parent) for file in files)


def test_the_report_finds_its_templates_in_the_wheel(installed):
    code = "from server import report; print(report.render({})[:15])"
    assert run(installed.bin / "python", "-c", code, cwd=installed.elsewhere).startswith("<!doctype html>")
