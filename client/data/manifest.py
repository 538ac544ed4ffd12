"""The two tables an operator may write: a manifest of images, and labels for a DICOM tree.

A manifest is a CSV `patient,image,mask|label[,split]`; paths are absolute or beside the manifest. A table of labels is
a CSV with `SeriesInstanceUID` or `PatientID`, and `label`. Neither messages nor logs quote a cell that could name a
patient: they say file, row (as a spreadsheet numbers it, the header being row 1) and column.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.data.records import Split
from shared.errors import BadInput

_COLUMNS = ("patient", "image", "mask", "label", "split")
_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
Key = Literal["SeriesInstanceUID", "PatientID"]
_KEYS: tuple[Key, ...] = ("SeriesInstanceUID", "PatientID")
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image of a manifest.

    Attributes:
        number: of the row, from 2.
        patient: as written; it stays in memory and becomes a pseudonym before anything is stored.
        image: an existing file, or an existing folder with the slices of one series.
        mask: an existing file.
        split: None where the manifest leaves it to the site.
    """

    number: int
    patient: str
    image: Path
    mask: Path | None
    label: str | None
    split: Split | None


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Labels of whole images: `key` says what `labels` is keyed by."""

    key: Key
    labels: dict[str, str]


def parse(path: Path) -> list[Row]:
    """Read a manifest.

    Raises:
        BadInput: naming file, row and column of what is wrong, the first five of them.
    """
    header, lines = _read(path)
    _check_header(path, header)
    wrong: list[str] = []
    rows: list[Row] = []
    first_seen: dict[Path, int] = {}
    for number, cells in lines:
        row = _row(path, number, header, cells, wrong)
        if row is not None and (before := first_seen.setdefault(row.image, number)) != number:
            wrong.append(f"row {number}, column image: the same image as in row {before}")
        elif row is not None:
            rows.append(row)
    _refuse(path, wrong)
    return rows


def _check_header(path: Path, header: list[str]) -> None:
    expected = "expected patient,image,mask|label[,split]"
    if unknown := [name for name in header if name not in _COLUMNS]:
        # Without any name that is known, this is no header: the first row of patients stands there.
        quoted = f" {unknown[0][:40]!r}" if set(header) & set(_COLUMNS) else ""
        raise BadInput(f"row 1: unknown column{quoted}; {expected}", file=path)
    if missing := [name for name in ("patient", "image") if name not in header]:
        raise BadInput(f"row 1: there is no column {missing[0]!r}; {expected}", file=path)
    if "mask" not in header and "label" not in header:
        raise BadInput(f"row 1: there is neither a column 'mask' nor a column 'label'; {expected}", file=path)


def _row(path: Path, number: int, header: list[str], cells: list[str], wrong: list[str]) -> Row | None:
    """One row, or None with what is wrong added to `wrong`."""
    before = len(wrong)
    if len(cells) != len(header):
        wrong.append(f"row {number}: has {len(cells)} columns, expected {len(header)}")
        return None
    row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
    wrong.extend(f"row {number}, column {name}: is empty" for name in ("patient", "image") if not row[name])
    if not row.get("mask") and not row.get("label"):
        columns = " and ".join(name for name in ("mask", "label") if name in header)
        wrong.append(f"row {number}, column {columns}: is empty; a row needs a mask or a label")
    split = row.get("split", "").casefold()
    if split and split not in _SPLITS:
        wrong.append(f"row {number}, column split: expected training, validation or test")
    image = _find(path, number, "image", row["image"], wrong)
    mask = _find(path, number, "mask", row.get("mask", ""), wrong)
    if image is None or len(wrong) > before:
        return None
    return Row(
        number=number,
        patient=row["patient"],
        image=image,
        mask=mask,
        label=row.get("label") or None,
        split=_SPLITS.get(split),
    )


def parse_labels(path: Path) -> LabelTable:
    """Read a table of labels.

    Raises:
        BadInput: naming file, row and column of what is wrong.
    """
    header, lines = _read(path)
    keys = [name for name in _KEYS if name in header]
    if not keys or "label" not in header:
        raise BadInput("row 1: expected the columns SeriesInstanceUID or PatientID, and label", file=path)
    key = keys[0]
    wrong: list[str] = []
    labels: dict[str, str] = {}
    for number, cells in lines:
        if len(cells) != len(header):
            wrong.append(f"row {number}: has {len(cells)} columns, expected {len(header)}")
            continue
        row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        empty = [name for name in (key, "label") if not row[name]]
        wrong.extend(f"row {number}, column {name}: is empty" for name in empty)
        if not empty and labels.setdefault(row[key], row["label"]) != row["label"]:
            wrong.append(f"row {number}, column label: an earlier row gives the same {key} another label")
    _refuse(path, wrong)
    return LabelTable(key, labels)


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the rows that are not blank with their numbers."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(enumerate(csv.reader(file, strict=True), start=1))
    except FileNotFoundError:
        raise BadInput("no such file; expected a CSV", file=path) from None
    except OSError as error:
        raise BadInput(f"cannot be opened ({error.strerror})", file=path) from None
    except UnicodeDecodeError:
        raise BadInput("is not text in UTF-8; expected a CSV", file=path) from None
    except csv.Error as error:
        raise BadInput(f"is not a CSV ({error})", file=path) from None
    lines = [(number, cells) for number, cells in lines if any(cell.strip() for cell in cells)]
    if not lines:
        raise BadInput("is empty; expected a CSV with a header", file=path)
    header = [cell.strip() for cell in lines[0][1]]
    if len(set(header)) != len(header):
        raise BadInput("row 1: two columns have the same name", file=path)
    if len(lines) == 1:
        raise BadInput("has a header and no rows", file=path)
    return header, lines[1:]


def _find(manifest: Path, number: int, column: str, cell: str, wrong: list[str]) -> Path | None:
    if not cell:
        return None
    if "\0" in cell:
        wrong.append(f"row {number}, column {column}: is not a path")
        return None
    path = manifest.parent.absolute() / cell
    try:
        found = path.is_file() or (column == "image" and path.is_dir())
    except OSError:
        found = False
    if not found:
        wrong.append(f"row {number}, column {column}: no such file")
        return None
    return path


def _refuse(path: Path, wrong: Sequence[str]) -> None:
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise BadInput("; ".join(wrong[:_SHOWN]) + more, file=path)
