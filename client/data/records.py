"""What is known of a dataset: its images, the files left out of it, and what a check finds.

An `Item` is one image as it is trained on: a volume of many DICOM files, one NIfTI file, one picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Kind = Literal["dicom-series", "dicom-image", "nifti", "picture"]
Affine = tuple[tuple[float, ...], ...]

# Called with (done, total) while files are being read.
Progress = Callable[[int, int], None]


class Unusable(Exception):
    """A file or image that is left out; the text is the reason an operator reads.

    It never holds anything from inside the file but sizes and positions.
    """


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that was found and not used, and why."""

    file: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What was measured of one image when its pixels were decoded.

    Attributes:
        shape: voxels along each spatial axis: rows, columns[, slices], or a NIfTI file's own x, y, z.
        channels: 1 grey, 3 colour, or what a four-dimensional NIfTI has.
        affine: voxel index → millimetres: in 3D 4 × 4 into RAS (x to the patient's right, y to the front, z to the
            head), in 2D 3 × 3 with only the size of a pixel; None where the file does not say.
        minimum, maximum: of the image in its own units (Hounsfield in CT).
        fingerprint: of the decoded values, so that copies are found whatever their names or compression.
    """

    shape: tuple[int, ...]
    channels: int
    affine: Affine | None
    minimum: float
    maximum: float
    fingerprint: str
    modality: str = ""
    manufacturer: str = ""

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return len(self.shape)

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Millimetres between voxels along each axis of `shape`."""
        if self.affine is None:
            return None
        axes = range(len(self.affine) - 1)
        return tuple(sum(row[axis] ** 2 for row in self.affine[:-1]) ** 0.5 for axis in axes)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image with what is known about it.

    Attributes:
        patient: pseudonym.
        files: of the image, in geometric order (by the affine's last axis).
        masks: files of the segmentation: DICOM SEG objects, or one file of class indices.
        segments: of DICOM SEG: label → voxels it covers.
        indices: of an index mask: value → voxels that have it.
        label: the class name of the whole image.
    """

    patient: str
    split: Split
    kind: Kind
    files: tuple[str, ...]
    picture: Picture
    masks: tuple[str, ...] = ()
    segments: Mapping[str, int] | None = None
    indices: Mapping[int, int] | None = None
    label: str | None = None

    @property
    def has_mask(self) -> bool:
        """Whether a segmentation belongs to it."""
        return bool(self.masks)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From `to_dict`, also after a trip through JSON."""
        picture = dict(data["picture"])
        picture["shape"] = tuple(picture["shape"])
        picture["affine"] = picture["affine"] and tuple(tuple(row) for row in picture["affine"])
        indices = data["indices"]
        return cls(
            **{
                **data,
                "picture": Picture(**picture),
                "files": tuple(data["files"]),
                "masks": tuple(data["masks"]),
                "indices": indices and {int(value): count for value, count in indices.items()},
            }
        )


@dataclass(frozen=True, kw_only=True)
class Found:
    """What reading a dataset came to: every file found is in `items` (used) or in `left_out`.

    Attributes:
        used: files of the items and what else was needed (a table of labels inside the folder).
        notes: what an operator should know besides, as warnings.
    """

    items: list[Item]
    used: frozenset[str]
    left_out: list[LeftOut]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What `add` did."""

    name: str
    patients: int
    images: int
    used: int
    left_out: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that would make training wrong (an error) or worse (a warning)."""

    severity: Literal["error", "warning"]
    what: str
    text: str
    files: tuple[str, ...] = ()
