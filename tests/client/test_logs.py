"""What a library or an exception says of a patient is in no log, whichever way it is said."""

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from client import logs
from client.data import parallel
from shared.errors import BadInput

ROOT = Path(logs.__file__).parents[1]
MARKER = "DOE^JANE"

# As a process says it: each line in a process that has called `logs.of_process` or `logs.guard`.
BEGIN = "import logging, sys, threading, warnings, pydicom, client.logs as logs; from pathlib import Path; "
SAYINGS = {
    "a library's warning": "pydicom.dataelem.DataElement(0x00100020, 'XX', 'DOE^JANE'); pydicom.config.settings; "
    "pydicom.uid.UID('1.2.DOE^JANE'); warnings.warn('of DOE^JANE')",
    "a library's log": "logging.getLogger('pydicom').error('of DOE^JANE %s', 'DOE^JANE')",
    "a library's log with a handler of its own": "logging.getLogger('flwr').error('of DOE^JANE')",
    "the root logger": "logging.error('of DOE^JANE')",
    "a record with the wrong arguments": "logging.getLogger('pydicom').error('of %d', 'DOE^JANE')",
    "a captured warning": "logging.captureWarnings(True); warnings.warn('of DOE^JANE')",
    "an exception that is logged": "exec(\"try: int('DOE^JANE')\\nexcept ValueError: logging.exception('it')\")",
    "an exception that nobody catches": "int('DOE^JANE')",
    "its cause": "exec(\"try: int('DOE^JANE')\\nexcept ValueError as e: raise KeyError('DOE^JANE') from e\")",
    "one in a thread": "t = threading.Thread(target=int, args=('DOE^JANE',)); t.start(); t.join()",
    "one that cannot be raised": "exec(\"class A:\\n  def __del__(self): int('DOE^JANE')\\na = A(); del a\")",
}
PRINTED = {
    "what is printed": "print('DOE^JANE'); print('DOE^JANE', file=sys.stderr)",
    "a traceback that is printed": "import traceback as t; "
    "exec(\"try: int('DOE^JANE')\\nexcept ValueError: t.print_exc()\")",
    "a handler that comes later": "h = logging.StreamHandler(); logging.getLogger('late').addHandler(h); "
    "logging.getLogger('late').error('of DOE^JANE')",
}


