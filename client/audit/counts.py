"""What is only counted: a coordinator that sends a million messages cannot make the record grow by a million entries.

A refusal, or a stored reply that is sent again, gets an entry of its own if the same was not written within the hour,
and if fewer than sixty were. All others are counted, in HOME/record.counts, by kind of message, code and job, and after
the hour one entry says how many there were: nothing is left out silently. Of an hour that is sixty entries and one
more, whatever arrives; of more jobs than can be told apart, the rest are counted without their job.

The counts of the hour that runs are on the disk, but neither signed nor chained: who can write in the home can change
those, until they are an entry.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from client.audit.entries import AnyEntry, Count, Counted, Refused, Released

HOUR = 3600.0
ENTRIES_AN_HOUR = 60
_TOLD_APART = 100  # by job; above, the rest are counted by message and code alone


class Counts(BaseModel):
    """The hour that runs.

    Attributes:
        since: when it began.
        written: what has an entry already.
        answers: what was only counted.
    """

    model_config = ConfigDict(extra="forbid")

    since: float
    written: list[tuple[str, ...]] = []
    answers: list[Count] = []

    def over(self, now: float) -> bool:
        """Whether the hour is; a clock that was put back ends it too."""
        return not 0 <= now - self.since < HOUR

    def admits(self, entry: Refused | Released) -> bool:
        """Whether the record gets an entry of this."""
        return len(self.written) < ENTRIES_AN_HOUR and _same(entry) not in self.written

    def note(self, entry: Refused | Released) -> None:
        """It got one."""
        self.written.append(_same(entry))

    def count(self, entry: Refused | Released) -> None:
        """It did not."""
        code = entry.code if isinstance(entry, Refused) else None
        for job, name in ((entry.job, entry.name), ("", "")):
            for position, one in enumerate(self.answers):
                if (one.message, one.code, one.job) == (entry.message, code, job):
                    self.answers[position] = one.model_copy(update={"times": one.times + 1})
                    return
            if not job or len(self.answers) < _TOLD_APART:
                self.answers.append(Count(message=entry.message, code=code, job=job, name=name, times=1))
                return

    def summed(self) -> Counted:
        """The entry that says so."""
        return Counted(since=self.since, answers=tuple(self.answers))


def counted(entry: AnyEntry) -> bool:
    """Whether entries of this kind may be counted instead of written."""
    return isinstance(entry, Refused) or (isinstance(entry, Released) and entry.again)


def read(home: Path) -> Counts | None:
    """The hour that runs; None where none does, or where the file cannot be understood."""
    try:
        return Counts.model_validate_json(_file(home).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write(home: Path, counts: Counts) -> None:
    """Keep them. This does not wait for the disk: a power cut may lose what was counted since the last entry."""
    draft = _file(home).with_name(f".record.counts.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(counts.model_dump_json().encode())
    draft.replace(_file(home))


def forget(home: Path) -> None:
    """The hour is over, and what was counted has its entry."""
    _file(home).unlink(missing_ok=True)


def in_words(answers: Iterable[Count]) -> Iterator[str]:
    """The same in words."""
    for one in answers:
        what = f"{one.message} refused ({one.code})" if one.code else f"{one.message} sent again"
        yield f"{one.times} × {what}" + (f" of {one.name or 'a job'} {one.job[:12]}" if one.job else "")


def _file(home: Path) -> Path:
    return home / "record.counts"


def _same(entry: Refused | Released) -> tuple[str, ...]:
    """What two entries have in common of which the second says nothing new."""
    if isinstance(entry, Refused):
        return entry.message, entry.job, str(entry.code)
    return entry.message, entry.job, entry.run, str(entry.round), entry.content
