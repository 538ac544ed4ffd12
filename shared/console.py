"""What the three commands have in common: exit codes, one line for an error, tables, JSON, progress.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage or bad input, 3 refused
by policy or budget, 130 interrupted.
"""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from shared.errors import BadInput, InsituError

Home = Annotated[Path, typer.Option("--home", envvar="INSITU_HOME", help="The home folder.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

INTERRUPTED = 130


def app(help: str) -> typer.Typer:
    """A command, to which sub-commands are added."""
    # Typer's own tracebacks show local variables, and a local variable may hold a patient.
    return typer.Typer(help=help, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def run(application: typer.Typer, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: an error that a person can act on is one line on stderr and its exit code."""
    command = typer.main.get_command(application)
    try:
        command(args=None if arguments is None else list(arguments))
    except InsituError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.errno not in _OPERATORS_OWN:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        wrong_path = error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EEXIST)
        fail(f"{where}{error.strerror}", (BadInput if wrong_path else InsituError).exit_code)
    sys.exit(0)


# Of the operating system's errors, those the person at the keyboard can do something about.
_OPERATORS_OWN = frozenset(
    {errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EADDRINUSE, errno.EADDRNOTAVAIL}
    | {errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EEXIST}
)


def fail(message: str, exit_code: int) -> NoReturn:
    """Say why on stderr, as it stands (no markup), and exit."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(exit_code)


def say(message: str) -> None:
    """One line on stderr."""
    print(message, file=sys.stderr, flush=True)


def when(seconds: float) -> str:
    """A point in time (seconds since 1970), to the second, with the zone."""
    return dt.datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def dump(value: Any) -> None:
    """A value as JSON on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def listing(
    rows: Iterable[Mapping[str, object]],
    columns: Mapping[str, str] | None = None,
    *,
    as_json: bool = False,
    title: str | None = None,
    empty: str = "nothing yet",
) -> None:
    """A listing on stdout: a table of these columns, or the rows as they are in JSON.

    Args:
        rows: each a mapping; JSON shows all keys of it.
        columns: key → heading of what the table shows, by default all keys of the first row; a value that is None
            or missing is shown as –.
        as_json: what `--json` said.
        title: above the table.
        empty: said (on stderr) where there are no rows.
    """
    rows = list(rows)
    if as_json:
        dump(rows)
        return
    if not rows:
        say(empty)
        return
    columns = columns or {key: key.replace("_", " ") for key in rows[0]}
    grid = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for key, heading in columns.items():
        numeric = all(isinstance(row.get(key), int | float | None) for row in rows)
        grid.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(_cell(row.get(key))) for key in columns))
    _stdout().print(grid)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(str, value)) or "–"
    return str(value)


def _stdout() -> Console:
    # Into a file or a pipe nothing is cut off at the width of a terminal that is not there.
    wide = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", 200))
    return Console(width=wide, highlight=False)


def progress() -> Progress:
    """A rich progress display on stderr; use as a context manager, `add_task(description, total=…)`, `advance`."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
