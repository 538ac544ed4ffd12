"""Looks for traces of patients in bytes: markers, however they are encoded, and runs of known pixels.

A marker is a text that is nowhere but in one place of a file; all begin alike, so that one look finds them all. Pixels
are found as eight values in a row from a multiple of eight on: any sixteen consecutive ones hold such a block.
"""

import base64
import re
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

# Fits into the shortest of DICOM's texts (16 characters) with five digits behind it; the other is for UIDs.
LETTERS, DIGITS = "QZXJKVWYN", "749201835566"
_MARKER = re.compile(rf"(?:{LETTERS}|{DIGITS})(\d{{5}})".encode(), re.IGNORECASE)
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}")
_HEX = re.compile(rb"[0-9A-Fa-f]{24,}")
_COMPRESSED = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08|PK\x03\x04", re.DOTALL)
_BLOCK = 8
_DEPTH = 2


class Marks:
    """Hands out markers and remembers what each stands for."""

    def __init__(self) -> None:
        self.places: list[str] = []

    def text(self, place: str) -> str:
        """A new marker of fourteen letters and digits, for this place."""
        self.places.append(place)
        return f"{LETTERS}{len(self.places) - 1:05d}"

    def uid(self, place: str) -> str:
        """The same as a DICOM UID."""
        self.places.append(place)
        return f"1.2.826.0.1.{DIGITS}{len(self.places) - 1:05d}"

    def found(self, data: bytes) -> set[str]:
        """The places whose markers are in these bytes, as they are."""
        return {self.places[int(match[1])] for match in _MARKER.finditer(data) if int(match[1]) < len(self.places)}


class Pixels:
    """Blocks of known values, as they could be written."""

    def __init__(self) -> None:
        self._blocks: dict[int, list[tuple[bytes, str]]] = {}
        self._table = np.zeros(1 << 20, bool)  # whether a block begins with a word that ends in these bits

    def add(self, name: str, array: np.ndarray) -> None:
        """Values that are to be found again, along the rows and along the columns."""
        for order in (array, array.T):
            for start in range(0, order.size - _BLOCK + 1, _BLOCK):
                block = np.ascontiguousarray(order).ravel()[start : start + _BLOCK]
                for written in (block.tobytes(), block.byteswap().tobytes()):
                    self._add(written, name)
                if array.dtype.kind in "iu":
                    for between in (",", ", ", " "):
                        self._add(between.join(map(str, block)).encode(), f"{name} in words")

    def _add(self, written: bytes, name: str) -> None:
        key = int.from_bytes(written[:8], "little")
        assert len(set(written)) > 1, "a pattern that could be anybody's"
        self._blocks.setdefault(key, []).append((written, name))
        self._table[key & ((1 << 20) - 1)] = True

    def found(self, data: bytes) -> set[str]:
        """Whose pixels are in these bytes."""
        found = set()
        for shift in range(min(8, max(0, len(data) - 7))):
            words = np.frombuffer(data, "<u8", count=(len(data) - shift) // 8, offset=shift)
            for index in np.flatnonzero(self._table[words & np.uint64((1 << 20) - 1)]):
                start = shift + 8 * int(index)
                for written, name in self._blocks.get(int(words[index]), ()):
                    if data[start : start + len(written)] == written:
                        found.add(name)
        return found


class Traces:
    """Everything of the patients that must not be found."""

    def __init__(self, marks: Marks, pixels: Pixels) -> None:
        self.marks = marks
        self.pixels = pixels

    def among(self, data: bytes) -> set[str]:
        """What is in these bytes, in any encoding that is known here."""
        return {trace for seen in _seen(data, _DEPTH) for trace in self.marks.found(seen) | self.pixels.found(seen)}

    def under(self, folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, set[str]]:
        """File → what is in it or in its name, of every file under a folder that has a trace."""
        files = [
            file
            for file in sorted(folder.rglob("*"))
            if file.is_file() and not file.relative_to(folder).as_posix().startswith(without)
        ]
        assert files, f"nothing to look at in {folder}"
        looked = {str(file.relative_to(folder)): self.among(str(file).encode() + file.read_bytes()) for file in files}
        return {file: traces for file, traces in looked.items() if traces}


def _seen(data: bytes, depth: int) -> Iterator[bytes]:
    """The bytes, and what they hold in other encodings."""
    yield data
    yield data.replace(b"\0", b"")  # UTF-16, either way round, of letters
    if not depth:
        return
    for decoded in (*_base64(data), *_hex(data), *_inflated(data), *_rows(data)):
        yield from _seen(decoded, depth - 1)


def _base64(data: bytes) -> Iterator[bytes]:
    for match in _BASE64.finditer(data):
        text = match[0].replace(b"-", b"+").replace(b"_", b"/")
        for start in range(4):
            part = text[start:]
            yield base64.b64decode(part[: len(part) // 4 * 4])
            if len(part) % 4 > 1:  # the last, not filled up
                yield base64.b64decode(part + b"=" * (-len(part) % 4))


def _hex(data: bytes) -> Iterator[bytes]:
    for match in _HEX.finditer(data):
        for start in (0, 1):
            part = match[0][start:]
            yield bytes.fromhex(part[: len(part) // 2 * 2].decode())


def _inflated(data: bytes) -> Iterator[bytes]:
    """zlib, gzip and the entries of a ZIP, wherever one begins."""
    for match in _COMPRESSED.finditer(data):
        start, kind = match.start(), zlib.MAX_WBITS
        if match[0] == b"PK\x03\x04":
            name, extra = data[start + 26 : start + 28], data[start + 28 : start + 30]
            start += 30 + int.from_bytes(name, "little") + int.from_bytes(extra, "little")
            kind = -zlib.MAX_WBITS
        elif match[0] == b"\x1f\x8b\x08":
            kind = 16 + zlib.MAX_WBITS
        try:
            content = zlib.decompressobj(kind).decompress(data[start:], 1 << 24)
        except zlib.error:
            continue
        if len(content) >= _BLOCK:
            yield content


def _rows(data: bytes) -> Iterator[bytes]:
    """What SQLite would answer: on the disk a value may lie on two pages."""
    start = data.find(b"SQLite format 3\0")
    if start < 0:
        return
    with tempfile.NamedTemporaryFile(suffix=".sqlite") as file:
        file.write(data[start:])
        file.flush()
        connection = sqlite3.connect(f"file:{file.name}?immutable=1", uri=True)
        connection.text_factory = bytes
        try:
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                for row in connection.execute(f'SELECT * FROM "{table.decode()}"'):
                    yield b"\n".join(v if isinstance(v, bytes) else str(v).encode() for v in row)
        except sqlite3.DatabaseError:  # a page that is not written yet; the bytes are looked at all the same
            pass
        finally:
            connection.close()


def together(found: Mapping[str, set[str]]) -> set[str]:
    """All traces, whatever file they are in."""
    return {trace for traces in found.values() for trace in traces}
