"""Every command in the README is run: in real processes, in the order of its steps, in an empty folder.

A comment before a block says what becomes of it:

    <!-- step 3 -->                     its lines that begin with `$ ` are run as the third
    <!-- step 3, again with a=b -->     and once more, with `b` for the word `a`
    <!-- file job.toml -->              it is what job.toml holds
    <!-- checkout -->                   `make` in the checkout: the recipes are looked at; `make test` is what
                                        runs this, and tests/simulations/test_demonstration.py what `make demo` does

A line that ends in `&` goes on until the end. The port, the coordinator's name, `ca.pem` and `RUN` are replaced by ones
that are there.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from client.site import SiteConfig

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent
BLOCK = re.compile(
    r"^(?:<!-- (?P<what>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
READY = ("serving the sites", "answering the coordinator")


@dataclass(frozen=True)
class Block:
    what: str
    language: str
    body: str

    @property
    def commands(self) -> list[str]:
        return [line.removeprefix("$ ") for line in self.body.splitlines() if line.startswith("$ ")]


BLOCKS = [Block(match["what"] or "", match["language"], match["body"]) for match in BLOCK.finditer(README)]


def steps() -> Iterator[str]:
    """Every command, in order."""
    numbered = [(re.fullmatch(r"step (\d+)(?:, again with (\w+)=(\w+))?", block.what), block) for block in BLOCKS]
    for match, block in sorted(
        ((match, block) for match, block in numbered if match), key=lambda pair: int(pair[0][1])
    ):
        yield from block.commands
        if match[2]:
            yield from (re.sub(rf"\b{match[2]}\b", match[3], command) for command in block.commands)


def test_every_block_says_what_becomes_of_it():
    for block in BLOCKS:
        assert block.language in ("console", "toml", "text")
        if block.language == "console":
            assert re.match(r"step \d|checkout$", block.what), block.body
            assert all(line.startswith("$ ") for line in block.body.splitlines())
        elif block.language == "toml":
            assert block.what.startswith("file "), block.body
    assert len(list(steps())) > 15


def test_every_command_in_the_text_is_one_that_there_is():
    for command, sub in sorted(set(re.findall(r"`(insitu-\w+) ([a-z]+)", README))):
        done = subprocess.run([BIN / command, sub, "--help"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command} {sub}: {done.stderr}"


def test_every_file_the_readme_leads_to_is_there():
    for document in ("README.md", "docs/architecture.md", "docs/operations.md"):
        path = ROOT / document
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{document} leads to {target}"


def test_the_site_toml_that_is_shown_is_one():
    shown = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "operations.md").read_text(), re.DOTALL)
    assert [SiteConfig.model_validate(tomllib.loads(text)).name for text in shown] == ["north"]


def test_the_two_commands_are_recipes_of_the_makefile():
    [block] = [block for block in BLOCKS if block.what == "checkout"]
    assert block.commands == ["make demo", "make test"]
    for command in block.commands:
        recipe = subprocess.run([*command.split(), "-n"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert {"make demo": "insitu-sim demo --out demo", "make test": 'pytest -m "federation'}[command] in recipe


@pytest.mark.federation
def test_every_command_of_the_readme_runs(tmp_path):
    for block in BLOCKS:
        if block.what.startswith("file "):
            (tmp_path / block.what.removeprefix("file ")).write_text(block.body)
    running: list[subprocess.Popen[bytes]] = []
    port = str(free_port())
    try:
        for number, command in enumerate(steps()):
            said = tmp_path / f"{number:02d}.log"
            line = command.replace("8443", port).replace("coordinator.example.org", "localhost")
            line = line.replace("--ca ca.pem", "--ca coordinator/ca.pem")
            line = re.sub(r"\bRUN\b", lambda _: next(tmp_path.glob("coordinator/runs/*")).name, line)
            if line.endswith(" &"):
                running.append(start(line.removesuffix(" &"), tmp_path, said))
            else:
                code = execute(line, tmp_path, said).wait(timeout=300)
                assert code == 0, f"{command}\n{said.read_text()}\n{logs(tmp_path)}"
        assert list(tmp_path.glob("coordinator/runs/*/model.safetensors"))
        assert (tmp_path / "out" / "report.html").exists()
        assert (tmp_path / "compared" / "report.html").exists()
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(timeout=60) for process in running]
    assert set(codes) == {0}, "a daemon that is told to stop ends well"


def execute(line: str, folder: Path, said: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment.pop("INSITU_HOME", None)
    with said.open("wb") as output:
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", f"exec {line}"],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
        )


def start(line: str, folder: Path, said: Path) -> subprocess.Popen[bytes]:
    """Start a daemon, and wait until it says that it is there."""
    process = execute(line, folder, said)
    deadline = time.monotonic() + 60
    while not any(words in said.read_text() for words in READY):
        assert process.poll() is None, f"{line}\n{said.read_text()}"
        assert time.monotonic() < deadline, f"{line}\n{said.read_text()}"
        time.sleep(0.1)
    return process


def logs(folder: Path) -> str:
    files = [*folder.glob("*/log/*.log"), *folder.glob("*.log")]
    return "\n".join(f"--- {file.relative_to(folder)}\n{file.read_text()[-2000:]}" for file in sorted(files))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
