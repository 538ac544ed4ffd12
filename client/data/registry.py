"""The registry: which datasets a site has, in one SQLite file in its home.

Patients are in it only under their pseudonyms; PatientID and PatientName never are. Paths are: this is the
site's own disk.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from client.data import checks, database, fit, profile, source, split, tree
from client.data.records import SPLITS, Finding, Found, Item, LeftOut, Progress, Split, Summary
from client.site import Site
from shared.errors import BadInput
from shared.job import Job


class Registry:
    """The datasets of one site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.file = site.home / "registry.sqlite"

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return database.transaction(self.file)

    def add(
        self,
        name: str,
        path: Path,
        labels: Path | None = None,
        mapping: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> Summary:
        """Read a folder or manifest and register what can be used; the same name again reads it again.

        Args:
            name: of the dataset.
            path: a folder (a DICOM tree, or with a `manifest.csv`), or a manifest.
            labels: a table of labels for a DICOM tree.
            mapping: label names → class names.
            progress: told (done, total) while files are read.

        Raises:
            BadInput: if there is nothing there that can be used, a table is wrong, or the name is another path's.
        """
        started = time.monotonic()
        check_name(name)
        path = Path(path).absolute()
        with self._open() as connection:
            row = connection.execute("SELECT path FROM datasets WHERE name = ?", (name,)).fetchone()
        if row is not None and row["path"] != str(path):
            raise BadInput(f"{name!r} is already the name of {row['path']}; choose another name", file=path)
        naming = tree.Naming(self.site.pseudonym, partial(split.of, self.site.secret))
        found = source.read(path, labels, naming, progress)
        return self._write(name, str(path), labels, dict(mapping or {}), found, started)

    def _write(
        self, name: str, path: str, labels: Path | None, mapping: dict[str, str], found: Found, started: float
    ) -> Summary:
        seconds = time.monotonic() - started
        ordered = sorted(found.items, key=lambda item: (item.patient, item.files))
        with self._open() as connection:
            connection.execute("DELETE FROM datasets WHERE name = ?", (name,))
            connection.execute(
                "INSERT INTO datasets VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    name,
                    path,
                    None if labels is None else str(Path(labels).absolute()),
                    json.dumps(mapping),
                    time.time(),
                    seconds,
                    len(found.used),
                    json.dumps(found.notes),
                    json.dumps(profile.of(ordered)),
                ),
            )
            connection.executemany(
                "INSERT INTO items VALUES (?, ?, ?, ?, ?)",
                [
                    (name, number, item.patient, item.split, json.dumps(item.to_dict()))
                    for number, item in enumerate(ordered)
                ],
            )
            connection.executemany(
                "INSERT INTO left_out VALUES (?, ?, ?)", [(name, one.file, one.reason) for one in found.left_out]
            )
        return Summary(
            name=name,
            patients=len({item.patient for item in ordered}),
            images=len(ordered),
            used=len(found.used),
            left_out=len(found.left_out),
            seconds=seconds,
        )

    def summary(self, name: str) -> dict[str, Any]:
        """Everything `data show` says of a dataset; no patient is named in it.

        Raises:
            BadInput: if there is no such dataset.
        """
        row = self._dataset(name)
        left_out = self.left_out(name)
        return {
            "name": name,
            "path": row["path"],
            "labels_from": row["labels"],
            "mapping": json.loads(row["mapping"]),
            "added": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row["added"])),
            "seconds": round(row["seconds"], 3),
            "files": {"used": row["files_used"], "left_out": len(left_out)},
            **json.loads(row["profile"]),
            "notes": json.loads(row["notes"]),
            "left_out": [{"file": one.file, "reason": one.reason} for one in left_out],
        }

    def left_out(self, name: str) -> list[LeftOut]:
        """The files that were found and not used, and why.

        Raises:
            BadInput: if there is no such dataset.
        """
        self._dataset(name)
        with self._open() as connection:
            rows = connection.execute("SELECT file, reason FROM left_out WHERE dataset = ? ORDER BY file", (name,))
            return [LeftOut(row["file"], row["reason"]) for row in rows]

    def items(self, name: str, split: Split | None = None) -> list[Item]:
        """The images of a dataset, of one split or of all, ordered by patient.

        Raises:
            BadInput: if there is no such dataset.
        """
        self._dataset(name)
        chosen: Sequence[str] = SPLITS if split is None else (split,)
        places = ",".join("?" * len(chosen))
        with self._open() as connection:
            rows = connection.execute(
                f"SELECT body FROM items WHERE dataset = ? AND split IN ({places}) ORDER BY number",  # noqa: S608
                (name, *chosen),
            )
            return [Item.from_dict(json.loads(row["body"])) for row in rows]

    def mapping(self, name: str) -> dict[str, str]:
        """Label names → class names.

        Raises:
            BadInput: if there is no such dataset.
        """
        return dict(json.loads(self._dataset(name)["mapping"]))

    def check(self, name: str) -> list[Finding]:
        """What would make training on this dataset wrong (errors) or worse (warnings).

        Raises:
            BadInput: if there is no such dataset.
        """
        row = self._dataset(name)
        elsewhere: dict[str, set[str]] = {}
        with self._open() as connection:
            for other in connection.execute("SELECT DISTINCT patient, split FROM items WHERE dataset != ?", (name,)):
                elsewhere.setdefault(other["patient"], set()).add(other["split"])
        return checks.findings(
            self.items(name),
            mapping=json.loads(row["mapping"]),
            notes=json.loads(row["notes"]),
            left_out=self.left_out(name),
            elsewhere=elsewhere,
        )

    def select(self, job: Job) -> str:
        """The one dataset that is open to this job and fits it.

        Raises:
            Refused: `no_dataset`, `ambiguous_dataset` or `labels`, with the reasons in the detail.
        """
        with self._open() as connection:
            rows = connection.execute("SELECT name, mapping, profile FROM datasets ORDER BY name").fetchall()
        candidates = [
            fit.Candidate(row["name"], json.loads(row["mapping"]), json.loads(row["profile"])) for row in rows
        ]
        return fit.select(job, candidates, self.site)

    def _dataset(self, name: str) -> sqlite3.Row:
        with self._open() as connection:
            row = connection.execute("SELECT * FROM datasets WHERE name = ?", (name,)).fetchone()
            if row is None:
                names = [other["name"] for other in connection.execute("SELECT name FROM datasets ORDER BY name")]
                raise BadInput(f"there is no dataset {name!r} here; there are: {', '.join(names) or 'none'}")
        return row  # type: ignore[no-any-return]

    def list(self) -> list[dict[str, Any]]:
        """Of each dataset: name, path, patients, images, and the files used and left out."""
        with self._open() as connection:
            return [
                {
                    "name": row["name"],
                    "path": row["path"],
                    "patients": json.loads(row["profile"])["patients"],
                    "images": json.loads(row["profile"])["images"],
                    "files": {"used": row["files_used"], "left_out": row["left_out"]},
                }
                for row in connection.execute(
                    "SELECT *, (SELECT COUNT(*) FROM left_out WHERE dataset = name) AS left_out"
                    " FROM datasets ORDER BY name"
                )
            ]


