"""What becomes of a record that is not trusted: the operator's decision, after which another record begins.

The one that is not trusted is set aside, never changed and never deleted. The new one's first entry says what was wrong
with it, what the operator said, how far it had got, and goes on with the numbers: what is missing stays visible. Killed
at any point, the record is still not trusted, and the same command does the rest.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from client.audit import chain, files, heads, keys
from client.audit.beginning import began
from client.audit.chain import Untrusted
from client.audit.entries import Head
from client.audit.findings import Findings
from client.audit.journal import Record, refusing
from client.audit.verification import verify
from client.ledger import Ledger
from client.site import Site
from shared.files import write_atomically

_FEW = 5


def accept(site: Site, *, reason: str) -> Head | None:
    """Begin another record, if something is wrong with the one that is there.

    Args:
        site: whose record; no daemon runs on it.
        reason: in the operator's words.

    Returns:
        The head of the new record; None where nothing is wrong with the old one.

    Raises:
        Refused: `ledger`, if that is not trusted, which has to be decided first; `record`, if the disk does not let us.
    """
    Ledger(site).read()
    with refusing(site):
        findings = verify(site)
        trouble = [fault.what for fault in findings.faults]
        if not trouble:
            return None
        if not (site.home / "keys" / "record.pem").exists():
            keys.make(site)
        record, key = Record(site), keys.read(site)
        with _held(record.file):
            after = _known(site, findings)
            entry = began(site, key, after=after, found=_summed(trouble), reason=reason)
            body = entry.model_copy(update={"policy": record.policy}).model_dump_json()
            line = chain.signed(key, before="", number=after.number + 1 if after is not None else 1, body=body)
            _set_aside(record.file)
            write_atomically(record.file, line.encoded(), mode=0o600)
            heads.put(site.witness, line.head)
        return line.head


def _held(file: Path) -> AbstractContextManager[object]:
    """Nobody appends to the one that is set aside."""
    return files.locked(file, write=True) if file.exists() else nullcontext()


def _known(site: Site, findings: Findings) -> Head | None:
    """How far the record had got: the highest number of which anything is known."""
    known = [one.line.head for one in findings.entries]
    with suppress(Untrusted):
        known.append(heads.read(site.witness))
    highest = max(known, key=lambda head: head.number, default=heads.NOTHING)
    return highest if highest.number else None


def _summed(trouble: list[str]) -> str:
    """The first of what was found, and how much more there was."""
    more = f"; and {len(trouble) - _FEW} more" if len(trouble) > _FEW else ""
    return "; ".join(trouble[:_FEW]) + more


def _set_aside(file: Path) -> None:
    """Rename a record, whatever is in it."""
    if file.exists():
        file.rename(
            file.with_name(f"{file.name}.{time.strftime('%Y%m%dT%H%M%S')}-{time.time_ns() % 10**6:06d}.untrusted")
        )
