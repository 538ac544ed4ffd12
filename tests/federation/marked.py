"""A hospital in whose files every text is a marker, and no two images share a run of pixels.

What reading needs is left as it has to be (UIDs of the standard, numbers of geometry). Dates, times, ages and numbers
are markers as well where nothing is computed with them: files that say no date where a date belongs do exist, and what
a library says about them is a part of what is looked for.
"""

import csv
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from traces import Marks, Pixels, Traces

from shared.job import Job
from shared.preprocessing import Preprocessing

sys.path.insert(0, str(Path(__file__).parents[1] / "client" / "data"))
import scans

TEXTS = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT")
# What is read, and so has to mean something; and what is marked for each patient, below.
_NEEDED = {
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "PhotometricInterpretation",
    "RescaleSlope",
    "RescaleIntercept",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NumberOfFrames",
}
_EACH = ("PatientID", "PatientName", "AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID")
# What the site's registry is there to know: where files are, and what `data show` says of them.
REGISTERED = ("a folder's name", "a file's name", "Manufacturer", "Modality", "SegmentLabel", "a label")
SIZE = (16, 16)


@dataclass
class Hospital:
    """Where its files are, and what must not be found.

    Attributes:
        scans: images with segmentations, good ones and damaged ones.
        labelled: images with a table of labels, `table`.
        listed: a manifest of pictures, whose masks have an index that is no class.
        names: the label of each segmentation, and the two labels of the table.
    """

    folder: Path
    marks: Marks = field(default_factory=Marks)
    pixels: Pixels = field(default_factory=Pixels)

    def __post_init__(self) -> None:
        pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
        self.random = np.random.default_rng(20260101)
        self.template = _template(self.marks)
        self.names = {what: self.marks.text(f"{what}") for what in ("SegmentLabel", "a label", "a label ")}
        self.scans, self.labelled, self.listed = (self.folder / self._name("a folder's name") for _ in range(3))
        self.table = self.labelled / f"{self._name(FILE)}.csv"
        with warnings.catch_warnings(action="ignore"):  # pydicom says of each of them that it is not as it should be
            self._write_scans(24)
            self._write_damaged()
            self._write_labelled(20)
            self._write_listed(4)

    def traces(self, *jobs: Job) -> Traces:
        """What to look for, where images went through these jobs' preprocessing."""
        for number, array in enumerate(self.arrays):
            known = {
                "uint16": array,
                "int16": array.astype(np.int16) - 1024,
                "low bytes": array.astype(np.uint8),
                "uint8": np.round((array - array.min()) / np.ptp(array) * 255).astype(np.uint8),
                "float32": array.astype(np.float32) - 1024,
            }
            for job in jobs:
                prepared = Preprocessing(job.images).image(known["float32"], None)[0].numpy()
                known[f"{job.images.intensity}"] = prepared
            for name, values in known.items():
                self.pixels.add(f"pixels of image {number} as {name}", values)
        return Traces(self.marks, self.pixels)

    def _name(self, place: str) -> str:
        return self.marks.text(place)

    def _image(self) -> Dataset:
        """One patient's image, with everything marked."""
        array = self.random.integers(0, 4096, SIZE, dtype=np.uint16)
        self.arrays = [*getattr(self, "arrays", []), array]
        ds = scans.dataset("", array, RescaleSlope=1, RescaleIntercept=-1024)
        for keyword in ("PatientBirthDate", "StudyDate", "StudyTime", "PatientOrientation", "Laterality"):
            del ds[keyword]
        ds.update(self.template)
        for keyword in _EACH:
            mark = self.marks.uid if keyword.endswith("UID") else self.marks.text
            setattr(ds, keyword, mark(keyword))
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = self.marks.uid("SOPInstanceUID")
        for keyword in ("SourceApplicationEntityTitle", "ImplementationVersionName"):
            setattr(ds.file_meta, keyword, self.marks.text(keyword))
        return ds

    def _save(self, ds: Dataset, folder: Path) -> Path:
        return scans.save(ds, folder / self._name("a folder's name") / f"{self._name(FILE)}.dcm")

    def _write_scans(self, patients: int) -> None:
        for _ in range(patients):
            image = self._image()
            self._save(image, self.scans)
            self._write_segmentation(image)

    def _write_segmentation(self, image: Dataset) -> None:
        plain = scans.dataset(image.PatientID, np.zeros(SIZE, np.uint16))
        for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            setattr(plain, keyword, image[keyword].value)
        mask = np.zeros(SIZE, bool)
        mask[4:12, 4:12] = True
        file = self.scans / self._name("a folder's name") / f"{self._name(FILE)}.dcm"
        drawn = scans.segmentation([plain], file, {self.names["SegmentLabel"]: mask[None]})
        for element in self.template:
            if element.tag not in drawn and element.VR in ("LO", "SH", "PN", "LT", "ST", "UT"):
                drawn.add(element)
        drawn.PatientName = image.PatientName
        drawn.save_as(file)

    def _write_damaged(self) -> None:
        """What a hospital's disk holds besides; every file with its texts."""
        folder = self.scans
        scans.damage(self._save(self._image(), folder))
        self.cut = len(self.arrays) - 1  # whose pixels are no more in its file
        content = self._save(self._image(), folder).read_bytes()
        torn = bytearray(content)
        torn[200:4000:7] = b"\xff" * len(torn[200:4000:7])
        (folder / f"{self._name(FILE)}.dcm").write_bytes(torn)
        (folder / f"{self._name(FILE)}.dcm").write_bytes(self.marks.text("no DICOM").encode() * 50)
        for keyword, value in (
            ("SpecificCharacterSet", self.marks.text("a character set")),
            ("PhotometricInterpretation", self.marks.text("PhotometricInterpretation")),
            ("RescaleSlope", self.marks.text("RescaleSlope")),
            ("PatientID", ""),
            ("SOPClassUID", self.marks.uid("SOPClassUID")),
            ("PixelSpacing", self.marks.text("PixelSpacing")),
            ("Rows", 9999),
        ):
            image, tag = self._image(), pydicom.datadict.tag_for_keyword(keyword)
            if isinstance(value, str):
                image[tag] = _element(tag, pydicom.datadict.dictionary_VR(tag), value)
            else:
                setattr(image, keyword, value)
            self._save(image, folder)

    def _write_labelled(self, patients: int) -> None:
        rows = []
        for number in range(patients):
            image = self._image()
            self._save(image, self.labelled)
            rows.append([image.PatientID, self.names["a label" if number % 2 else "a label "]])
        with self.table.open("w", newline="") as stream:
            csv.writer(stream).writerows([["PatientID", "label"], *rows])

    def _write_listed(self, patients: int) -> None:
        self.listed.mkdir()
        lines = ["patient,image,mask"]
        for _ in range(patients):
            image, mask = f"{self._name(FILE)}.png", f"{self._name(FILE)}.png"
            scans.picture(self.listed / image, self.random.integers(0, 255, SIZE, dtype=np.uint8))
            scans.picture(self.listed / mask, np.full(SIZE, 7, np.uint8))
            lines.append(f"{self.marks.text('a patient of the manifest')},{image},{mask}")
        (self.listed / "manifest.csv").write_text("\n".join(lines) + "\n")


