"""What is in a record, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from client.audit import heads
from client.audit.chain import Line
from client.audit.entries import AnyEntry, Began, Count, Head

PUT_BACK = (
    "put the record back from the newest back-up in which it verifies, and keep this one; where there is none, "
    "`insitu-client audit accept --reason TEXT` sets it aside and begins another, which says so"
)
ASK = "find out who could write in the home, and tell the data protection officer"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that is wrong.

    Attributes:
        number: of the entry; None where it is about the whole record.
        what: in words, which go on after "entry 4" where there is a number.
        do: what to do about it.
    """

    number: int | None
    what: str
    do: str


@dataclass(frozen=True)
class Numbered:
    """An entry that is as it was written.

    Attributes:
        line: of it.
        entry: what it says.
    """

    line: Line
    entry: AnyEntry


@dataclass
class Findings:
    """What is in a record, and what is wrong with it.

    Attributes:
        site: its name.
        key: the public key that the record says it is signed with; empty where it does not say.
        entries: those that are as they were written, in the order of the file.
        lines: how many there are, with those that are not.
        head: how far it has got, by its entries.
        faults: what is wrong.
        notes: what is not wrong, and should be known.
        pending: what was counted and has no entry yet.
    """

    site: str
    key: str = ""
    entries: list[Numbered] = field(default_factory=list)
    lines: int = 0
    head: Head = heads.NOTHING
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pending: list[Count] = field(default_factory=list)

    @property
    def began(self) -> Began | None:
        """The first entry, if it is as it was written."""
        first = self.entries[0].entry if self.entries else None
        return first if isinstance(first, Began) else None

    def fault(self, number: int | None, what: str, do: str) -> None:
        """Note a fault."""
        self.faults.append(Fault(number=number, what=what, do=do))
