"""Manifests of public collections, one folder a hospital, for `insitu-sim compare`.

The images stay where they are; the manifests name them by absolute path:

    python -m simulations.collections ham10000-lesions SOURCE DATA

| collection | hospitals | patient |
| --- | --- | --- |
| ham10000-lesions, ham10000-malignant | the three places that took the photographs | the lesion |
| hippocampus | three pseudo-sites, by how the scanner's intensities are stored | the file |

HAM10000: Tschandl, Rosendahl and Kittler, Scientific Data 5:180161 (2018), CC BY-NC 4.0. Hippocampus: Medical
Segmentation Decathlon, Antonelli et al., Nature Communications 13:4128 (2022), CC BY-SA 4.0.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

from shared import console
from shared.errors import BadInput

Row = dict[str, str]
_MOST_PATIENTS = 600  # of one hospital, for segmentation: enough to learn from, few enough for two cores


def _index(source: Path) -> list[Row]:
    file = source / "index.csv"
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    except FileNotFoundError:
        raise BadInput("no such file; expected the collection's index", file=file) from None


def _lesions(source: Path) -> Iterable[tuple[str, Row]]:
    seen: dict[str, dict[str, None]] = defaultdict(dict)
    for row in _index(source):
        patients = seen[row["site"]]
        if row["lesion_id"] not in patients and len(patients) == _MOST_PATIENTS:
            continue
        patients[row["lesion_id"]] = None
        image, mask = source / "images" / f"{row['image_id']}.jpg", source / "masks" / f"{row['image_id']}.png"
        yield row["site"].replace("_", "-"), {"patient": row["lesion_id"], "image": str(image), "mask": str(mask)}


def _malignant(source: Path) -> Iterable[tuple[str, Row]]:
    for row in _index(source):
        image = source / "images" / f"{row['image_id']}.jpg"
        label = "malignant" if row["malignant"] == "1" else "benign"
        yield row["site"].replace("_", "-"), {"patient": row["lesion_id"], "image": str(image), "label": label}


def _hippocampus(source: Path) -> Iterable[tuple[str, Row]]:
    for row in _index(source):
        site = "bytes" if row["dtype"] == "uint8" else "wide" if float(row["max"]) > 10_000 else "narrow"
        image, mask = source / "images" / row["file"], source / "labels" / row["file"]
        yield site, {"patient": row["file"].removesuffix(".nii.gz"), "image": str(image), "mask": str(mask)}


COLLECTIONS: dict[str, Callable[[Path], Iterable[tuple[str, Row]]]] = {
    "ham10000-lesions": _lesions,
    "ham10000-malignant": _malignant,
    "hippocampus": _hippocampus,
}


def write(collection: str, source: Path, data: Path) -> list[Path]:
    """Write `DATA/<site>/manifest.csv` for a collection that lies in SOURCE.

    Raises:
        BadInput: if there is no such collection, or its index is not there.
    """
    if collection not in COLLECTIONS:
        raise BadInput(f"got {collection!r}, expected one of {', '.join(COLLECTIONS)}")
    rows: dict[str, list[Row]] = defaultdict(list)
    for site, row in COLLECTIONS[collection](source.resolve()):
        rows[site].append(row)
    manifests = []
    for site, lines in rows.items():
        file = data / site / "manifest.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
        manifests.append(file)
    return manifests


app = console.app("Manifests of public collections.")


@app.command()
def main(
    collection: Annotated[str, typer.Argument(help=", ".join(COLLECTIONS))],
    source: Annotated[Path, typer.Argument(help="Where the collection lies, with its index.csv.")],
    data: Annotated[Path, typer.Argument(help="Where a folder a hospital is made.")],
) -> None:
    """Write the manifests of a public collection."""
    for file in write(collection, source, data):
        print(file)


if __name__ == "__main__":
    console.run(app)
