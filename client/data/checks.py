"""What would make training on a dataset wrong (errors) or worse (warnings). Each check looks for one thing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import prod

from client.data.records import SPLITS, Finding, Item, LeftOut

# Fewer patients than this in a split and its figures say little.
FEW_PATIENTS = 5
# Millimetres between voxels that a scanner of people plausibly has, from microscopy-like OCT to thick slices.
_PLAUSIBLE = (0.005, 20.0)
_NEARLY_ALL = 0.95
_SHOWN = 20


def findings(
    items: Sequence[Item],
    *,
    mapping: Mapping[str, str],
    notes: Sequence[str],
    left_out: Sequence[LeftOut],
    elsewhere: Mapping[str, set[str]],
) -> list[Finding]:
    """All findings, errors first.

    Args:
        items: of the dataset.
        mapping: label names → class names.
        notes: what adding it came across.
        left_out: files found and not used.
        elsewhere: patient → splits, in the site's other datasets.
    """
    found = [
        *_two_splits(items, elsewhere),
        *_copies(items),
        *_labels(items, mapping),
        *_pixels(items),
        *_masks(items),
        *_few(items),
        *(Finding("warning", "note", note) for note in notes),
    ]
    if left_out:
        text = f"{len(left_out)} files were left out; `data show` says which and why"
        found.append(Finding("warning", "left-out", text, _some(one.file for one in left_out)))
    return sorted(found, key=lambda finding: finding.severity)


def _some(files: Iterator[str] | Sequence[str]) -> tuple[str, ...]:
    return tuple(file for file, _ in zip(files, range(_SHOWN), strict=False))


def _two_splits(items: Sequence[Item], elsewhere: Mapping[str, set[str]]) -> Iterator[Finding]:
    own: dict[str, set[str]] = defaultdict(set)
    for item in items:
        own[item.patient].add(item.split)
    torn = {patient for patient, splits in own.items() if len(splits) > 1}
    if torn:
        files = _some(item.files[0] for item in items if item.patient in torn)
        text = f"{len(torn)} patients are in two splits: what is tested on was trained on; correct the manifest"
        yield Finding("error", "patient-in-two-splits", text, files)
    strangers = {patient for patient, splits in own.items() if elsewhere.get(patient, splits) != splits} - torn
    if strangers:
        text = f"{len(strangers)} patients are in another split of another dataset of this site"
        yield Finding("warning", "patient-in-two-splits", text)


def _copies(items: Sequence[Item]) -> Iterator[Finding]:
    by_content: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_content[item.picture.fingerprint].append(item)
    groups = [group for group in by_content.values() if len(group) > 1]
    across = [group for group in groups if len({item.patient for item in group}) > 1]
    leaking = [group for group in across if len({item.split for item in group}) > 1]
    if leaking:
        text = f"{len(leaking)} images are there under several patients in different splits"
        yield Finding("error", "copies", text, _some(item.files[0] for group in leaking for item in group))
    if len(across) > len(leaking):
        text = f"{len(across) - len(leaking)} images are there under several patients of one split"
        files = _some(item.files[0] for group in across if group not in leaking for item in group)
        yield Finding("warning", "copies", text, files)
    if len(groups) > len(across):
        text = f"{len(groups) - len(across)} images are there several times for the same patient"
        files = _some(item.files[0] for group in groups if group not in across for item in group)
        yield Finding("warning", "copies", text, files)


def _labels(items: Sequence[Item], mapping: Mapping[str, str]) -> Iterator[Finding]:
    values = {value for item in items for value in item.indices or {}}
    strange = {value for value in values if value < 0}
    if not values <= {0, 255} and 254 not in values:
        strange.add(255)
    if bad := sorted(strange & values):
        text = f"masks have the values {sorted(values)[:12]}: {bad[0]} is no class index beside the others"
        files = _some(item.masks[0] for item in items if set(bad) & set(item.indices or {}))
        yield Finding("error", "label-values", text, files)
    gaps = sorted(set(range(max(values, default=0))) - values)
    if gaps and not bad and 255 not in values:
        yield Finding("warning", "label-values", f"no mask has the class index {gaps[0]}, though higher ones occur")
    names = {
        label.casefold() for item in items for label in (*(item.segments or {}), *([item.label] if item.label else []))
    }
    if unmet := [label for label in mapping if label.strip().casefold() not in names]:
        yield Finding("warning", "mapping", f"the mapping names the label {unmet[0]!r}, which does not occur")


def _pixels(items: Sequence[Item]) -> Iterator[Finding]:
    if flat := [item for item in items if item.picture.minimum == item.picture.maximum]:
        text = f"{len(flat)} images have the same value everywhere"
        yield Finding("warning", "constant-image", text, _some(item.files[0] for item in flat))
    low, high = _PLAUSIBLE
    odd = [
        item
        for item in items
        if item.picture.spacing and not low <= min(item.picture.spacing) <= max(item.picture.spacing) <= high
    ]
    if odd:
        text = f"{len(odd)} images have a spacing outside {low} to {high} mm"
        yield Finding("warning", "spacing", text, _some(item.files[0] for item in odd))
    kinds = {(item.picture.dimensions, item.picture.channels) for item in items}
    if len(kinds) > 1:
        text = "images of different dimensions or channels: no job takes both"
        yield Finding("warning", "mixed", text)


def _masks(items: Sequence[Item]) -> Iterator[Finding]:
    masked = [item for item in items if item.has_mask]
    if empty := [item for item in masked if not _covered(item)]:
        text = f"{len(empty)} of {len(masked)} masks are empty"
        yield Finding("warning", "empty-mask", text, _some(item.masks[0] for item in empty))
    if full := [item for item in masked if _covered(item) > _NEARLY_ALL * prod(item.picture.shape)]:
        text = f"{len(full)} of {len(masked)} masks cover nearly the whole image"
        yield Finding("warning", "full-mask", text, _some(item.masks[0] for item in full))


def _covered(item: Item) -> int:
    """Voxels that are not background."""
    if item.segments is not None:
        return max(item.segments.values(), default=0)
    return sum(count for value, count in (item.indices or {}).items() if value != 0)


def _few(items: Sequence[Item]) -> Iterator[Finding]:
    for split in SPLITS:
        patients = len({item.patient for item in items if item.split == split})
        if patients < FEW_PATIENTS:
            yield Finding("warning", "few-patients", f"few patients in {split}: {patients}; what they show says little")
