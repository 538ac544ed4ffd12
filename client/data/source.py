"""Where a dataset comes from: a manifest, or a DICOM tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from client.data import listing, tree
from client.data.records import Found, LeftOut, Progress
from shared.errors import BadInput


def read(path: Path, labels: Path | None, naming: tree.Naming, progress: Progress | None) -> Found:
    """Read a folder or a manifest, whichever is there.

    Raises:
        BadInput: if there is nothing to read, a table is wrong, or nothing in it can be used.
    """
    found = _found(path, labels, naming, progress)
    if not found.items:
        raise BadInput(f"nothing in it can be used: {_reasons(found.left_out)}", file=path)
    return found


def _found(path: Path, labels: Path | None, naming: tree.Naming, progress: Progress | None) -> Found:
    if path.is_dir():
        manifest = path / "manifest.csv"
    elif path.is_file() and path.suffix.lower() == ".csv":
        manifest = path
    elif path.exists():
        raise BadInput("is neither a folder nor a manifest; expected a folder with DICOM files, or a CSV", file=path)
    else:
        raise BadInput("no such file or folder", file=path)
    if manifest.is_file():
        if labels is not None:
            raise BadInput("has its labels in its own columns; --labels is for a DICOM tree", file=manifest)
        return listing.read(manifest, naming, progress)
    return tree.read(path, naming, labels, progress)


def _reasons(left_out: Sequence[LeftOut]) -> str:
    if not left_out:
        return "the folder is empty; expected DICOM files or a manifest.csv"
    counted = Counter(one.reason for one in left_out).most_common(5)
    return f"{len(left_out)} files, " + "; ".join(f"{count} × {reason}" for reason, count in counted)
