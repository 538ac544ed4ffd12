"""A dataset from a DICOM tree: images assembled by geometry, labels from DICOM SEG objects or from a table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from client.data import dicom, manifest, segmentation, series
from client.data.dicom import Instance, SegmentationFile
from client.data.parallel import Steps, each
from client.data.records import Found, Item, LeftOut, Picture, Progress, Split, Unusable
from shared.errors import BadInput


@dataclass(frozen=True)
class Naming:
    """How a PatientID becomes a pseudonym, and a pseudonym a split; both are the site's secret."""

    pseudonym: Callable[[str], str]
    split: Callable[[str], Split]


def read(folder: Path, naming: Naming, labels: Path | None = None, progress: Progress | None = None) -> Found:
    """Read every file under a folder.

    Where the tree has labels at all (segmentations that can be used, or a table), images without one are left out;
    where it has none, the images are kept, unlabelled.

    Raises:
        BadInput: if a folder cannot be looked into, or the table of labels is wrong or names no image here.
    """
    table = manifest.parse_labels(labels) if labels is not None else None
    paths, left_out = _files(folder)
    used: set[str] = set()
    if labels is not None:
        used = {path for path in paths if Path(path).samefile(labels)}
    scans = [path for path in paths if path not in used]
    steps = Steps(progress, total=len(scans))
    results = each(dicom.examine, scans, advance=steps.advance)
    left_out += [result for result in results if isinstance(result, LeftOut)]
    instances = [result for result in results if isinstance(result, Instance)]
    images, not_assembled = series.assemble(instances)
    left_out += not_assembled
    notes: list[str] = []
    items = [_item(image, naming) for image in images]
    drawn = [result for result in results if isinstance(result, SegmentationFile)]
    steps.total += len(drawn)
    known = frozenset(instance.instance for instance in instances)
    work, lost = _plan(drawn, images, known)
    left_out += lost
    measured = each(_measure, [drawing for _, drawing in work], advance=steps.advance)
    left_out += _give(work, measured, items, notes)
    if table is not None:
        _label(items, images, table, notes)
        if not any(_labelled(item) for item in items):
            raise BadInput(f"none of its {len(table.labels)} {table.key} is among the images of {folder}", file=labels)
    if any(_labelled(item) for item in items):
        reason = "no label: no segmentation and no row of a table belongs to it"
        left_out += [LeftOut(file, reason) for item in items if not _labelled(item) for file in item.files]
        items = [item for item in items if _labelled(item)]
    elif items:
        notes.append("there are no labels: nothing can be trained on this dataset")
    used |= {file for item in items for file in (*item.files, *item.masks)}
    return Found(items=items, used=frozenset(used), left_out=left_out, notes=notes)


def _labelled(item: Item) -> bool:
    return bool(item.masks) or item.label is not None


def _files(folder: Path) -> tuple[list[str], list[LeftOut]]:
    """Every file under the folder, links followed once, sorted; and those whose names cannot be written down."""
    found: list[str] = []
    unnamed: list[LeftOut] = []
    for path in sorted(_walk(folder.absolute(), set())):
        try:
            path.encode()
        except UnicodeEncodeError:
            shown = path.encode(errors="backslashreplace").decode()
            unnamed.append(LeftOut(shown, "its name is not text in UTF-8; rename it"))
        else:
            found.append(path)
    return found, unnamed


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[str]:
    for where, folders, files in os.walk(folder, followlinks=True, onerror=_cannot_look):
        status = os.stat(where)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from (os.path.join(where, file) for file in files)


def _cannot_look(error: OSError) -> None:
    raise BadInput(f"cannot be looked into ({error.strerror})", file=error.filename)


def _item(image: series.Image, naming: Naming) -> Item:
    patient = naming.pseudonym(image.patient)
    return Item(
        patient=patient,
        split=naming.split(patient),
        kind=image.kind,
        files=tuple(instance.path for instance in image.instances),
        picture=image.picture,
    )


