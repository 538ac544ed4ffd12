"""The head, in the witness's folder: outside record.jsonl, how far it had got, so that a shorter one is noticed.

It is written after the entry, in place and within one sector of the disk, so that it is the old one or the new one. A
record that is ahead of it is one whose process was killed in between; one that is behind it was cut short.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from client.audit.chain import Untrusted
from client.audit.entries import Head
from shared.errors import BadInput
from shared.files import write_atomically

NOTHING = Head(number=0, link="")
_NAME = "record"
_SIZE = 512


def begin(folder: Path) -> None:
    """The head of a new home, whose record has no entry.

    Raises:
        BadInput: if another home's is there.
    """
    if (folder / _NAME).exists():
        raise BadInput("holds the head of another home's record; choose another folder", file=folder)
    put(folder, NOTHING)


def put(folder: Path, head: Head) -> None:
    """Make the file, or replace it, whatever was there."""
    write_atomically(folder / _NAME, _encoded(head), mode=0o600)


def read(folder: Path) -> Head:
    """How far the record had got.

    Raises:
        Untrusted: if nobody knows.
    """
    file = folder / _NAME
    try:
        with file.open("rb") as stream:
            data = stream.read(_SIZE + 1)
        return Head.model_validate_json(data)
    except FileNotFoundError:
        raise Untrusted(f"its head {file} is gone, which every home has had from its first day") from None
    except ValidationError:
        raise Untrusted(f"its head {file} is damaged") from None


def write(folder: Path, head: Head, *, durable: bool) -> None:
    """Say how far the record has got; the file is there."""
    handle = os.open(folder / _NAME, os.O_WRONLY)
    try:
        os.pwrite(handle, _encoded(head), 0)
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)


def _encoded(head: Head) -> bytes:
    return head.model_dump_json().encode().ljust(_SIZE - 1) + b"\n"
