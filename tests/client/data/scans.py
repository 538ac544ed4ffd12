"""Small scans for tests: DICOM series and images, DICOM SEG, NIfTI, PNG, JPEG, as other software writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
NAME = "Doe^Jane"


def dataset(
    patient: str, pixels: np.ndarray, *, kind: UID = SecondaryCaptureImageStorage, **attributes: Any
) -> Dataset:
    """A single-frame image of [row, column] or [row, column, RGB]; attributes replace or add to the header."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = kind
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = patient, NAME, "", "O"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID, ds.ReferringPhysicianName = (
        "20200101",
        "120000",
        "",
        "1",
        "",
    )
    ds.Modality, ds.Manufacturer, ds.SeriesNumber, ds.InstanceNumber = "OT", "Acme", 1, 1
    ds.PatientOrientation, ds.Laterality = None, None
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    ds.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    bits = pixels.dtype.itemsize * 8
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    ds.PixelData = pixels.tobytes()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def save(ds: Dataset, path: Path, syntax: UID = ExplicitVRLittleEndian) -> Path:
    """Write it in a transfer syntax, the instance UID kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if syntax.is_compressed and syntax.is_encapsulated:
        ds.compress(syntax, generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path, enforce_file_format=True)
    return path


def series(
    folder: Path,
    patient: str = "P1",
    *,
    slices: int = 6,
    size: tuple[int, int] = (24, 20),
    spacing: tuple[float, float, float] = (1.5, 1.25, 3.0),
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-10.0, -20.0, 30.0),
    modality: str = "CT",
    syntax: UID = ExplicitVRLittleEndian,
    seed: int = 0,
    **attributes: Any,
) -> list[Dataset]:
    """A volume, one file a slice under names in no order, in order along its normal."""
    random = np.random.default_rng(seed)
    series_uid, study, frame = generate_uid(), generate_uid(), generate_uid()
    cosines = np.array(orientation)
    normal = np.cross(cosines[:3], cosines[3:])
    names = random.permutation(slices)
    made = []
    for k in range(slices):
        pixels = random.integers(900, 1200, size, dtype=np.uint16)
        ds = dataset(patient, pixels, kind=CTImageStorage)
        ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = series_uid, study, frame
        ds.PositionReferenceIndicator = ""
        ds.Modality, ds.ImageType = modality, ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.InstanceNumber = int(names[k]) + 1
        ds.ImageOrientationPatient = [float(value) for value in orientation]
        ds.ImagePositionPatient = [float(v) for v in np.array(origin) + k * spacing[2] * normal]
        ds.PixelSpacing, ds.SliceThickness = [spacing[0], spacing[1]], spacing[2]
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        save(ds, folder / f"{names[k]:03d}.dcm", syntax)
        made.append(ds)
    return made


def segmentation(
    images: Sequence[Dataset], path: Path, masks: Mapping[str, np.ndarray], kind: str = "BINARY", **options: Any
) -> Dataset:
    """A DICOM SEG over these images by highdicom: label → [slice, row, column]."""
    described = [
        highdicom.seg.SegmentDescription(
            number,
            label,
            codes.SCT.Organ,
            codes.SCT.Liver,
            highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(masks, start=1)
    ]
    stack = np.stack(list(masks.values()), axis=-1)
    made = highdicom.seg.Segmentation(
        list(images),
        stack,
        kind,
        described,
        generate_uid(),
        100,
        generate_uid(),
        1,
        "Acme",
        "model",
        "1",
        "1",
        **options,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
    return made


def box(shape: tuple[int, ...], *slices: slice) -> np.ndarray:
    """A mask that is true inside a box."""
    mask = np.zeros(shape, dtype=bool)
    mask[slices] = True
    return mask


def nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """A NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def picture(path: Path, array: np.ndarray) -> Path:
    """A PNG or JPEG, by its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def damage(path: Path) -> Path:
    """Cut off the second half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def pictures(folder: Path, patients: int, *, seed: int = 0, size: tuple[int, int] = (24, 32)) -> Path:
    """A folder of grey PNGs with discs as masks, two images a patient, and its manifest."""
    random = np.random.default_rng(seed)
    lines = ["patient,image,mask"]
    rows, columns = np.indices(size)
    for patient in range(patients):
        for number in range(2):
            centre = random.integers(8, 16, 2)
            mask = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 30
            image = (random.integers(0, 60, size) + 150 * mask).astype(np.uint8)
            picture(folder / f"i{patient}-{number}.png", image)
            picture(folder / f"m{patient}-{number}.png", (255 * mask).astype(np.uint8))
            lines.append(f"patient {patient},i{patient}-{number}.png,m{patient}-{number}.png")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def read(path: Path) -> Dataset:
    """Parse a DICOM file."""
    return pydicom.dcmread(path)