def check_name(name: str) -> None:
    """Names of datasets are like names of jobs.

    Raises:
        BadInput: if this one is not.
    """
    if not name or len(name) > 64 or not all(c.isascii() and (c.isalnum() or c in "._-") for c in name):
        raise BadInput(f"{name[:64]!r} is no name for a dataset; use up to 64 letters, digits, '.', '_' and '-'")


def pooled(target: Site, name: str, sources: Sequence[Site]) -> Summary:
    """Register in `target` the union of the sites' datasets of that name; patients and their splits are kept.

    For simulations only: it reads several homes, which no hospital's machine has.

    Raises:
        BadInput: if a site has no such dataset, or two sites map the same label to different classes.
    """
    started = time.monotonic()
    items: list[Item] = []
    mapping: dict[str, str] = {}
    for site in sources:
        registry = Registry(site)
        items += registry.items(name)
        for label, meaning in registry.mapping(name).items():
            if mapping.setdefault(label, meaning) != meaning:
                raise BadInput(f"two sites map the label {label!r} to different classes; use the same --map at all")
    used = frozenset(file for item in items for file in (*item.files, *item.masks))
    found = Found(items=items, used=used, left_out=[])
    path = "the union of " + ", ".join(site.name for site in sources)
    return Registry(target)._write(name, path, None, mapping, found, started)