@dataclass(frozen=True)
class _Drawing:
    """A segmentation with the images it is to be laid on: (SOPInstanceUIDs in geometric order, picture) of each."""

    path: str
    on: tuple[tuple[tuple[str, ...], Picture], ...]


def _plan(
    drawn: Sequence[SegmentationFile], images: Sequence[series.Image], known: frozenset[str]
) -> tuple[list[tuple[list[int], _Drawing]], list[LeftOut]]:
    """Which images (by index) each segmentation is to be laid on; and those that belong to none."""
    at = {instance.instance: index for index, image in enumerate(images) for instance in image.instances}
    work: list[tuple[list[int], _Drawing]] = []
    left_out: list[LeftOut] = []
    seen: set[str] = set()
    for one in drawn:
        try:
            if one.instance in seen:
                raise Unusable("a copy of another file here (the same SOPInstanceUID)")
            seen.add(one.instance)
            targets = _targets(one, images, at, known)
        except Unusable as why:
            left_out.append(LeftOut(one.path, str(why)))
            continue
        on = tuple((tuple(i.instance for i in images[t].instances), images[t].picture) for t in targets)
        work.append((targets, _Drawing(one.path, on)))
    return work, left_out


def _give(
    work: Sequence[tuple[list[int], _Drawing]],
    measured: Sequence[list[dict[str, int]] | LeftOut],
    items: list[Item],
    notes: list[str],
) -> list[LeftOut]:
    """Give each segmentation to its images (in place); those that turned out unusable are returned."""
    twice = 0
    for (targets, drawing), counts in zip(work, measured, strict=True):
        if isinstance(counts, LeftOut):
            continue
        for target, count in zip(targets, counts, strict=True):
            before = items[target].segments or {}
            twice += bool(set(before) & set(count))
            merged = {label: before.get(label, 0) + count.get(label, 0) for label in {**before, **count}}
            items[target] = replace(items[target], masks=(*items[target].masks, drawing.path), segments=merged)
    if twice:
        notes.append(f"{twice} segmentations repeat a segment that another one of their image has; they are united")
    return [counts for counts in measured if isinstance(counts, LeftOut)]


def _targets(
    drawn: SegmentationFile,
    images: Sequence[series.Image],
    at: dict[str, int],
    known: frozenset[str],
) -> list[int]:
    """The images a segmentation lies on: the volume it refers to most, or every flat image it refers to."""
    references = drawn.references
    if not references:
        raise Unusable("the segmentation does not say which images it belongs to")
    hits = Counter(at[uid] for uid in references if uid in at)
    if not hits:
        if references & known:
            raise Unusable("the images it refers to were left out")
        raise Unusable("it refers to images that are not here")
    volumes = [index for index, _ in hits.most_common() if images[index].picture.dimensions == 3]
    targets = volumes[:1] or sorted(hits)
    if any(images[target].patient != drawn.patient for target in targets):
        raise Unusable("it refers to images of another patient")
    return targets


def _measure(drawing: _Drawing) -> list[dict[str, int]] | LeftOut:
    """Voxels each label covers, on each image; everything the segmentation marks has to lie on one of them."""
    try:
        laid = [segmentation.lay(drawing.path, uids, picture) for uids, picture in drawing.on]
        if sum(one.placed for one in laid) < laid[0].marked:
            raise Unusable("part of it lies on images that are not here")
    except Unusable as why:
        return LeftOut(drawing.path, str(why))
    return [{label: int(mask.sum()) for label, mask in one.masks.items()} for one in laid]


def _label(items: list[Item], images: Sequence[series.Image], table: manifest.LabelTable, notes: list[str]) -> None:
    met: set[str] = set()
    for index, image in enumerate(images):
        key = image.series if table.key == "SeriesInstanceUID" else image.patient
        if key in table.labels:
            met.add(key)
            items[index] = replace(items[index], label=table.labels[key])
    if unmet := len(table.labels) - len(met):
        notes.append(f"{unmet} of the {len(table.labels)} {table.key} in the table of labels are not among the images")
