"""Phantom hospitals are DICOM that anybody's reader takes, and differ as hospitals do."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import cache
from importlib import resources
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from shared.errors import BadInput
from simulations import phantoms
from simulations.phantoms import hospitals, shapes
from simulations.phantoms.patient import has_finding

SMALL = {"segmentation": (32, 32, 8), "classification": (48, 48)}
PATIENTS = 5


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Four hospitals of five patients for each task."""
    folder = tmp_path_factory.mktemp("phantoms")
    return {
        task: phantoms.write(folder / task, sites=4, patients=PATIENTS, task=task, size=size)  # type: ignore[arg-type]
        for task, size in SMALL.items()
    }


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".csv")


def digest(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def series(patient: Path) -> list[Dataset]:
    """The CT instances of a patient, from the feet up."""
    slices = [pydicom.dcmread(path) for path in files(patient) if "SEG" not in path.name]
    return sorted(slices, key=lambda one: one.ImagePositionPatient[2])


def outlines(patient: Path) -> highdicom.seg.Segmentation:
    return highdicom.seg.segread(next(path for path in files(patient) if "SEG" in path.name))


def hounsfield(patient: Path) -> np.ndarray:
    """From the feet up × rows × columns."""
    return np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in series(patient)])


def laid(patient: Path) -> tuple[highdicom.Volume, np.ndarray, np.ndarray]:
    """The scan as a volume, and liver and lesion on its voxels, as highdicom lays them there."""
    scan = highdicom.get_volume_from_series(series(patient))
    mask = outlines(patient).get_volume(segment_numbers=[1, 2], rescale_fractional=False)
    on_scan = mask.match_geometry(scan).array.astype(bool)
    return scan, on_scan[..., 0], on_scan[..., 1]


def table(folder: Path) -> dict[str, str]:
    with (folder / "labels.csv").open(newline="") as file:
        return {row["SeriesInstanceUID"]: row["label"] for row in csv.DictReader(file)}


# DICOM


@cache
def mandatory(kind: str) -> list[tuple[str, str]]:
    """Attributes of type 1 and 2 in the mandatory modules of a SOP class, as PS3.3 lists them, with their type."""
    standard = resources.files("highdicom") / "_standard"
    iod = json.loads((standard / "sop_class_iod_map.json").read_text())[kind]
    modules = json.loads((standard / "iod_module_map.json").read_text())[iod]
    attributes = json.loads((standard / "module_attribute_map.json").read_text())
    listed = [one for module in modules if module["usage"] == "M" for one in attributes[module["key"]]]
    return [(one["keyword"], one["type"]) for one in listed if not one["path"] and one["type"] in ("1", "2")]


def missing(instance: Dataset) -> list[str]:
    """Mandatory attributes that an instance does not have; those of type 1 need a value."""
    wanted = mandatory(instance.SOPClassUID)
    assert len(wanted) > 20
    return [word for word, kind in wanted if word not in instance or (kind == "1" and instance[word].is_empty)]


