"""Labels: which class a name means, and the class of every voxel from DICOM SEG objects or masks of class indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from client.data import dicom, images
from client.data.quiet import quiet
from client.data.records import Item, Picture, Unusable
from client.data.segmentation import lay
from shared.errors import InsituError, RefusalCode, Refused

# How far a mask's voxels may lie from the image's, in voxels, and still be the same grid.
_SAME_PLACE = 0.2

Indices = npt.NDArray[np.int64]


def class_index(name: str, classes: Sequence[str], mapping: Mapping[str, str]) -> int | None:
    """Which class a label names, through the dataset's mapping; capitals and outer spaces do not count.

    >>> class_index("Liver Tumor", ["background", "lesion"], {"liver tumor": "Lesion"})
    1
    """
    plain = {label.strip().casefold(): target.strip().casefold() for label, target in mapping.items()}
    wanted = plain.get(name.strip().casefold(), name.strip().casefold())
    return next((index for index, known in enumerate(classes) if known.casefold() == wanted), None)


def class_mask(item: Item, classes: Sequence[str], mapping: Mapping[str, str]) -> npt.NDArray[np.uint8]:
    """The class of every voxel, in the shape and axes of the image.

    Segments that are none of the classes become the first class (background). Where segments overlap, the class
    that comes later in `classes` wins: list an organ before the lesions inside it.

    Raises:
        Refused: `labels`, with pseudonym and value in the detail, for an index outside the classes.
        InsituError: if a file has changed or gone since it was registered.
    """
    result = np.zeros(item.picture.shape, dtype=np.uint8)
    try:
        if item.segments is None:
            values = index_mask(item.masks[0], item.picture)
            result[...] = _checked(values, len(classes), item.patient)
            return result
        uids = instance_uids(item.files)
        found = [named for file in item.masks for named in lay(file, uids, item.picture).masks.items()]
    except Unusable as why:
        raise InsituError(f"a mask of patient {item.patient}: {why}; {images.ADD_AGAIN}") from None
    for label, mask in found:
        index = class_index(label, classes, mapping)
        if index is not None:
            result[mask] = np.maximum(result[mask], index)
    return result


def outside(values: Sequence[int], classes: int) -> list[int]:
    """The values that are no class index; with two classes 0 and 255 are the classes too."""
    if classes == 2 and set(values) <= {0, 255}:
        return []
    return [value for value in values if not 0 <= value < classes]


def _checked(values: Indices, classes: int, patient: str) -> Indices:
    present = [int(value) for value in np.unique(values)]
    if wrong := outside(present, classes):
        detail = f"a mask of patient {patient} has the value {wrong[0]}, expected indices from 0 to {classes - 1}"
        raise Refused(RefusalCode.LABELS, detail)
    return np.minimum(values, 1) if classes == 2 else values


def instance_uids(files: Sequence[str]) -> list[str]:
    """SOPInstanceUID of each file."""
    with quiet():
        return [str(dicom.read(file).SOPInstanceUID) for file in files]


def index_mask(path: str, picture: Picture) -> Indices:
    """A mask of class indices, in the shape and axes of its image.

    A NIfTI mask is turned to the image's axes by the two affines, as far as that needs no interpolation.

    Raises:
        Unusable: if it is damaged, has values that are not whole numbers, or does not match the image.
    """
    if images.is_nifti(path):
        values, affine = images.read_nifti(path)
        whole = np.rint(values)
        if np.abs(values - whole).max() > 1e-3:
            raise Unusable("the mask's values are not whole numbers")
        mask = whole.astype(np.int64)
        if picture.affine is not None and len(affine) == len(picture.affine) == 4 and mask.ndim == 3:
            mask = _turned(mask, np.array(affine), np.array(picture.affine), picture.shape)
    elif images.is_picture(path):
        mask = images.read_indices(path)
    else:
        with quiet():
            mask = _dicom_indices(path)
    if mask.shape != picture.shape:
        got, expected = _shape(mask.shape), _shape(picture.shape)
        raise Unusable(f"the mask does not match its image: the mask is {got}, the image {expected}")
    return mask


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _dicom_indices(path: str) -> Indices:
    try:
        values: Indices = dicom.read(path).pixel_array.astype(np.int64)
        return values
    except Unusable:
        raise
    except Exception:  # as many kinds as there are decoders
        raise Unusable("damaged pixel data") from None


def _turned(
    mask: Indices,
    affine: npt.NDArray[np.float64],
    image_affine: npt.NDArray[np.float64],
    shape: tuple[int, ...],
) -> Indices:
    """The mask with its axes swapped and flipped so that it lies on the image's grid."""
    step = np.linalg.inv(image_affine) @ affine
    axes = np.abs(step[:3, :3]).argmax(axis=1)
    if sorted(axes) != [0, 1, 2]:
        raise Unusable("the mask does not match its image: its axes point elsewhere")
    turned = mask.transpose(axes)
    if turned.shape != shape:
        got, expected = _shape(turned.shape), _shape(shape)
        raise Unusable(f"the mask does not match its image: the mask is {got}, the image {expected}")
    flips = tuple(row for row in range(3) if step[row, axes[row]] < 0)
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in mask.shape], indexing="ij")).reshape(3, -1)
    there = step[:3, :3] @ corners + step[:3, 3:]
    expected_there = corners[axes].astype(float)
    for row in flips:
        expected_there[row] = shape[row] - 1 - expected_there[row]
    if np.abs(there - expected_there).max() > _SAME_PLACE:
        raise Unusable("the mask does not match its image: by their affines they lie in different places")
    return np.flip(turned, axis=flips)


def count(values: Indices) -> dict[int, int]:
    """Value → voxels.

    Raises:
        Unusable: if there are so many values that they cannot be class indices.
    """
    present, counts = np.unique(values, return_counts=True)
    if len(present) > 256:
        raise Unusable(f"the mask has {len(present)} different values: these are not class indices")
    return {int(value): int(number) for value, number in zip(present, counts, strict=True)}