def said(program: str, log: Path) -> tuple[str, str]:
    """What is in the log, and what has come out of the process."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)
    return log.read_text() if log.exists() else "", done.stdout + done.stderr


@pytest.mark.parametrize("what", [*SAYINGS, *PRINTED])
def test_nothing_but_our_own_words_is_in_the_log_of_a_process(tmp_path, what):
    begin = f"{BEGIN}logs.of_process(Path({str(tmp_path / 'log')!r}))\n"
    log, out = said(begin + (SAYINGS | PRINTED)[what], tmp_path / "log")
    assert log.strip(), out
    assert MARKER not in log + out
    assert out == ""


@pytest.mark.parametrize("what", SAYINGS)
def test_nothing_but_our_own_words_is_on_the_error_stream_of_a_command(tmp_path, what):
    _, out = said(f"{BEGIN}logs.guard()\n{SAYINGS[what]}", tmp_path / "log")
    assert out.strip()
    assert MARKER not in out


@pytest.mark.parametrize("what", sorted({*SAYINGS, *PRINTED} - {"a library's log with a handler of its own"}))
def test_without_it_each_of_them_would_be(tmp_path, what):
    _, out = said(f"{BEGIN}logging.basicConfig()\n{(SAYINGS | PRINTED)[what]}", tmp_path / "log")
    assert MARKER in out


def test_what_was_withheld_is_said_with_its_place_in_the_code(tmp_path):
    begin = f"{BEGIN}logs.of_process(Path({str(tmp_path / 'log')!r}))\n"
    log, _ = said(begin + "pydicom.config.logger.warning('of DOE^JANE')", tmp_path / "log")
    assert "WARNING pydicom said something, withheld" in log
    log, _ = said(begin + "pydicom.dataelem.DataElement(0x00100020, 'LO', 'DOE^JANE' * 20)", tmp_path / "log")
    assert "UserWarning, withheld (" in log
    assert "pydicom/valuerep.py:" in log
    log, _ = said(begin + "from shared.job import Job; Job.from_dict({'name': 'DOE^JANE'})", tmp_path / "log")
    assert "CRITICAL uncaught: " in log


def test_our_own_records_pass_and_exceptions_in_them_are_type_and_place(tmp_path):
    handler = logs._Bounded(tmp_path / "log")
    handler.setFormatter(logs._Words())
    try:
        logs.guard_a_worker(MARKER)
    except TypeError:
        record = logging.LogRecord("any", logging.ERROR, logs.__file__, 7, "round %d", (3,), sys.exc_info())
    handler.handle(record)
    assert (tmp_path / "log").read_text().rstrip().endswith("ERROR round 3: TypeError at an unknown place")


@pytest.mark.parametrize("say", [warnings.warn, print, logging.error])
def test_processes_that_read_scans_pass_nothing_on_to_the_terminal(say, monkeypatch, capfd):
    monkeypatch.setattr(parallel, "_MEASURED", 0)
    monkeypatch.setattr(parallel, "_WORTH_IT", -1.0)
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 2)
    parallel.each(say, [f"of {MARKER}"] * 4)
    out, err = capfd.readouterr()
    assert "withheld" in err
    assert MARKER not in out + err


def test_an_exception_is_our_own_message_or_its_type_and_our_lines():
    assert logs.what(BadInput("two rows", file="manifest.csv")) == "manifest.csv: two rows"
    with pytest.raises(ValueError, match="literal") as caught:
        parallel.each(int, [MARKER])
    assert logs.what(caught.value).startswith("ValueError at client/data/parallel.py:")
    assert ".venv" not in logs.what(caught.value)
    assert MARKER not in logs.what(caught.value)


def test_a_line_is_one_line_and_no_longer_than_it_may_be(tmp_path):
    log = logs.of_site(tmp_path)
    log.warning("forged\n2026-01-01 WARNING nothing\x1b[2J\udc80")
    log.warning("x" * 10**6)
    lines = (tmp_path / "log" / "site.log").read_text().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith(r"forged\n2026-01-01 WARNING nothing\x1b[2J\udc80")
    assert len(lines[1]) == logs.LONGEST_LINE + 1


def test_a_flood_cannot_fill_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "LONGEST_LOG", 20_000)
    log, sizes = logs.of_site(tmp_path), []
    for number in range(2000):
        log.warning("message %d is malformed: %s", number, "x" * 100)
        sizes.append(sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()))
    assert {file.name for file in (tmp_path / "log").iterdir()} == {"site.log", "site.old"}
    assert max(sizes) < 2 * 20_500
    assert "message 1999 " in (tmp_path / "log" / "site.log").read_text()


def test_what_no_python_wrote_follows_the_log_when_it_is_begun_anew(tmp_path):
    program = f"""
import os, client.logs as logs, logging
from pathlib import Path
logs.LONGEST_LOG = 1000
logs.of_process(Path({str(tmp_path / "process.log")!r}))
for number in range(40):
    logs._warned("", UserWarning, logs.__file__, number)
    os.write(2, b"from C %d\\n" % number)
"""
    log, out = said(program, tmp_path / "process.log")
    assert out == ""
    assert "client/logs.py:39" in log
    assert "from C 39" in log
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2500


def test_a_log_that_cannot_be_written_stops_nothing_and_says_it_nowhere_else(tmp_path, capfd):
    log = logs.of_site(tmp_path)
    (tmp_path / "log" / "site.log").symlink_to("/dev/full")
    log.warning("of %s", MARKER)
    log.warning("of %d", MARKER)
    assert capfd.readouterr() == ("", "")
