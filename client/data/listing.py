"""A dataset from a manifest: every row an image, with its mask or its label."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from client.data import dicom, images, labels, manifest, segmentation, series
from client.data.dicom import Instance, SegmentationFile
from client.data.manifest import Row
from client.data.parallel import Steps, each
from client.data.records import Found, Item, Kind, LeftOut, Picture, Progress, Unusable
from client.data.tree import Naming


@dataclass(frozen=True)
class _Image:
    kind: Kind
    files: tuple[str, ...]
    picture: Picture
    uids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What one row came to: an image with the voxels of each segment or index; and the files left out."""

    image: _Image | None = None
    segments: dict[str, int] | None = None
    indices: dict[int, int] | None = None
    left_out: tuple[LeftOut, ...]


def read(path: Path, naming: Naming, progress: Progress | None = None) -> Found:
    """Read every image and mask that a manifest names. The files found are those it names.

    Raises:
        BadInput: if the manifest itself is wrong.
    """
    rows = manifest.parse(path)
    steps = Steps(progress, total=len(rows))
    results = each(_read, rows, advance=steps.advance)
    items: list[Item] = []
    left_out: dict[str, LeftOut] = {}
    for row, result in zip(rows, results, strict=True):
        left_out.update({one.file: one for one in result.left_out})
        if result.image is None:
            continue
        patient = naming.pseudonym(row.patient)
        items.append(
            Item(
                patient=patient,
                split=row.split or naming.split(patient),
                kind=result.image.kind,
                files=result.image.files,
                picture=result.image.picture,
                masks=() if row.mask is None else (str(row.mask),),
                segments=result.segments,
                indices=result.indices,
                label=row.label,
            )
        )
    used = frozenset(file for item in items for file in (*item.files, *item.masks))
    # A mask may serve two rows, one of which is left out: it is used all the same.
    return Found(items=items, used=used, left_out=[one for one in left_out.values() if one.file not in used])


def _read(row: Row) -> _Read:
    mask = None if row.mask is None else str(row.mask)
    image, left_out = _image(str(row.image))
    if image is None:
        unused = [] if mask is None else [LeftOut(mask, f"its image was left out (row {row.number})")]
        return _Read(left_out=(*left_out, *unused))
    segments: dict[str, int] | None = None
    indices: dict[int, int] | None = None
    try:
        if mask is not None and _is_segmentation(mask):
            segments = _segments(mask, image)
        elif mask is not None:
            indices = labels.count(labels.index_mask(mask, image.picture))
    except Unusable as why:
        unusable = [LeftOut(file, f"its mask cannot be used (row {row.number})") for file in image.files]
        return _Read(left_out=(*left_out, *unusable, LeftOut(str(mask), f"{why} (row {row.number})")))
    return _Read(image=image, segments=segments, indices=indices, left_out=tuple(left_out))


def _image(path: str) -> tuple[_Image | None, list[LeftOut]]:
    """The image at a path, and the files there that are no part of it."""
    if images.is_nifti(path) or images.is_picture(path):
        try:
            kind: Kind = "nifti" if images.is_nifti(path) else "picture"
            return _Image(kind, (path,), images.examine(path)), []
        except Unusable as why:
            return None, [LeftOut(path, str(why))]
    place = Path(path)
    files = sorted(str(file) for file in place.iterdir() if file.is_file()) if place.is_dir() else [path]
    if not files:
        return None, [LeftOut(path, "an empty folder")]
    results = [dicom.examine(file, anonymous=True) for file in files]
    left_out = [result for result in results if isinstance(result, LeftOut)]
    left_out += [LeftOut(r.path, "a segmentation, not an image") for r in results if isinstance(r, SegmentationFile)]
    # Whose image it is the manifest says, whatever the header does.
    found, rest = series.assemble(replace(r, patient="") for r in results if isinstance(r, Instance))
    left_out += rest
    if len(found) != 1:
        reason = f"its folder holds {len(found)} images; a row of a manifest names one"
        return None, left_out + [LeftOut(instance.path, reason) for one in found for instance in one.instances]
    instances = found[0].instances
    files = [instance.path for instance in instances]
    return _Image(found[0].kind, tuple(files), found[0].picture, tuple(i.instance for i in instances)), left_out


def _is_segmentation(path: str) -> bool:
    if images.is_nifti(path) or images.is_picture(path):
        return False
    return dicom.read(path).get("SOPClassUID") in dicom.SEGMENTATIONS


def _segments(path: str, image: _Image) -> dict[str, int]:
    laid = segmentation.lay(path, image.uids, image.picture)
    if laid.placed < laid.marked:
        raise Unusable("the mask does not match its image: part of it lies elsewhere")
    return {label: int(mask.sum()) for label, mask in laid.masks.items()}
