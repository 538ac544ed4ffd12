"""The search of `test_markers` finds what it looks for, however it is written; or its silence would say nothing."""

import base64
import gzip
import io
import json
import random
import sqlite3
import zipfile
import zlib

import numpy as np
import pytest
from traces import Marks, Pixels, Traces

ARRAY = np.random.default_rng(3).integers(0, 4096, (16, 16), dtype=np.uint16)
KINDS = {
    "uint16": ARRAY,
    "int16": ARRAY.astype(np.int16) - 1024,
    "uint8": ARRAY.astype(np.uint8),
    "float32": ARRAY.astype(np.float32) / 3,
}


@pytest.fixture(scope="module")
def marks() -> Marks:
    marks = Marks()
    for number in range(2000):
        marks.text(f"other {number}")
    return marks


@pytest.fixture(scope="module")
def traces(marks) -> Traces:
    pixels = Pixels()
    for name, array in KINDS.items():
        pixels.add(name, array)
    return Traces(marks, pixels)


def _zip(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", data)
    return file.getvalue()


def _sqlite(data: bytes) -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA page_size = 512")
    connection.execute("CREATE TABLE t (v BLOB)")
    connection.execute("INSERT INTO t VALUES (?)", (b"x" * 400 + data,))  # lies on two pages
    connection.commit()
    return connection.serialize()


WAYS = {
    "as it is": lambda data: data,
    "base64": base64.b64encode,
    "base64 for URLs": lambda data: base64.urlsafe_b64encode(data).rstrip(b"="),
    "base64 of more than it": lambda data: base64.b64encode(b"ab" + data + b"c"),
    "hexadecimal": lambda data: data.hex().encode(),
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "a ZIP": _zip,
    "SQLite": _sqlite,
    "base64 of zlib": lambda data: base64.b64encode(zlib.compress(data)),
    "JSON of base64": lambda data: json.dumps({"a": base64.b64encode(data).decode()}).encode(),
}


@pytest.mark.parametrize("letters", ["ascii", "utf-16-le", "utf-16-be", "lower case", "a UID"])
@pytest.mark.parametrize("way", WAYS)
def test_a_marker_is_found_in_every_encoding(marks, traces, way, letters):
    place = f"{way} {letters}"
    text = marks.uid(place) if letters == "a UID" else marks.text(place)
    plain = ("ascii", "lower case", "a UID")
    data = text.lower().encode() if letters == "lower case" else text.encode("ascii" if letters in plain else letters)
    noise = random.Random(place).randbytes(1001)
    assert traces.among(noise + b" " + WAYS[way](data) + b" " + noise) == {place}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["<", ">", "columns"])
@pytest.mark.parametrize("way", ["as it is", "base64", "zlib", "SQLite"])
@pytest.mark.parametrize("start", [0, 1, 5, 7, 100])
def test_sixteen_pixels_in_a_row_are_found_wherever_they_begin(traces, kind, order, way, start):
    values = (KINDS[kind].T if order == "columns" else KINDS[kind]).ravel()[start : start + 16]
    data = values.astype(values.dtype.newbyteorder("<" if order == "columns" else order)).tobytes()
    noise = random.Random(start).randbytes(997 + start)
    assert traces.among(noise + b" " + WAYS[way](data) + b" " + noise) == {kind}


def test_pixels_in_words_are_found(traces):
    assert traces.among(json.dumps(ARRAY.ravel()[3:19].tolist()).encode()) == {"uint16 in words"}


def test_nothing_is_found_where_nothing_is(traces):
    assert traces.among(random.Random(1).randbytes(1 << 20)) == set()
    assert traces.among(random.Random(2).randbytes(1 << 18).hex().encode()) == set()


def test_a_files_name_is_looked_at_too(marks, traces, tmp_path):
    (tmp_path / marks.text("a name")).write_bytes(b"")
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "file").write_text(marks.text("left out"))
    assert list(traces.under(tmp_path, without=("left/",)).values()) == [{"a name"}]
