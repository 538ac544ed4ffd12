"""`insitu-client data`: register datasets, and say what is in them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared import console
from shared.console import Home, Json
from shared.errors import BadInput

# Reading scans brings numpy, pydicom and more: imported by the commands that need them, not to print a help text.
if TYPE_CHECKING:
    from client.data.registry import Registry

app = console.app("Register datasets, and see what is in them.")

Name = Annotated[str, typer.Argument(help="The name of the dataset.")]
_REASONS_SHOWN = 12


def _registry(home: Path) -> Registry:
    from client.data.registry import Registry
    from client.site import Site

    return Registry(Site.open(home))


def parse_mapping(pairs: list[str]) -> dict[str, str]:
    """`label=class` pairs.

    Raises:
        BadInput: if one is not.

    >>> parse_mapping(["Liver tumor=lesion"])
    {'Liver tumor': 'lesion'}
    """
    mapping: dict[str, str] = {}
    for pair in pairs:
        label, equals, target = pair.partition("=")
        if not equals or not label.strip() or not target.strip():
            raise BadInput(f'--map: got {pair!r}, expected "label=class", as in --map "Liver tumor=lesion"')
        mapping[label.strip()] = target.strip()
    return mapping


@app.command()
def add(
    name: Name,
    path: Annotated[Path, typer.Argument(help="A folder with DICOM files, a manifest, or a folder with manifest.csv.")],
    home: Home,
    labels: Annotated[Path | None, typer.Option(help="A table of labels for a DICOM tree.", metavar="CSV")] = None,
    map_: Annotated[list[str] | None, typer.Option("--map", help="A label's class.", metavar="LABEL=CLASS")] = None,
    json: Json = False,
) -> None:
    """Read scans where they lie, and register what can be used; again with the same name, read them again."""
    mapping = parse_mapping(map_ or [])
    registry = _registry(home)
    with console.progress() as bar:
        task = bar.add_task(f"reading {name}", total=None)
        registry.add(
            name,
            path,
            labels,
            mapping,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    summary = registry.summary(name)
    if json:
        console.dump(summary)
    else:
        _show(summary)


@app.command("list")
def list_(home: Home, json: Json = False) -> None:
    """The datasets of this site."""
    rows = _registry(home).list()
    if json:
        console.dump(rows)
        return
    flat = [{**row, "used": row["files"]["used"], "left_out": row["files"]["left_out"]} for row in rows]
    columns = {
        "name": "dataset",
        "patients": "patients",
        "images": "images",
        "used": "files used",
        "left_out": "left out",
        "path": "from",
    }
    console.listing(flat, columns, empty="no dataset yet; add one with `insitu-client data add NAME PATH`")


@app.command()
def show(name: Name, home: Home, json: Json = False) -> None:
    """What is in a dataset, and what was left out and why."""
    summary = _registry(home).summary(name)
    if json:
        console.dump(summary)
    else:
        _show(summary)


@app.command()
def check(name: Name, home: Home, json: Json = False) -> None:
    """What would make training on a dataset wrong; exits with 1 where something does."""
    findings = _registry(home).check(name)
    rows = [
        {"severity": one.severity, "what": one.what, "text": one.text, "files": list(one.files)} for one in findings
    ]
    if json:
        console.dump(rows)
    else:
        shown = [{**row, "example": row["files"][0] if row["files"] else None} for row in rows]
        columns = {"severity": "", "what": "what", "text": "finding", "example": "for example"}
        console.listing(shown, columns, empty=f"nothing found that would make training on {name} wrong")
    if any(one.severity == "error" for one in findings):
        raise typer.Exit(1)


def _show(summary: dict[str, Any]) -> None:
    facts = {
        "dataset": summary["name"],
        "from": summary["path"],
        "labels from": summary["labels_from"],
        "mapping": _pairs(summary["mapping"]),
        "patients": summary["patients"],
        "images": summary["images"],
        "files": f"{summary['files']['used']} used, {summary['files']['left_out']} left out",
        **{
            f"in {split}": f"{counts['patients']} patients, {counts['images']} images"
            for split, counts in summary["splits"].items()
        },
        "kinds": _pairs(summary["kinds"]),
        "modalities": _pairs(summary["modalities"]),
        "manufacturers": _pairs(summary["manufacturers"]),
        "sizes": _pairs(summary["sizes"]),
        **{f"spacing {key}": _spacing(value) for key, value in summary["spacings"].items()},
        "notes": "; ".join(summary["notes"]),
    }
    rows = [{"key": key, "value": value} for key, value in facts.items() if value not in (None, "")]
    console.listing(rows, {"key": "", "value": ""})
    labels = [
        {"label": label, "sort": sort, **counts}
        for sort, found in summary["labels"].items()
        for label, counts in found.items()
    ]
    if labels:
        columns = {"label": "label", "sort": "as", "images": "images", "patients": "patients", "prevalence": "share"}
        console.listing(labels, columns)
    if summary["left_out"]:
        _show_left_out(summary["left_out"])


def _show_left_out(left_out: list[dict[str, str]]) -> None:
    counted = Counter(one["reason"] for one in left_out)
    first = {one["reason"]: one["file"] for one in reversed(left_out)}
    rows = [
        {"files": count, "reason": reason, "first": first[reason]}
        for reason, count in counted.most_common(_REASONS_SHOWN)
    ]
    console.listing(rows, {"files": "left out", "reason": "because", "first": "the first of them"})
    if len(counted) > _REASONS_SHOWN:
        console.say(f"and {len(counted) - _REASONS_SHOWN} more reasons; --json lists every file")


def _pairs(counts: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in counts.items())


def _spacing(value: Any) -> str:
    if isinstance(value, int):
        return f"{value} images" if value else ""
    low, middle, high = (
        " × ".join(f"{number:g}" for number in value[key]) for key in ("smallest", "median", "largest")
    )
    return f"{low} mm" if low == high else f"{middle} mm (from {low} to {high})"
