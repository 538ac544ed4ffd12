"""What the tests of the record do with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.audit import Decided, Record, Refused, Released, heads
from client.audit.chain import Line, parse
from client.audit.verification import verify
from client.site import Site, SiteConfig
from shared import errors
from shared.errors import RefusalCode

JOB, OTHER = "a" * 64, "b" * 64


def site_at(home: Path, **config) -> Site:
    return Site.create(home, SiteConfig(name="north", **{"durable": False, **config}))


def update(round: int = 1, **given) -> Released:
    """A release of a job without privacy."""
    facts = {
        "message": "Update",
        "job": JOB,
        "name": "lesions",
        "run": "run-1",
        "round": round,
        "dataset": "data",
        "private": False,
        "arrays": 4,
        "structure": "5" * 64,
        "bytes": 4096,
        "content": f"{round:064x}",
        "norm": 1.25,
        "numbers": {"dice": 0.5, "patients": 12.0},
    }
    return Released(**(facts | given))


def refusal(code: str = "malformed", message: str = "TrainRequest", **given) -> Refused:
    return Refused(code=code, message=message, **given)


def decided(what: str = "approved", **given) -> Decided:
    return Decided(**({"what": what, "job": JOB, "name": "lesions", "by": "operator", "reason": "board"} | given))


def filled(site: Site, count: int = 6) -> Record:
    """A record of so many entries, the first of which is its beginning."""
    record = Record(site)
    for number in range(2, count + 1):
        record.append(update(number) if number % 3 else decided())
    return record


def lines(site: Site) -> list[Line]:
    return [parse(raw) for raw in (site.home / "record.jsonl").read_bytes().splitlines()]


def rewrite(site: Site, raws: list[bytes]) -> None:
    (site.home / "record.jsonl").write_bytes(b"".join(raw + b"\n" for raw in raws))


def head(site: Site):
    return heads.read(site.witness)


def untrusted(what, *args) -> str:
    """What is said where nothing may leave."""
    with pytest.raises(errors.Refused) as found:
        what(*args)
    assert found.value.code == RefusalCode.RECORD
    return found.value.detail


def faults(site: Site, **given) -> dict[int | None, str]:
    """What is wrong with a record: number of the entry → in words."""
    found: dict[int | None, str] = {}
    for fault in verify(site, **given).faults:
        found[fault.number] = f"{found[fault.number]}; {fault.what}" if fault.number in found else fault.what
        assert fault.do
    return found
