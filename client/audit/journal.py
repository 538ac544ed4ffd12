"""The record: `append`, after which an entry is on the disk, or nothing leaves.

Before it writes, a process makes sure that the end of the record is what its head says, and that every line from there
on is the site's own; what it has written itself, and nobody has touched since, it need not read again. That the rest is
as it was, `insitu-client audit verify` proves. Entries of several processes stand one after the other, in the order in
which they were written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from client.audit import chain, counts, files, heads, keys
from client.audit.beginning import began
from client.audit.chain import Line, Untrusted
from client.audit.entries import AnyEntry, Began, Counted, Decided, Head, Mended, Refused, Rekeyed, Released, parsed
from client.ledger.journal import sync
from client.site import Site
from shared import errors
from shared.errors import BadInput, RefusalCode


@dataclass(frozen=True)
class _Tail:
    """The end of the record, as it was when it was last looked at.

    Attributes:
        stamp: of the file.
        head: how far it has got.
        last: the last line, if there is one.
    """

    stamp: tuple[int, ...]
    head: Head
    last: Line | None


class Record:
    """The record of one site; any number of processes may have one each.

    Attributes:
        site: whose it is.
        file: where it is.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.file = site.home / "record.jsonl"
        self._tail: _Tail | None = None

    @cached_property
    def policy(self) -> str:
        """SHA-256 of site.toml, as it is when the first entry is written: a changed one opens the site anew."""
        try:
            return hashlib.sha256((self.site.home / "site.toml").read_bytes()).hexdigest()
        except FileNotFoundError:
            return ""

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        return keys.read(self.site)

    @property
    def head(self) -> Head:
        """How far the record has got.

        Raises:
            Refused: `record`, if nobody knows.
        """
        with refusing(self.site):
            return heads.read(self.site.witness)

    def append(self, entry: Released | Refused | Decided | Rekeyed) -> int:
        """Write an entry; it is on the disk when this returns, and nothing may leave before.

        Returns:
            Its number; 0 where it was only counted (see `counts`).

        Raises:
            Refused: `record`, if it cannot be written, or what is there is not trusted.
        """
        with refusing(self.site), self._writing() as handle:
            hour = self._hour(handle, entry.time)
            if not isinstance(entry, Released | Refused) or not counts.counted(entry):
                return self._write(handle, entry)
            number = 0
            if hour.admits(entry):
                number = self._write(handle, entry)
                hour.note(entry)
            else:
                hour.count(entry)
            counts.write(self.site.home, hour)
            return number

    def troubles(self) -> list[str]:
        """What the operator should know: that the record is not trusted, or cannot be written."""
        try:
            with refusing(self.site), self._opened() as handle:
                if handle is not None:
                    self._look(handle, heads.read(self.site.witness))
        except errors.Refused as refused:
            return [refused.detail]
        return []

    @contextmanager
    def _opened(self) -> Iterator[int | None]:
        """The file, to read; None where it is not there and need not be."""
        if not self.file.exists() and not heads.read(self.site.witness).number:
            keys.read(self.site)
            yield None
            return
        with files.locked(self.file, write=False) as handle:
            yield handle

    @contextmanager
    def _writing(self) -> Iterator[int]:
        """The file, trusted, with a first entry and no torn line at its end."""
        new = not self.file.exists()
        if new and (head := heads.read(self.site.witness)).number:
            raise Untrusted(f"it is gone, and its head has seen entry {head.number}")
        with files.locked(self.file, write=True, create=new) as handle:
            try:
                head, durable = heads.read(self.site.witness), self.site.config.durable
                tail, torn = self._look(handle, head)
                if tail.head != head:  # killed between the two
                    heads.write(self.site.witness, tail.head, durable=durable)
                if torn:
                    files.cut(handle, len(torn), durable=durable)
                self._tail = _Tail(files.stamp(handle), tail.head, tail.last)
                if not tail.head.number:
                    if durable:
                        sync(self.file.parent)
                    self._write(handle, began(self.site, self._key))
                if torn:
                    self._write(handle, Mended(bytes=len(torn), digest=hashlib.sha256(torn).hexdigest()))
                yield handle
            except BaseException:
                self._tail = None
                raise

    def _look(self, handle: int, head: Head) -> tuple[_Tail, bytes]:
        """The end of the record, and what stands behind its last line.

        Args:
            handle: of the file.
            head: how far it had got at least.

        Raises:
            Untrusted: if it is not the site's, or not the one that was written last.
        """
        stamp = files.stamp(handle)
        if self._tail is not None and (self._tail.stamp, self._tail.head) == (stamp, head):
            return self._tail, b""
        end, key = files.ending(handle, head.number), self._key.public_key()
        check(end, head)
        previous: Line | None = None
        for line in end.lines:
            if not line.genuine(key):
                raise Untrusted(f"entry {line.number} is not what was written")
            if previous is not None and (line.number, line.before) != (previous.number + 1, previous.link):
                raise Untrusted(f"entry {line.number} does not follow on the one before it")
            previous = line
        return _Tail(stamp, previous.head if previous is not None else heads.NOTHING, previous), end.torn

    def _hour(self, handle: int, now: float) -> counts.Counts:
        """The hour that runs; the entry of the one before is written when it is over."""
        hour = counts.read(self.site.home)
        if hour is None or not hour.over(now):
            return hour or counts.Counts(since=now)
        if hour.answers and not self._is_summed(hour):
            self._write(handle, hour.summed())
        counts.forget(self.site.home)
        return counts.Counts(since=now)

    def _is_summed(self, hour: counts.Counts) -> bool:
        """Whether its entry is the last one already: killed before the counts were forgotten."""
        if self._tail is None or self._tail.last is None:
            return False
        try:
            entry = parsed.validate_json(self._tail.last.body)
        except ValidationError:
            return False
        return isinstance(entry, Counted) and entry.since == hour.since

    def _write(self, handle: int, entry: AnyEntry) -> int:
        """Write an entry, then the head."""
        if self._tail is None:
            raise RuntimeError("the end of the record was not looked at")
        before = self._tail.head
        body = entry.model_copy(update={"policy": self.policy}).model_dump_json()
        line = chain.signed(self._key, before=before.link, number=before.number + 1, body=body)
        durable = self.site.config.durable
        files.write(handle, line.encoded(), durable=durable)
        heads.write(self.site.witness, line.head, durable=durable)
        self._tail = _Tail(files.stamp(handle), line.head, line)
        return line.number


