"""A chest radiograph as DICOM (PS3.3 A.26 Digital X-Ray Image, A.2 Computed Radiography Image)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation

from simulations.phantoms import dicom
from simulations.phantoms.chest import Image
from simulations.phantoms.scanners import XRay


def write_radiograph(
    folder: Path, patient: dicom.Patient, device: XRay, grey: Image, spacing: float, study: int
) -> UID:
    """One study of one chest image: a digital (DX) or computed (CR) radiograph.

    Args:
        folder: of the patient.
        patient: whose it is.
        device: that made it.
        grey: 0 to 1, white is dense; rows × columns, the patient's right on the left.
        spacing: millimetres per pixel at the detector.
        study: its number in the patient's history, from 0.

    Returns:
        The SeriesInstanceUID.
    """
    image = patient.study(study, "Chest X-ray")
    dicom.equipment(image, device)
    series = image.SeriesInstanceUID = patient.uid("series", "xray", study)
    image.SOPInstanceUID = patient.uid("xray", study)
    image.SeriesNumber = image.InstanceNumber = 1
    image.SeriesDescription = "Chest PA"
    image.BodyPartExamined = "CHEST"
    image.ViewPosition = "PA"
    image.PatientOrientation = ["L", "F"]
    image.AcquisitionNumber = 1
    image.KVP = 120
    image.ImagerPixelSpacing = [spacing, spacing]
    image.BurnedInAnnotation = "NO"
    image.LossyImageCompression = "00"
    full = 2**device.storage.bits
    image.WindowCenter, image.WindowWidth = full / 2, full
    image.ImageType = ["ORIGINAL", "PRIMARY"]
    if device.computed:
        image.SOPClassUID, image.Modality = ComputedRadiographyImageStorage, "CR"
        image.PlateType, image.CassetteSize = "PHANTOM", "35CMX43CM"
    else:
        _digital(image, device)
    image.PhotometricInterpretation = "MONOCHROME1" if device.monochrome1 else "MONOCHROME2"
    stored = device.storage.encode((1 - grey if device.monochrome1 else grey) * np.float32(full - 1))
    dicom.pixels(image, stored, device.storage)
    dicom.save(image, folder / f"{image.Modality}-CHEST-{study + 1}", device.storage, 1)
    return series


def _digital(image: Dataset, device: XRay) -> None:
    """What digital X-ray images have beyond computed radiography (PS3.3 C.8.11)."""
    image.SOPClassUID, image.Modality = DigitalXRayImageStorageForPresentation, "DX"
    image.PresentationIntentType = "FOR PRESENTATION"
    image.ImageLaterality = "U"
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "816094009", "SCT", "Chest"
    image.AnatomicRegionSequence = [region]
    image.PixelIntensityRelationship = "LOG"
    image.PixelIntensityRelationshipSign = 1 if device.monochrome1 else -1
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = 0, 1, "US"
    image.PresentationLUTShape = "INVERSE" if device.monochrome1 else "IDENTITY"
    image.DetectorType = "DIRECT"
    image.PositionerType = "COLUMN"
    image.AcquisitionContextSequence = []