@pytest.mark.parametrize("task", SMALL)
def test_every_instance_has_what_the_standard_demands(
    trees: dict[str, list[Path]], task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    for folder in trees[task]:
        paths = files(folder)
        for path in (*paths[:3], *paths[-3:], *(one for one in paths if "SEG" in one.name)):
            instance = pydicom.dcmread(path)
            for element in instance.iterall():
                assert element.value is None or element.VR  # reads and validates every value
            assert missing(instance) == [], path.name
            assert instance.pixel_array.size


@pytest.mark.parametrize("task", SMALL)
def test_no_two_instances_share_a_uid_and_patients_are_what_the_folders_say(
    trees: dict[str, list[Path]], task: str
) -> None:
    headers = [
        (path, pydicom.dcmread(path, stop_before_pixels=True)) for folder in trees[task] for path in files(folder)
    ]
    assert max(Counter(header.SOPInstanceUID for _, header in headers).values()) == 1
    assert all(header.PatientID in path.parts for path, header in headers)
    assert len({header.PatientID for _, header in headers}) == 4 * PATIENTS


@pytest.mark.parametrize("task", SMALL)
def test_each_hospital_has_its_own_transfer_syntax(trees: dict[str, list[Path]], task: str) -> None:
    promised = (ExplicitVRLittleEndian, JPEGLSLossless, JPEG2000Lossless, RLELossless)
    for folder, syntax in zip(trees[task], promised, strict=True):
        images = [pydicom.dcmread(path) for path in files(folder) if "SEG" not in path.name]
        assert {image.file_meta.TransferSyntaxUID for image in images} == {syntax}


def test_the_devices_differ_in_bits_sign_rescaling_matrix_spacing_and_thickness(trees: dict[str, list[Path]]) -> None:
    scans = [series(sorted(folder.iterdir())[0]) for folder in trees["segmentation"]]
    firsts = [scan[0] for scan in scans]
    assert {(one.BitsStored, one.PixelRepresentation) for one in firsts} == {(16, 1), (12, 0), (16, 0)}
    assert len({(float(one.RescaleSlope), float(one.RescaleIntercept)) for one in firsts}) == 3
    for attribute in ("Rows", "PixelSpacing", "SliceThickness", "ConvolutionKernel", "ManufacturerModelName"):
        assert len({str(one.get(attribute)) for one in firsts}) == 4, attribute
    assert len({len(scan) for scan in scans}) == 4


def test_the_first_hospital_has_the_size_that_was_asked_for(trees: dict[str, list[Path]]) -> None:
    patient = sorted(trees["segmentation"][0].iterdir())[0]
    assert hounsfield(patient).shape == (8, 32, 32)
    image = pydicom.dcmread(files(trees["classification"][0])[0])
    assert image.pixel_array.shape == (48, 48)


# Geometry


def test_slices_are_one_regular_stack_whatever_their_numbers_say(trees: dict[str, list[Path]]) -> None:
    orders = {}
    for folder in trees["segmentation"]:
        slices = series(sorted(folder.iterdir())[0])
        positions = np.array([one.ImagePositionPatient for one in slices], dtype=float)
        assert np.allclose(np.diff(positions[:, 2]), float(slices[0].SpacingBetweenSlices), atol=2e-3)
        assert np.ptp(positions[:, :2]) < abs(2 * positions[0, 0]) + 1e-6
        numbers = [int(one.InstanceNumber) for one in slices]
        assert sorted(numbers) == list(range(1, len(slices) + 1))
        orders[folder.name] = (
            "feet" if numbers == sorted(numbers) else "head" if numbers == sorted(numbers)[::-1] else "mixed"
        )
    assert set(orders.values()) == {"feet", "head", "mixed"}


def test_outlines_lie_on_the_scan_they_refer_to(trees: dict[str, list[Path]]) -> None:
    for folder in trees["segmentation"]:
        for patient in sorted(folder.iterdir()):
            scan, liver, lesion = laid(patient)
            assert {one.SOPInstanceUID for one in series(patient)} >= {
                str(uid) for _, _, uid in outlines(patient).get_source_image_uids()
            }
            assert liver.shape == scan.spatial_shape
            assert -100 < np.percentile(scan.array[liver], 10) < np.percentile(scan.array[liver], 90) < 250  # no bone
            assert liver.mean() > 0.01
            assert not (lesion & ~liver).any()


def test_outlines_are_coded(trees: dict[str, list[Path]]) -> None:
    for folder in trees["segmentation"]:
        mask = outlines(sorted(folder.iterdir())[0])
        segments = [mask.get_segment_description(number) for number in (1, 2)]
        assert [segment.SegmentLabel for segment in segments] == ["liver", "lesion"]
        assert [segment.segmented_property_type.value for segment in segments] == ["10200004", "52988006"]


def test_the_liver_is_on_the_patients_right_and_the_spine_behind(trees: dict[str, list[Path]]) -> None:
    for folder in trees["segmentation"]:
        patient = sorted(folder.iterdir())[0]
        scan, liver, _ = laid(patient)
        centre = scan.map_indices_to_reference(np.argwhere(liver)).mean(axis=0)
        assert centre[0] < -15  # LPS: x grows to the patient's left
        bone = np.mean(hounsfield(patient) > 200, axis=0) > 0.3
        rows, columns = np.nonzero(bone[:, bone.shape[1] // 3 : -bone.shape[1] // 3])
        assert rows.mean() > bone.shape[0] / 2
        assert abs(columns.mean() - bone.shape[1] / 6) < bone.shape[1] / 12


# The shift between hospitals


def test_each_hospital_has_its_own_prevalence() -> None:
    for index in range(4):
        wanted = hospitals.hospital(index).prevalence
        for seed in range(3):
            share = np.mean([has_finding(wanted, seed, index, number) for number in range(1, 121)])
            assert share == pytest.approx(wanted, abs=0.02)
    assert [one.prevalence for one in hospitals.HOSPITALS[:3]] == [0.8, 0.5, 0.2]


def test_findings_are_in_the_files_as_often_as_the_hospital_has_them(trees: dict[str, list[Path]]) -> None:
    for index, folder in enumerate(trees["segmentation"]):
        prevalence = hospitals.hospital(index).prevalence
        expected = [has_finding(prevalence, 0, index, number) for number in range(1, PATIENTS + 1)]
        assert [laid(patient)[2].any() for patient in sorted(folder.iterdir())] == expected
    for index, folder in enumerate(trees["classification"]):
        labels = table(folder)
        assert set(labels.values()) <= {"normal", "effusion"}
        assert set(labels) == {pydicom.dcmread(path).SeriesInstanceUID for path in files(folder)}
        prevalence = hospitals.hospital(index).prevalence
        expected = [has_finding(prevalence, 0, index, number) for number in range(1, PATIENTS + 1)]
        found = {
            pydicom.dcmread(path).PatientID: labels[pydicom.dcmread(path).SeriesInstanceUID] == "effusion"
            for path in files(folder)
        }
        assert [found[patient] for patient in sorted(found)] == expected


def test_contrast_and_noise_show_in_the_intensities(trees: dict[str, list[Path]]) -> None:
    levels, contrast = {}, {}
    for folder in trees["segmentation"]:
        livers, lesions = [], []
        for patient in sorted(folder.iterdir()):
            scan, liver, lesion = laid(patient)
            values = scan.array
            livers.append(np.median(values[liver & ~lesion]))
            if lesion.any():
                lesions.append(np.median(values[lesion]) - livers[-1])
        levels[folder.name], contrast[folder.name] = np.mean(livers), np.mean(lesions)
    assert levels["north"] > levels["south"] + 10 > levels["west"] + 40
    assert contrast["north"] < -35
    assert contrast["south"] > 35
    assert contrast["west"] < -15


def test_one_hospital_stores_its_radiographs_inverted(trees: dict[str, list[Path]]) -> None:
    photometric = {}
    for folder in trees["classification"]:
        image = pydicom.dcmread(files(folder)[0])
        photometric[folder.name] = image.PhotometricInterpretation
        full = 2**image.BitsStored - 1
        grey = image.pixel_array / full
        grey = 1 - grey if image.PhotometricInterpretation == "MONOCHROME1" else grey
        columns, rows = grey.shape[1], grey.shape[0]
        spine = grey[rows // 2 :, columns // 2 - 2 : columns // 2 + 2].mean()
        lungs = np.percentile(grey[rows // 4 : rows // 2], 10)
        assert spine > lungs + 0.2  # dense is white once the interpretation is followed
    assert photometric == {"north": "MONOCHROME2", "south": "MONOCHROME2", "west": "MONOCHROME1", "east": "MONOCHROME2"}


def test_some_patients_have_more_than_one_radiograph(trees: dict[str, list[Path]]) -> None:
    counts = [
        len(files(patient)) for folder in trees["classification"] for patient in folder.iterdir() if patient.is_dir()
    ]
    assert set(counts) == {1, 2}


# The same seed, the same bytes


@pytest.mark.parametrize("task", SMALL)
def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_processes(
    trees: dict[str, list[Path]], tmp_path: Path, task: str
) -> None:
    seen = []
    phantoms.write(
        tmp_path, sites=2, patients=3, task=task, size=SMALL[task], workers=2, progress=lambda: seen.append(1)
    )  # type: ignore[arg-type]
    assert len(seen) == 6
    for folder in trees[task][:2]:
        again, before = digest(tmp_path / folder.name), digest(folder)
        again.pop("labels.csv", None)
        assert again.items() <= before.items()  # and the first patients do not depend on how many follow
        assert len(again) >= 3


def test_another_seed_gives_other_patients(trees: dict[str, list[Path]], tmp_path: Path) -> None:
    phantoms.write(tmp_path, sites=1, patients=2, task="classification", size=SMALL["classification"], seed=1)
    again, before = digest(tmp_path / "north"), digest(trees["classification"][0])
    assert not set(again.values()) & set(before.values())


# Arguments


def test_hospitals_beyond_the_fourth_are_mixtures_with_names_of_their_own() -> None:
    many = [hospitals.hospital(index) for index in range(12)]
    assert [one.name for one in many[:4]] == list(phantoms.SITES)
    assert [one.name for one in many[4:6]] == ["site-05", "site-06"]
    assert len({one.name for one in many}) == len({repr(one) for one in many}) == 12
    assert many == [hospitals.hospital(index) for index in range(12)]


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "south").mkdir()
    (tmp_path / "south" / "scan.dcm").write_text("mine")
    with pytest.raises(BadInput, match="already in use"):
        phantoms.write(tmp_path, sites=3, patients=1, task="classification")
    assert not (tmp_path / "north").exists() or not any((tmp_path / "north").iterdir())
    assert (tmp_path / "south" / "scan.dcm").read_text() == "mine"


@pytest.mark.parametrize(
    "wrong",
    [
        {"sites": 0},
        {"patients": 0},
        {"seed": -1},
        {"task": "detection"},
        {"size": (64, 64)},
        {"size": (64, 64, 4)},
        {"size": (4096, 64, 16)},
    ],
)
def test_wrong_numbers_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        phantoms.write(tmp_path, **{"sites": 1, "patients": 1, "task": "segmentation", **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("task", SMALL)
def test_the_proposed_job_is_private_and_fits_the_phantoms(task: str) -> None:
    job = phantoms.job(task)  # type: ignore[arg-type]
    assert job.task == task
    assert job.privacy.epsilon == 8
    assert job.images.dimensions == len(phantoms.SIZES[task])


def test_all_hospitals_that_are_written_take_part_in_the_proposed_job() -> None:
    assert phantoms.job("segmentation", sites=2).federation.min_sites == 2


def test_an_interrupt_ends_the_writing_at_once(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("insitu-sim"), "phantoms", tmp_path / "many", "--patients", "2000"]
    writing = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("many/*/*")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(writing.pid, signal.SIGINT)  # as a terminal does, to all of its processes
    _, said = writing.communicate(timeout=30)
    assert writing.returncode == 130
    assert b"Traceback" not in said


# Shapes


def test_a_painted_ball_has_the_volume_of_a_ball() -> None:
    grid = shapes.Grid((40, 40, 40), (2.0, 2.0, 2.0))
    ball = shapes.Ellipsoid((3.0, -2.0, 1.0), (25.0, 25.0, 25.0), np.zeros((0, 5), np.float32))
    share = shapes.inside(ball.distance(*grid.coordinates()), 2.0)
    assert share.sum() * 8 == pytest.approx(4 / 3 * np.pi * 25**3, rel=0.01)
