"""Virtual hospitals: a site's home each, with its data registered, from `DATA/<site>/`.

A home's secret comes from the site's name, so that a simulation can be repeated exactly: a virtual hospital has
nobody to protect. Its policy allows everything, for the same reason.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from rich.progress import Progress, TaskID

from client.data.records import Summary
from client.data.registry import Registry, pooled
from client.site import Approval, DatasetRules, Policy, Site, SiteConfig
from shared import console
from shared.declared import SITE_NAME
from shared.errors import BadInput

DATASET = "data"
POOLED = "pooled"
_NOBODY_TO_PROTECT = Policy(privacy_required=False, max_epsilon_per_job=1e6, min_sites=1, min_patients=1)
_LABELS = "labels.csv"


def found(data: Path) -> dict[str, Path]:
    """The folder of each hospital in DATA, by site name.

    Raises:
        BadInput: if there is none, or a folder's name cannot be a site's.
    """
    if not data.is_dir():
        raise BadInput(
            "no such folder; expected one folder a hospital in it (`insitu-sim phantoms` makes some)", file=data
        )
    folders = {folder.name: folder for folder in sorted(data.iterdir()) if folder.is_dir() and folder.name[0] != "."}
    if not folders:
        raise BadInput("is empty; expected one folder a hospital in it (`insitu-sim phantoms` makes some)", file=data)
    for name in folders:
        if not re.fullmatch(SITE_NAME, name) or name == POOLED:
            raise BadInput("is no site's name: expected small letters, digits and hyphens", file=data / name)
    return folders


def admit(data: Path, homes: Path, *, progress: Progress) -> dict[str, Site]:
    """Make a home for each hospital in DATA and register its images.

    Args:
        data: `DATA/<site>/`, each a manifest (`manifest.csv`) or a tree of DICOM (with `labels.csv`, if any).
        homes: where the homes are made.
        progress: shows a line a hospital.

    Raises:
        BadInput: as `data add` would, naming the file.
    """
    sites = {}
    for name, folder in found(data).items():
        task = progress.add_task(f"reading {name}", total=None)
        site = _create(homes / name, name)
        manifest = folder / "manifest.csv"
        labels = folder / _LABELS
        summary = Registry(site).add(
            DATASET,
            manifest if manifest.exists() else folder,
            labels=labels if labels.exists() and not manifest.exists() else None,
            progress=partial(_show, progress, task),
        )
        progress.update(task, completed=1, total=1)
        if summary.left_out:
            _say_what_was_left_out(site, summary)
        sites[name] = site
    return sites


def _say_what_was_left_out(site: Site, summary: Summary) -> None:
    """Nobody asks a virtual hospital for its list: it is said at once, by reason, each with its first file."""
    first: dict[str, tuple[int, str]] = {}
    for one in Registry(site).left_out(DATASET):
        count, file = first.get(one.reason, (0, one.file))
        first[one.reason] = count + 1, file
    console.say(f"{site.name}: {summary.left_out} of {summary.used + summary.left_out} files left out:")
    for reason, (count, file) in sorted(first.items(), key=lambda found: -found[1][0]):
        console.say(f"  {count} × {reason}; the first is {file}")


def _show(progress: Progress, task: TaskID, done: int, total: int) -> None:
    progress.update(task, completed=done, total=total)


def pool(sites: Mapping[str, Site], homes: Path) -> Site:
    """One more home that has all the hospitals' patients, each in the split they have at their own hospital."""
    site = _create(homes / POOLED, POOLED)
    pooled(site, DATASET, list(sites.values()))
    return site


def _create(home: Path, name: str) -> Site:
    secret = hashlib.sha256(f"virtual hospital {name}".encode()).digest()
    config = SiteConfig(
        name=name,
        durable=False,
        policy=_NOBODY_TO_PROTECT,
        approve=(Approval(),),
        datasets={DATASET: DatasetRules(epsilon=1e6, delta=1e-2)},
    )
    return Site.create(home, config, secret=secret)
