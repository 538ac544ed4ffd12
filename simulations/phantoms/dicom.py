"""What every phantom's DICOM objects share: patient, study, equipment, pixels, and the file.

Everything is derived from the patient's key, so the same patient is written to the same bytes. Mandatory attributes are
those of DICOM PS3.3.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from simulations.phantoms.scanners import CT, Storage, Stored, XRay


@dataclass(frozen=True)
class Patient:
    """A synthetic patient: number `number` of `site` under `seed`; identifiers and demographics follow from these."""

    seed: int
    site: str
    number: int

    @property
    def id(self) -> str:
        """The PatientID."""
        return f"PHANTOM-{self.site.upper()}-{self.number:04d}"

    def uid(self, *role: object) -> UID:
        """The UID of a thing of this patient."""
        uid: UID = generate_uid(entropy_srcs=[str(self.seed), self.site, str(self.number), *map(str, role)])
        return uid

    def day(self, study: int) -> datetime.date:
        """When the study was made."""
        return datetime.date(2024, 1, 8) + datetime.timedelta(days=3 * self.number + 91 * study)

    def study(self, study: int, description: str) -> Dataset:
        """Patient, study and equipment-free series attributes, shared by everything in one study."""
        rng = np.random.default_rng([self.seed, self.number, *self.site.encode()])
        age, day = int(rng.integers(34, 86)), self.day(study)
        common = Dataset()
        common.SpecificCharacterSet = "ISO_IR 100"
        common.PatientName = f"Phantom^{self.site.capitalize()} {self.number:04d}"
        common.PatientID = self.id
        common.PatientBirthDate = self.day(0).replace(year=day.year - age, day=1).strftime("%Y%m%d")
        common.PatientSex = str(rng.choice(["F", "M"]))
        common.PatientAge = f"{age:03d}Y"
        common.StudyInstanceUID = self.uid("study", study)
        common.StudyDate = common.SeriesDate = common.AcquisitionDate = common.ContentDate = day.strftime("%Y%m%d")
        common.StudyTime = common.SeriesTime = common.AcquisitionTime = common.ContentTime = (
            f"{8 + self.number % 9:02d}1500"
        )
        common.StudyID = f"{study + 1}"
        common.AccessionNumber = f"{self.site[:2].upper()}{self.number:05d}{study}"
        common.StudyDescription = description
        common.ReferringPhysicianName = "Phantom^Referrer"
        common.InstitutionName = f"Phantom Hospital {self.site.capitalize()}"
        return common


def equipment(image: Dataset, device: CT | XRay) -> None:
    """Who made the device, and which one it is."""
    image.Manufacturer = device.manufacturer
    image.ManufacturerModelName = device.model
    image.SoftwareVersions = "1"
    image.DeviceSerialNumber = "1"


def pixels(image: Dataset, stored: Stored, storage: Storage) -> None:
    """Pixel attributes and the data itself, uncompressed."""
    image.SamplesPerPixel = 1
    image.Rows, image.Columns = stored.shape
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, storage.bits, storage.bits - 1
    image.PixelRepresentation = int(storage.signed)
    image.PixelData = stored.astype("<i2" if storage.signed else "<u2").tobytes()


def save(image: Dataset, folder: Path, storage: Storage, number: int) -> None:
    """Write one instance as its device would, compressed where it compresses."""
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image["PixelData"].VR = "OW"
    if storage.transfer_syntax != ExplicitVRLittleEndian:
        image.compress(storage.transfer_syntax, generate_instance_uid=False)
    folder.mkdir(parents=True, exist_ok=True)
    image.save_as(folder / f"I{number:04d}{storage.suffix}", enforce_file_format=True)
