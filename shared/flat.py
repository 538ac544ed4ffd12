"""Flower's records as few, even pieces, for the way between two processes.

Flower sends every array as two objects, each with several small HTTP exchanges on each of the five hops between the
round loop and a site, and its SQLite store keeps them one by one: a network of 60 arrays costs a thousand exchanges
a message. Flat, a message is its bytes in pieces of 4 MiB: nothing is lost, and nothing but public Flower is used.

    pieces: {"000000": ConfigRecord({"flat": bytes}), "000001": …}
    bytes:  length of the header (4, big-endian) | header (JSON) | the arrays' data, one after the other
    header: {record: ["config" | "metrics", {key: value}] | ["arrays", [[name, dtype, shape, stype, bytes], …]]}
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

PIECE = 4 * 2**20
_KEY = "flat"
_LENGTH = 4
_LONGEST_HEADER = 4 * 2**20  # as Python objects it is twenty times as much


def flatten(records: RecordDict) -> RecordDict:
    """The same records, in pieces."""
    header: dict[str, Any] = {}
    data: list[bytes] = []
    for name, record in records.items():
        if isinstance(record, ArrayRecord):
            rows = [[key, a.dtype, list(a.shape), a.stype, len(a.data)] for key, a in record.items()]
            header[name] = ["arrays", rows]
            data.extend(array.data for array in record.values())
        elif isinstance(record, MetricRecord):
            header[name] = ["metrics", dict(record)]
        else:
            header[name] = ["config", {key: _encoded(value) for key, value in record.items()}]
    head = json.dumps(header, separators=(",", ":")).encode()
    pieces = _pieces([len(head).to_bytes(_LENGTH, "big"), head, *data])
    return RecordDict({f"{number:06d}": ConfigRecord({_KEY: piece}) for number, piece in enumerate(pieces)})


def restore(pieces: RecordDict) -> RecordDict:
    """The records that were flattened.

    Raises:
        ValueError: if these are not the pieces of flattened records, whole and in order.
    """
    source = _Source(_contents(pieces))
    length = int.from_bytes(source.take(_LENGTH), "big")
    if length > _LONGEST_HEADER:
        raise ValueError("the header is too long")
    try:
        header = json.loads(source.take(length))
        records = {str(name): _record(kind, body, source) for name, (kind, body) in header.items()}
    except (TypeError, AttributeError, KeyError, RecursionError, OverflowError) as error:
        raise ValueError(f"the header is malformed ({type(error).__name__})") from None
    source.finish()
    return RecordDict(records)


def _pieces(parts: list[bytes]) -> Iterator[bytes]:
    piece: list[memoryview] = []
    room = PIECE
    for part in parts:
        view = memoryview(part)
        while len(view):
            piece.append(view[:room])
            taken = len(piece[-1])
            view = view[taken:]
            room -= taken
            if not room:
                yield b"".join(piece)
                piece, room = [], PIECE
    if piece:
        yield b"".join(piece)


def _contents(pieces: RecordDict) -> list[bytes]:
    contents = []
    for number in range(len(pieces)):
        record = pieces.get(f"{number:06d}")
        content = record.get(_KEY) if isinstance(record, ConfigRecord) and len(record) == 1 else None
        if not isinstance(content, bytes) or not content:
            raise ValueError("a piece is missing or not one of ours")
        contents.append(content)
    return contents


class _Source:
    """Bytes taken from the front of the pieces; each is forgotten once it is used up."""

    def __init__(self, contents: list[bytes]) -> None:
        self._views = [memoryview(content) for content in reversed(contents)]

    def take(self, count: int) -> bytes:
        taken: list[memoryview] = []
        while count:
            if not self._views:
                raise ValueError("pieces are missing at the end")
            view = self._views.pop()
            taken.append(view[:count])
            if len(view) > count:
                self._views.append(view[count:])
            count -= len(taken[-1])
        return b"".join(taken)

    def finish(self) -> None:
        if self._views:
            raise ValueError("there is more than the header says")


def _record(kind: str, body: Any, source: _Source) -> ArrayRecord | MetricRecord | ConfigRecord:
    if kind == "arrays":
        arrays = {}
        for name, dtype, shape, stype, size in body:
            if not all(isinstance(text, str) for text in (name, dtype, stype)) or not _are_counts([size, *shape]):
                raise ValueError("the header is malformed (an array)")
            arrays[name] = Array(dtype=dtype, shape=tuple(shape), stype=stype, data=source.take(size))
        return ArrayRecord(arrays)
    if kind == "metrics":
        return MetricRecord(body)
    if kind == "config":
        return ConfigRecord({key: _decoded(value) for key, value in body.items()})
    raise ValueError("the header is malformed (kind)")


def _are_counts(values: list[Any]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 for value in values)


def _encoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, list):
        return [_encoded(item) for item in value]
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        return base64.b64decode(value["bytes"], validate=True)
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value
