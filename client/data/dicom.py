"""One DICOM file: what the registry needs from its header, and whether its pixels can be decoded.

Attribute names are the standard's (PS3.3, PS3.6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, MediaStorageDirectoryStorage, SegmentationStorage

from client.data.pixels import decode, fingerprint
from client.data.quiet import quiet
from client.data.records import LeftOut, Unusable

_LABEL_MAP = UID("1.2.840.10008.5.1.4.1.1.66.7")  # Label Map Segmentation Storage, newer than pydicom's list
SEGMENTATIONS = (SegmentationStorage, _LABEL_MAP)
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# Objects with pixels that are not pictures of a patient.
_NOT_IMAGES = {"RTDOSE", "RTPLAN", "RTRECORD", "PR", "KO", "SR", "REG", "FID", "PMAP"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One single-frame image, decoded once to know that it can be.

    Attributes:
        patient: PatientID; it stays in memory and becomes a pseudonym before anything is stored.
        position: ImagePositionPatient, centre of the first pixel, LPS millimetres.
        orientation: ImageOrientationPatient, direction of growing column index, then of growing row index.
        spacing: PixelSpacing: between rows, between columns, millimetres (ImagerPixelSpacing where there is no other).
        channels: 1 or 3.
        minimum, maximum: after rescaling.
        fingerprint: of the decoded pixels.
    """

    path: str
    patient: str
    series: str
    instance: str
    modality: str
    manufacturer: str
    localizer: bool
    rows: int
    columns: int
    channels: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    minimum: float
    maximum: float
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationFile:
    """One DICOM SEG object: what it refers to. Its pixels are read by `client.data.labels`.

    Attributes:
        references: SOPInstanceUIDs of the images it was drawn on.
    """

    path: str
    patient: str
    instance: str
    references: frozenset[str]


def examine(path: str, *, anonymous: bool = False) -> Instance | SegmentationFile | LeftOut:
    """Read and decode one file, whatever it is; what cannot be used comes back as left out, with the reason.

    Args:
        path: of the file.
        anonymous: take images without a PatientID (a manifest says whose they are).
    """
    try:
        with quiet():
            return _examine(path, anonymous)
    except Unusable as why:
        return LeftOut(path, str(why))


def read(path: str) -> Dataset:
    """Parse a DICOM file.

    Raises:
        Unusable: if it is not one, or damaged.
    """
    try:
        with open(path, "rb") as file:
            if file.read(132)[128:] != b"DICM":
                raise Unusable("not a DICOM file (no DICM marker)")
            file.seek(0)
            return pydicom.dcmread(file)
    except Unusable:
        raise
    except OSError as error:
        raise Unusable(f"cannot be opened ({error.strerror})") from None
    except InvalidDicomError:
        raise Unusable("not a DICOM file") from None
    except Exception:  # what damaged bytes can raise in a parser has no common ancestor
        raise Unusable("damaged: its header cannot be parsed") from None


def _examine(path: str, anonymous: bool) -> Instance | SegmentationFile:
    dataset = read(path)
    try:
        kind = _kind(dataset)
        patient = str(dataset.get("PatientID") or "").strip()
        if not patient and not anonymous:
            raise Unusable("no PatientID: whose image it is cannot be told")
        if kind in SEGMENTATIONS:
            return SegmentationFile(
                path=path, patient=patient, instance=str(dataset.SOPInstanceUID), references=_references(dataset)
            )
        pixels = decode(dataset)
        return Instance(path=path, patient=patient, **_header(dataset), **_measured(pixels))
    except Unusable:
        raise
    except Exception:  # values that are not what their attribute promises, in as many ways as there are writers
        raise Unusable("damaged: its header has values that are not what the standard says") from None


def _kind(dataset: Dataset) -> UID:
    """The SOP class of an image or segmentation that can be used; anything else is refused with its reason."""
    kind = UID(str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID", "")))
    modality = str(dataset.get("Modality") or "")
    name = kind.name if kind.name != str(kind) else "of an unknown kind"
    if kind == MediaStorageDirectoryStorage:
        raise Unusable("a DICOMDIR: an index, not an image")
    if modality == "RTSTRUCT":
        raise Unusable("an RT structure set: contours are not read yet; labels are read from DICOM SEG or a table")
    if modality in _NOT_IMAGES:
        raise Unusable(f"not an image ({name})")
    if not any(keyword in dataset for keyword in _PIXELS):
        image = "Rows" in dataset or name.endswith("Image Storage")
        raise Unusable("no pixel data: it has none, or the file is cut off" if image else f"not an image ({name})")
    if kind not in SEGMENTATIONS and (frames := int(dataset.get("NumberOfFrames") or 1)) > 1:
        raise Unusable(f"a multi-frame image ({frames} frames): not read yet; store it as single frames")
    return kind


def _header(dataset: Dataset) -> dict[str, Any]:
    return {
        "series": str(dataset.get("SeriesInstanceUID", "")),
        "instance": str(dataset.get("SOPInstanceUID", "")),
        "modality": str(dataset.get("Modality") or ""),
        "manufacturer": str(dataset.get("Manufacturer") or "").strip(),
        "localizer": "LOCALIZER" in [str(value).upper() for value in dataset.get("ImageType") or []],
        "position": _numbers(dataset, "ImagePositionPatient", 3),
        "orientation": _numbers(dataset, "ImageOrientationPatient", 6),
        "spacing": _spacing(dataset, "PixelSpacing") or _spacing(dataset, "ImagerPixelSpacing"),
    }


def _numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    value = dataset.get(keyword)
    if value is None or value == "" or len(value) != count:
        return None
    numbers = tuple(float(number) for number in value)
    return numbers if all(map(math.isfinite, numbers)) else None


def _spacing(dataset: Dataset, keyword: str) -> tuple[float, ...] | None:
    spacing = _numbers(dataset, keyword, 2)
    return spacing if spacing is not None and min(spacing) > 0 else None


def _measured(pixels: npt.NDArray[np.float32]) -> dict[str, Any]:
    return {
        "rows": pixels.shape[0],
        "columns": pixels.shape[1],
        "channels": pixels.shape[2] if pixels.ndim == 3 else 1,
        "minimum": float(pixels.min()),
        "maximum": float(pixels.max()),
        "fingerprint": fingerprint(pixels),
    }


def _references(dataset: Dataset) -> frozenset[str]:
    """SOPInstanceUIDs in ReferencedSeriesSequence, or else in the frames' SourceImageSequences (PS3.3 C.8.20)."""
    found = {
        str(instance.ReferencedSOPInstanceUID)
        for series in dataset.get("ReferencedSeriesSequence") or []
        for instance in series.get("ReferencedInstanceSequence") or []
    }
    found |= {str(source.ReferencedSOPInstanceUID) for source in dataset.get("SourceImageSequence") or []}
    if found:
        return frozenset(found)
    groups = [*(dataset.get("PerFrameFunctionalGroupsSequence") or [])]
    groups += [*(dataset.get("SharedFunctionalGroupsSequence") or [])]
    return frozenset(
        str(source.ReferencedSOPInstanceUID)
        for group in groups
        for derivation in group.get("DerivationImageSequence") or []
        for source in derivation.get("SourceImageSequence") or []
    )
