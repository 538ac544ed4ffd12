"""What a dataset is made of, in numbers: what `data show` prints and what a job is compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from client.data.records import SPLITS, Item


def of(items: Sequence[Item]) -> dict[str, Any]:
    """The profile of these images, as plain values for JSON. No patient is named in it."""
    patients = {item.patient for item in items}
    splits_of: dict[str, set[str]] = {patient: set() for patient in patients}
    for item in items:
        splits_of[item.patient].add(item.split)
    return {
        "patients": len(patients),
        "images": len(items),
        "splits": {
            split: {
                "patients": len({item.patient for item in items if item.split == split}),
                "images": sum(item.split == split for item in items),
            }
            for split in SPLITS
        },
        "patients_in_two_splits": sum(len(splits) > 1 for splits in splits_of.values()),
        "kinds": _counted(item.kind for item in items),
        "modalities": _counted(item.picture.modality for item in items),
        "manufacturers": _counted(item.picture.manufacturer for item in items),
        "sizes": _sizes(items),
        "spacings": _spacings(items),
        "segmentation": _fitness([item for item in items if item.has_mask]),
        "classification": _fitness([item for item in items if item.label is not None]),
        "labels": _labels(items),
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(value or "unknown" for value in values).most_common())


def _sizes(items: Sequence[Item]) -> dict[str, int]:
    counted = Counter(" × ".join(map(str, item.picture.shape)) for item in items)
    return dict(counted.most_common(20))


def _spacings(items: Sequence[Item]) -> dict[str, Any]:
    """Of 2D and 3D images apart: smallest, median and largest spacing along each axis, millimetres."""
    result: dict[str, Any] = {}
    for dimensions in (2, 3):
        known = [item.picture.spacing for item in items if item.picture.dimensions == dimensions]
        axes = list(zip(*[spacing for spacing in known if spacing is not None], strict=True))
        if axes:
            result[f"{dimensions}D"] = {
                name: [round(float(function(axis)), 4) for axis in axes]
                for name, function in (("smallest", min), ("median", median), ("largest", max))
            }
    unknown = sum(item.picture.affine is None for item in items)
    return {**result, "unknown": unknown}


def _fitness(items: Sequence[Item]) -> dict[str, Any]:
    """What a job of one task has to agree with; `indices` names one file for each value."""
    indices: dict[int, str] = {}
    for item in items:
        for value in item.indices or {}:
            indices.setdefault(value, item.masks[0])
    return {
        "images": len(items),
        "dimensions": _counted(str(item.picture.dimensions) for item in items),
        "channels": _counted(str(item.picture.channels) for item in items),
        "without_spacing": sum(item.picture.affine is None for item in items),
        "index_masks": sum(item.indices is not None for item in items),
        "indices": {str(value): file for value, file in sorted(indices.items())},
    }


def _labels(items: Sequence[Item]) -> dict[str, Any]:
    """By label: how many images and patients show it, and their share of all that have labels of that sort."""
    shown: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        for label, voxels in (item.segments or {}).items():
            shown.setdefault(("segment", label), [])
            if voxels:
                shown["segment", label].append(item)
        for value, voxels in (item.indices or {}).items():
            if voxels:
                shown.setdefault(("index", str(value)), []).append(item)
        if item.label is not None:
            shown.setdefault(("label", item.label), []).append(item)
    total = {
        "segment": sum(item.segments is not None for item in items),
        "index": sum(item.indices is not None for item in items),
        "label": sum(item.label is not None for item in items),
    }
    result: dict[str, Any] = {"segment": {}, "index": {}, "label": {}}
    for (sort, label), having in sorted(shown.items()):
        result[sort][label] = {
            "images": len(having),
            "patients": len({item.patient for item in having}),
            "prevalence": round(len(having) / total[sort], 4),
        }
    return result
