"""A CT series of an abdomen and its outlines as DICOM (PS3.3 A.3 CT Image, A.51 Segmentation)."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage
from pydicom.valuerep import DT

from simulations.phantoms import dicom
from simulations.phantoms.abdomen import LESION, LIVER
from simulations.phantoms.scanners import CT
from simulations.phantoms.shapes import Grid, Volume

SEGMENTS = ("liver", "lesion")  # the liver is outlined with its lesions, and each lesion again inside it


def write_ct(
    folder: Path, patient: dicom.Patient, scanner: CT, grid: Grid, hu: Volume, labels: NDArray[np.uint8]
) -> None:
    """One study: a CT series of single slices, and a binary segmentation of it with the segments of `SEGMENTS`.

    Args:
        folder: of the patient.
        patient: whose it is.
        scanner: that made it.
        grid: its voxels.
        hu: Hounsfield units; rows × columns × slices, from the feet up.
        labels: class indices on the same grid.
    """
    rng = np.random.default_rng([patient.seed, patient.number, 77])
    series = _ct_series(patient, scanner, grid)
    bed = round(float(rng.uniform(-900, -600)), 2)  # where the table stood
    place = {
        "head": np.arange(grid.shape[2])[::-1],
        "feet": np.arange(grid.shape[2]),
        "mixed": rng.permutation(grid.shape[2]),
    }[scanner.storage.order]
    stored = scanner.storage.encode(hu)
    study = folder / "CT-ABDOMEN"
    slices = []
    for index, number in enumerate(place + 1):
        instance = Dataset()
        instance.update(series)
        instance.SOPInstanceUID = patient.uid("ct", int(number))
        instance.InstanceNumber = int(number)
        first = (grid.axis(1)[0], grid.axis(0)[0], grid.axis(2)[index] + bed)
        instance.ImagePositionPatient = [round(float(value), 3) for value in first]
        instance.SliceLocation = instance.ImagePositionPatient[2]
        dicom.pixels(instance, stored[:, :, index], scanner.storage)
        dicom.save(instance, study / "abdomen", scanner.storage, int(number))
        slices.append(instance)
    mask = _segmentation(patient, slices, np.moveaxis(labels, 2, 0))
    (study / "segmentation").mkdir(parents=True, exist_ok=True)
    mask.save_as(study / "segmentation" / f"SEG{scanner.storage.suffix}", enforce_file_format=True)


def _ct_series(patient: dicom.Patient, scanner: CT, grid: Grid) -> Dataset:
    series = patient.study(0, "CT abdomen")
    dicom.equipment(series, scanner)
    series.SOPClassUID = CTImageStorage
    series.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    series.Modality = "CT"
    series.SeriesInstanceUID = patient.uid("series", "ct")
    series.SeriesNumber = 2
    series.SeriesDescription = f"Abdomen {grid.spacing[2]:.1f} {scanner.kernel}"
    series.BodyPartExamined = "ABDOMEN"
    series.PatientPosition = "HFS"
    series.FrameOfReferenceUID = patient.uid("frame")
    series.PositionReferenceIndicator = ""
    series.AcquisitionNumber = 1
    series.KVP = scanner.kvp
    series.ConvolutionKernel = scanner.kernel
    series.ReconstructionDiameter = scanner.field_of_view
    series.RescaleIntercept, series.RescaleSlope = scanner.storage.intercept, scanner.storage.slope
    series.RescaleType = "HU"
    series.WindowCenter, series.WindowWidth = 50, 400
    series.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    series.PixelSpacing = list(grid.spacing[:2])
    series.SliceThickness = series.SpacingBetweenSlices = grid.spacing[2]
    series.PhotometricInterpretation = "MONOCHROME2"
    return series


def _segmentation(patient: dicom.Patient, slices: list[Dataset], labels: NDArray[np.uint8]) -> Segmentation:
    """A reader's outlines: both segments are described in every patient, with no frames where there is no lesion."""
    kinds = {
        "liver": (codes.SCT.AnatomicalStructure, codes.SCT.Liver),
        "lesion": (codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion),
    }
    segments = [
        SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=kinds[label][0],
            segmented_property_type=kinds[label][1],
            algorithm_type="MANUAL",
            anatomic_regions=[codes.SCT.Liver] if label == "lesion" else None,
        )
        for number, label in enumerate(SEGMENTS, start=1)
    ]
    outlines = np.stack([labels >= LIVER, labels == LESION], axis=-1)
    moment = datetime.datetime.combine(patient.day(0), datetime.time(18, 0))
    mask = Segmentation(
        source_images=slices,
        pixel_array=outlines,
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid=patient.uid("series", "seg"),
        series_number=300,
        sop_instance_uid=patient.uid("seg"),
        instance_number=1,
        manufacturer="insitu",
        manufacturer_model_name="phantoms",
        software_versions="1",
        device_serial_number="1",
        content_label="LIVER",
        content_description="Liver and its lesions",
        content_creator_name="Phantom^Reader",
        content_date=moment.date(),
        content_time=moment.time(),
        series_description="Segmentation",
    )
    # The library takes the clock and chance for these; the same phantom has to be the same bytes.
    mask.InstanceCreationDate, mask.InstanceCreationTime = mask.ContentDate, mask.ContentTime
    for equipment in mask.ContributingEquipmentSequence:
        equipment.ContributionDateTime = DT(moment.strftime("%Y%m%d%H%M%S"))
    organisation = patient.uid("dimensions")
    for item in (*mask.DimensionOrganizationSequence, *mask.DimensionIndexSequence):
        item.DimensionOrganizationUID = organisation
    return mask