def check(end: files.Ending, head: Head) -> None:
    """Hold the end of a record against its head.

    Raises:
        Untrusted: if it is not the one that was witnessed last, or one that went on from there.
    """
    last = end.lines[-1].number if end.lines else 0
    if end.first and end.lines and _is_renewed(end.lines[0], head):
        return  # killed before the head of a new record was written
    if last < head.number:
        raise Untrusted(
            f"it ends with entry {last}, and its head has seen entry {head.number}: the last ones were taken out, or "
            "an older record was put in its place"
        )
    if head.number and end.lines[0].head != head:
        raise Untrusted(f"its entry {head.number} is not the one that its head has seen: it is another record")
    if not head.number and end.lines and (end.lines[0].number != 1 or end.lines[0].before):
        raise Untrusted("it does not begin with a first entry")


def _is_renewed(first: Line, head: Head) -> bool:
    """Whether the operator began this record after the one that the head is of."""
    try:
        entry = parsed.validate_json(first.body)
    except ValidationError:
        return False
    after = entry.after if isinstance(entry, Began) else None
    return after is not None and first.number > head.number and (after == head or after.number > head.number)


@contextmanager
def refusing(site: Site) -> Iterator[None]:
    """Turns what is wrong with a record into the refusal it comes to."""
    file = site.home / "record.jsonl"
    try:
        yield
    except Untrusted as error:
        raise errors.Refused(
            RefusalCode.RECORD,
            f"{file} is not trusted: {error}. Nothing leaves until the operator has decided: `insitu-client audit "
            f"verify --home {site.home}` says what is wrong and what to do",
        ) from None
    except BadInput as error:
        raise errors.Refused(RefusalCode.RECORD, f"{error}. Until then nothing leaves") from None
    except OSError as error:
        raise errors.Refused(
            RefusalCode.RECORD, f"{file} cannot be read or written ({error}); nothing leaves until it can"
        ) from None
