"""Who may import whom, and how little a command needs before it knows what it is asked."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "monai", "opacus", "ray", "tensorboard", "highdicom"}
PACKAGES = ("client", "server", "shared", "simulations")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_folder_tells_the_dependency():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("importer", "imported", "contract"),
    [
        ("shared", "client", "shared imports neither side"),
        ("shared", "server", "shared imports neither side"),
        ("shared", "simulations", "shared imports neither side"),
        ("client", "server", "client and server never import each other"),
        ("server", "client", "client and server never import each other"),
        ("client", "simulations", "only the simulations import both sides"),
        ("server", "simulations", "only the simulations import both sides"),
    ],
)
def test_an_import_against_the_rules_is_found(tmp_path, importer, imported, contract):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / importer / "wrong.py").write_text(f"import {imported}\n")
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    broken = [line for line in done.stdout.splitlines() if line.endswith("BROKEN")]
    assert len(broken) == 1
    assert broken[0].startswith(contract)


@pytest.mark.parametrize("package", ["client", "server", "simulations"])
def test_a_command_answers_before_any_learning_library_is_loaded(package):
    code = f"import sys, {package}.cli; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
