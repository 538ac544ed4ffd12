"""What may be written into a log: our own words, and of anything else only that it was said, and where in the code.

An exception's text, and what a library logs, warns of or prints, may quote a header, a value or a file's name. So none
of it is written down: no list of what to look for could be complete. Our own words name patients by their pseudonyms
and files not at all.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import sysconfig
import threading
import traceback
import warnings
from contextlib import suppress
from logging.handlers import WatchedFileHandler
from pathlib import Path
from types import TracebackType
from typing import TextIO

from shared.errors import InsituError

# A log is begun anew when it has become this long, and one old one is kept: nobody fills the disk by being wrong.
LONGEST_LOG = 10 * 2**20
LONGEST_LINE = 2000

_ROOT = Path(__file__).parents[1]
_OURS = ("client", "shared", "server", "simulations")
_LIBRARIES = tuple(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib"))

_log = logging.getLogger(__name__)


def what(error: BaseException) -> str:
    """An exception in words that hold no patient's data: our own message, or the type and where it came up."""
    if isinstance(error, InsituError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{ours}:{frame.lineno}" for frame in reversed(frames) if (ours := _ours(frame.filename)) is not None]
    return f"{type(error).__name__} at {' < '.join(where) or 'an unknown place'}"


def of_site(home: Path) -> logging.Logger:
    """`log/site.log` of this home: not one of Python's named loggers, so nothing else is written there."""
    log = logging.Logger("site", logging.INFO)
    log.addHandler(_Bounded(home / "log" / "site.log"))
    return log


def of_process(file: Path) -> None:
    """This process has only this log: whatever it or a library logs, warns of, prints or dies of."""
    guard(_Followed(file), level=logging.INFO, prints=False)


def guard(handler: logging.Handler | None = None, *, level: int = logging.WARNING, prints: bool = True) -> None:
    """From here on nothing but our own words is logged or shown of an uncaught exception in this process.

    Args:
        handler: where to; by default to stderr.
        level: of our own records; of others none below a warning is even noted.
        prints: whether what is printed is shown, as a command's results have to be.
    """
    handler = handler or _Quietly()
    if handler.formatter is None:
        handler.setFormatter(_Words())
    handler.addFilter(lambda record: _ours(record.pathname) is not None or record.levelno >= logging.WARNING)
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):  # Flower brings a handler of its own, for instance
            logger.handlers.clear()
            logger.propagate = True
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.raiseExceptions = False  # a handler that fails would print the record
    warnings.showwarning = _warned
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable
    if not prints:
        sys.stdout, sys.stderr = _Unprinted(), _Unprinted()


def guard_a_worker() -> None:
    """The same in a process that works for another one: what it has to say are its results."""
    guard(prints=False)


class _Words(logging.Formatter):
    """One line a record, of printable characters and no great length, without the text of any exception."""

    def format(self, record: logging.LogRecord) -> str:
        said = self._said(record)
        if record.exc_info and record.exc_info[1] is not None:
            said += f": {what(record.exc_info[1])}"
        line = f"{self.formatTime(record)} {record.levelname} {said}"
        shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line[: LONGEST_LINE + 1])
        return shown if len(shown) <= LONGEST_LINE else shown[:LONGEST_LINE] + "…"

    def _said(self, record: logging.LogRecord) -> str:
        if (ours := _ours(record.pathname)) is not None:
            return record.getMessage() if ours == _HERE else f"{ours}: {record.getMessage()}"
        place = _place(record.pathname, record.lineno)
        return f"{_library(record)} said something, withheld" + (f" ({place})" if place else "")


class _OwnWords(_Words):
    """Where nobody else writes."""

    def _said(self, record: logging.LogRecord) -> str:
        return record.getMessage()


class _Silent(logging.Handler):
    """What cannot be written is not written elsewhere: Python would print the record, with its arguments."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- Python's name
        """Nothing."""


class _Quietly(_Silent, logging.StreamHandler[TextIO]):
    """To stderr."""


class _Bounded(_Silent, WatchedFileHandler):
    """A file that is begun anew when it is long, by whichever process notices."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        super().__init__(file, encoding="utf-8", delay=True)
        self.setFormatter(_OwnWords())

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; `WatchedFileHandler` opens the file anew once it has been moved away."""
        file = Path(self.baseFilename)
        with suppress(OSError):
            if file.stat().st_size > LONGEST_LOG:
                file.replace(file.with_suffix(".old"))
        with suppress(OSError):  # a full disk, when what was not written before is
            super().emit(record)


class _Followed(_Bounded):
    """The same, and what is written to the process's standard output and error by no Python at all goes with it."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.setFormatter(_Words())

    def _open(self) -> io.TextIOWrapper:
        stream = super()._open()
        for standard in (1, 2):
            os.dup2(stream.fileno(), standard)
        return stream


class _Unprinted(io.TextIOBase):
    """A standard stream into which nothing goes; the log says once of each place that it printed something."""

    def __init__(self) -> None:
        self._places: set[str] = set()

    def writable(self) -> bool:
        """So that it can be printed to."""
        return True

    def write(self, text: str) -> int:
        """Note who it was, if it is new."""
        code = sys._getframe(1)
        place = _place(code.f_code.co_filename, code.f_lineno) or "an unknown place"
        if place not in self._places and len(self._places) < 1000:
            self._places.add(place)
            _log.warning("something was printed at %s, withheld from now on", place)
        return len(text)


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _log.warning("%s, withheld (%s)", category.__name__, _place(filename, lineno) or "an unknown place")


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _log.critical("uncaught: %s", what(error))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit and args.exc_value is not None:
        _log.critical("uncaught in a thread: %s", what(args.exc_value))


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    if args.exc_value is not None:
        _log.error("not raised: %s, in a %s", what(args.exc_value), type(args.object).__name__)


def _library(record: logging.LogRecord) -> str:
    """Whose record it is: what a logger is called is what somebody called it, unless a module is called so."""
    name = record.name.partition(".")[0]
    return name if name in sys.modules else "a library"


def _place(file: str, line: int) -> str | None:
    """A line of code that is installed here."""
    if (ours := _ours(file)) is not None:
        return f"{ours}:{line}"
    for root in _LIBRARIES:
        if Path(file).is_relative_to(root):
            return f"{Path(file).relative_to(root)}:{line}"
    return None


def _ours(file: str) -> str | None:
    """The file, as we call it, if it is one of ours: installed, the libraries lie beside our packages."""
    path = Path(file)
    if not path.is_relative_to(_ROOT):
        return None
    relative = path.relative_to(_ROOT)
    return str(relative) if relative.parts[0] in _OURS else None


_HERE = _ours(__file__)
