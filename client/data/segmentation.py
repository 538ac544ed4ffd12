"""DICOM SEG objects (PS3.3 A.51) on the grid of their image.

A segmentation says by name what a segment is, and by reference or by position where it is; it may hold fewer frames
than the image has slices, in another order, or of a part of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from highdicom.seg import Segmentation, SegmentationTypeValues
from pydicom.dataset import Dataset

from client.data import dicom
from client.data.quiet import quiet
from client.data.records import Picture, Unusable

# How far a frame's pixels may lie from the image's, in voxels, and still be the same grid.
_SAME_PLACE = 0.2
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Laid:
    """A segmentation laid on an image.

    Attributes:
        masks: label → marked voxels, in the shape and axes of the image; segments of the same label are united.
        marked: voxels the segmentation marks, over all segments.
        placed: those of them that lie on this image.
    """

    masks: dict[str, Mask]
    marked: int
    placed: int


def lay(path: str, uids: Sequence[str], picture: Picture) -> Laid:
    """Read a DICOM SEG and lay it on an image.

    Args:
        path: of the SEG file.
        uids: SOPInstanceUIDs of the image's files, in geometric order.
        picture: of the image.

    Raises:
        Unusable: if it is damaged, or does not lie on the image's grid.
    """
    with quiet():
        dataset = dicom.read(path)
        try:
            _complete(dataset)
            segmentation = Segmentation.from_dataset(dataset, copy=False)
            numbers = segmentation.segment_numbers
            names = [str(segmentation.get_segment_description(number).segment_label).strip() for number in numbers]
            frames = _frames(segmentation)
        except Exception:  # highdicom checks the standard's rules with many kinds of error
            raise Unusable("damaged, or not what the standard says of a segmentation") from None
        marked = int(np.isin(frames, numbers).sum() if _is_label_map(segmentation) else (frames > 0).sum())
        stack = _place(segmentation, frames, uids, picture, marked)
    masks: dict[str, Mask] = {}
    for channel, name in enumerate(names):
        mask = stack[..., channel]
        masks[name] = masks[name] | mask if name in masks else mask
    return Laid(masks, marked, int(stack.sum()))


def _complete(dataset: Dataset) -> None:
    """Give flat pictures a slice thickness, which nothing here uses.

    The standard lets it be absent; highdicom writes it so, and cannot read what it wrote.
    """
    groups = [*dataset.SharedFunctionalGroupsSequence, *dataset.PerFrameFunctionalGroupsSequence]
    for group in groups:
        for measures in group.get("PixelMeasuresSequence") or []:
            if "SliceThickness" not in measures:
                measures.SliceThickness = 1.0


def _frames(segmentation: Segmentation) -> npt.NDArray[np.uint8]:
    """[frame, row, column], 1 (or the segment's number in a label map) where marked."""
    frames: npt.NDArray[Any] = segmentation.pixel_array
    if frames.ndim == 2:
        frames = frames[None]
    if segmentation.segmentation_type == SegmentationTypeValues.FRACTIONAL:
        return (2 * frames.astype(np.int64) >= int(segmentation.MaximumFractionalValue)).astype(np.uint8)
    return frames


def _place(
    segmentation: Segmentation, frames: npt.NDArray[np.uint8], uids: Sequence[str], picture: Picture, marked: int
) -> Mask:
    """[row, column(, slice), segment], by the first way that finds a place for every marked voxel, or for the most."""
    same_size = frames.shape[1:] == picture.shape[:2]
    best: Mask | None = None
    for way in ("reference", "geometry", "any-reference"):
        if way == "geometry":
            placed = _by_geometry(segmentation, frames, picture)
        else:
            placed = _by_reference(segmentation, uids, trusting=way == "any-reference") if same_size else None
        if placed is None:
            continue
        if best is None or placed.sum() > best.sum():
            best = placed
        if marked and best.sum() >= marked:
            break
    if best is None:
        got, expected = list(frames.shape[1:]), list(picture.shape[:2])
        raise Unusable(f"the mask does not match its image: its frames are {got}, the image's slices {expected}")
    return np.moveaxis(best, 0, 2) if picture.dimensions == 3 else best[0]


def _is_label_map(segmentation: Segmentation) -> bool:
    return segmentation.segmentation_type == SegmentationTypeValues.LABELMAP


def _by_reference(segmentation: Segmentation, uids: Sequence[str], *, trusting: bool) -> Mask | None:
    """[instance, row, column, segment] by the frames' references; None if the object cannot be read that way."""
    try:
        values = segmentation.get_pixels_by_source_instance(
            list(uids), assert_missing_frames_are_empty=True, ignore_spatial_locations=trusting
        )
    except (RuntimeError, ValueError, KeyError, AttributeError):
        return None
    return np.asarray(values >= 0.5)


def _by_geometry(segmentation: Segmentation, frames: npt.NDArray[np.uint8], picture: Picture) -> Mask | None:
    """[slice, row, column, segment] by the frames' positions; None if there are none, or on another grid."""
    if picture.dimensions != 3 or picture.affine is None:
        return None
    rows, columns, slices = picture.shape
    numbers = list(segmentation.segment_numbers)
    stack = np.zeros((slices, rows, columns, len(numbers)), dtype=bool)
    to_index = np.linalg.inv(np.array(picture.affine))
    for index, frame in enumerate(frames):
        corner = _corner(segmentation, index, frame.shape, to_index)
        if corner is None:
            return None
        row, column, place = corner
        if not 0 <= place < slices:
            continue
        inside = frame[max(0, -row) : max(0, rows - row), max(0, -column) : max(0, columns - column)]
        top, left = max(0, row), max(0, column)
        target = stack[place, top : top + inside.shape[0], left : left + inside.shape[1]]
        if _is_label_map(segmentation):
            for channel, number in enumerate(numbers):
                target[..., channel] |= inside == number
        else:
            group = _group(segmentation, index, "SegmentIdentificationSequence")
            if group is None:
                return None
            target[..., numbers.index(int(group.ReferencedSegmentNumber))] |= inside > 0
    return stack


def _corner(
    segmentation: Segmentation, index: int, shape: tuple[int, ...], to_index: npt.NDArray[np.float64]
) -> tuple[int, int, int] | None:
    """Row, column and slice of the image at which the frame's first pixel lies; None if on another grid."""
    position = _group(segmentation, index, "PlanePositionSequence")
    orientation = _group(segmentation, index, "PlaneOrientationSequence")
    measures = _group(segmentation, index, "PixelMeasuresSequence")
    if position is None or orientation is None or measures is None:
        return None
    try:
        origin = np.array([float(value) for value in position.ImagePositionPatient])
        cosines = np.array([float(value) for value in orientation.ImageOrientationPatient])
        spacing = [float(value) for value in measures.PixelSpacing]
    except (AttributeError, TypeError, ValueError):
        return None
    linear = to_index[:3, :3]
    along_rows = linear @ (_LPS_TO_RAS * cosines[3:] * spacing[0])
    along_columns = linear @ (_LPS_TO_RAS * cosines[:3] * spacing[1])
    drift = max(np.abs(along_rows - [1, 0, 0]).max() * shape[0], np.abs(along_columns - [0, 1, 0]).max() * shape[1])
    exact = linear @ (_LPS_TO_RAS * origin) + to_index[:3, 3]
    corner = np.rint(exact)
    if drift > _SAME_PLACE or np.abs(exact - corner).max() > _SAME_PLACE:
        return None
    return int(corner[0]), int(corner[1]), int(corner[2])


def _group(segmentation: Segmentation, index: int, keyword: str) -> Dataset | None:
    """A functional group of a frame, from its own or from the shared ones."""
    own = segmentation.PerFrameFunctionalGroupsSequence[index].get(keyword)
    shared = segmentation.SharedFunctionalGroupsSequence[0].get(keyword)
    found = own or shared
    return found[0] if found else None