FILE = "a file's name"


def _template(marks: Marks) -> Dataset:
    """Every attribute of the standard that holds text, and private ones, with a marker each; some of them nested."""
    ds = Dataset()
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if tag >> 16 in (0x0000, 0x0002, 0x0004) or keyword in {*_NEEDED, *_EACH, ""}:
            continue
        if vr == "UI":
            ds[tag] = _element(tag, vr, marks.uid(keyword))
        elif vr in TEXTS:
            ds[tag] = _element(tag, vr, marks.text(keyword))
    for keyword in ("OtherPatientIDsSequence", "RequestAttributesSequence", "ReferencedPatientSequence"):
        ds.add(_element(pydicom.datadict.tag_for_keyword(keyword), "SQ", _nested(marks, keyword, depth=3)))
    ds[0x00990010] = _element(0x00990010, "LO", marks.text("a private creator"))
    for tag, vr in enumerate(TEXTS, start=0x00991001):
        ds[tag] = _element(tag, vr, marks.text(f"a private {vr}"))
    ds.add(_element(0x009910F0, "SQ", _nested(marks, "a private sequence", depth=2)))
    return ds


def _nested(marks: Marks, where: str, *, depth: int) -> Sequence:
    item = Dataset()
    for keyword in ("PatientID", "PatientName", "StudyDescription", "PatientComments", "IssuerOfPatientID"):
        tag = pydicom.datadict.tag_for_keyword(keyword)
        item[tag] = _element(tag, pydicom.datadict.dictionary_VR(tag), marks.text(f"{where}/{keyword}"))
    if depth > 1:
        inner = _nested(marks, f"{where}/OtherPatientIDsSequence", depth=depth - 1)
        item.add(_element(pydicom.datadict.tag_for_keyword("OtherPatientIDsSequence"), "SQ", inner))
    return Sequence([item])


def _element(tag: int, vr: str, value: str | Sequence) -> DataElement | RawDataElement:
    if isinstance(value, Sequence):
        return DataElement(tag, vr, value)
    content = value.encode()
    content += b"\0" * (len(content) % 2) if vr == "UI" else b" " * (len(content) % 2)
    # As it is in a file: pydicom makes no number of what is none.
    return RawDataElement(Tag(tag), vr, len(content), content, 0, False, True)
