"""Exit codes and output of the commands, each in a real process."""

import json
import os
import subprocess
import sys

import pytest

from shared.silence import SWITCHES

_PROGRAM = """
from shared import console
from shared.errors import BadInput, InsituError, RefusalCode, Refused

app = console.app("A command.")

@app.command()
def done() -> None:
    console.listing([{"name": "[bold]a[/bold]", "n": 1, "secret": [1]}], {"name": "Name", "n": "N"})

@app.command()
def listed(json: console.Json = False) -> None:
    console.listing([{"name": "a", "n": 0.5}], as_json=json)

@app.command()
def bad() -> None:
    raise BadInput("[images] size: wrong", file="job.toml")

@app.command()
def failed() -> None:
    raise InsituError("it went wrong")

@app.command()
def refused() -> None:
    raise Refused(RefusalCode.OVER_BUDGET, "nothing left")

@app.command()
def interrupted() -> None:
    raise KeyboardInterrupt

@app.command()
def unreadable() -> None:
    open("/nowhere/at/all")

@app.command()
def defect() -> None:
    value = "of a patient"
    raise ValueError("a defect")

@app.command()
def at(home: console.Home) -> None:
    print(home)

@app.command()
def bars() -> None:
    with console.progress() as progress:
        task = progress.add_task("[1] working", total=3)
        progress.advance(task, 3)

console.run(app)
"""


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )


@pytest.mark.parametrize(
    ("command", "code", "line"),
    [
        ("bad", 2, "error: job.toml: [images] size: wrong\n"),
        ("failed", 1, "error: it went wrong\n"),
        ("refused", 3, "error: refused (over_budget): nothing left\n"),
        ("interrupted", 130, ""),
        ("unreadable", 2, "error: /nowhere/at/all: No such file or directory\n"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_its_exit_code(command, code, line):
    result = _run(command)
    assert (result.returncode, result.stdout, result.stderr) == (code, "", line)


def test_wrong_usage_exits_with_2():
    assert _run("nonsense").returncode == 2
    assert _run("at").returncode == 2


def test_a_defect_keeps_its_traceback_and_shows_no_local_variables():
    result = _run("defect")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "ValueError: a defect" in result.stderr
    assert "of a patient" not in result.stderr


def test_a_table_shows_values_as_they_are():
    result = _run("done")
    assert result.returncode == 0
    assert "[bold]a[/bold]" in result.stdout


def test_json_goes_to_stdout_whole():
    assert json.loads(_run("listed", "--json").stdout) == [{"name": "a", "n": 0.5}]


def test_progress_stays_off_stdout():
    result = _run("bars")
    assert result.stdout == ""
    assert "[1] working" in result.stderr


def test_the_home_comes_from_the_option_or_the_environment():
    assert _run("at", "--home", "here").stdout == "here\n"
    assert _run("at", INSITU_HOME="there").stdout == "there\n"


@pytest.mark.parametrize("package", ["shared", "client", "server", "simulations"])
def test_importing_a_package_turns_off_every_call_home_whatever_the_environment_says(package):
    program = f"import os, json, {package}; print(json.dumps(dict(os.environ)))"
    shouting = dict.fromkeys(SWITCHES, "loud") | {"NO_PROXY": "intranet", "no_proxy": ""}
    output = subprocess.check_output([sys.executable, "-c", program], env={**os.environ, **shouting}, text=True)
    environment = json.loads(output)
    assert {name: environment[name] for name in SWITCHES} == SWITCHES
    assert environment["NO_PROXY"] == "intranet,127.0.0.1,localhost,::1"
    assert environment["no_proxy"] == environment["NO_PROXY"]


def test_the_console_imports_no_heavy_library():
    program = "import sys, shared.console; print([m for m in ('torch', 'monai', 'flwr', 'ray') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"
