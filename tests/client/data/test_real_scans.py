"""On the real images beside the checkout; nothing is tuned to them."""

import csv
import json

import nibabel
import numpy as np
import pydicom
import pytest

from client.data import images
from client.data.dicom import Instance, examine
from client.data.loading import Cohort
from client.data.registry import Registry
from shared.job import Job
from shared.preprocessing import Preprocessing

pytestmark = pytest.mark.data


@pytest.mark.parametrize(
    ("folder", "shape", "spacing"),
    [("mr_brain_t2", (320, 280, 22), (0.6875, 0.6875, 6.5)), ("mr_hippocrop", (51, 35, 32), (1.0, 1.0, 1.0))],
)
def test_the_mr_series_are_volumes_with_right_spacing_and_orientation(site, real_images, folder, shape, spacing):
    registry = Registry(site)
    registry.add("mr", real_images / "dicom" / folder)
    (item,) = registry.items("mr")
    assert item.picture.shape == shape
    assert item.picture.spacing == pytest.approx(spacing, abs=1e-4)
    array, affine = images.read(item)
    for k, file in enumerate(item.files):
        ds = pydicom.dcmread(file)
        there = (affine @ [0, 0, k, 1])[:3] * [-1, -1, 1]
        np.testing.assert_allclose(there, np.array(ds.ImagePositionPatient, dtype=float), atol=0.01)
        np.testing.assert_allclose(array[..., k], ds.pixel_array * float(ds.get("RescaleSlope", 1)), rtol=1e-5)
    # Axial slices: the patient's left is on the right of the picture, the back at its bottom.
    assert nibabel.aff2axcodes(affine)[:2] == ("P", "L")
    assert not any(one.severity == "error" for one in registry.check("mr"))
    assert json.dumps(registry.summary("mr")).find("PGBM") == -1


def test_of_the_mixed_files_every_one_is_used_or_left_out(site, real_images):
    registry = Registry(site)
    total = 0
    for name in ("pydicom_testfiles", "pydicom_data"):
        registry.add(name, real_images / "dicom" / name)
        files = registry.summary(name)["files"]
        found = sum(path.is_file() for path in (real_images / "dicom" / name).rglob("*"))
        assert files["used"] + files["left_out"] == found
        assert files["used"] > 20
        total += found
    assert total == 157


def test_what_pydicom_can_decode_is_decoded_with_the_same_values(real_images):
    compared = 0
    for row in csv.DictReader((real_images / "dicom" / "manifest.csv").open()):
        if row["pixel"] != "ok" or row["NumberOfFrames"] not in ("", "1") or row["read"] != "ok":
            continue
        found = examine(str(real_images / "dicom" / row["path"]), anonymous=True)
        if isinstance(found, Instance):
            compared += 1
            if row["Modality"] not in ("US", "OT", "") and row["PhotometricInterpretation"] == "MONOCHROME2":
                slope, intercept = float(row["RescaleSlope"] or 1), float(row["RescaleIntercept"] or 0)
                assert found.maximum == pytest.approx(slope * float(row["max"]) + intercept, rel=1e-3)
        else:
            assert row["Modality"] in ("RTDOSE", "SEG") or "RT Dose" in getattr(found, "reason", "")
    assert compared > 80


def test_contours_are_left_out_with_the_reason(site, real_images):
    registry = Registry(site)
    registry.add("ct", real_images / "dicom" / "rt_utils")
    left_out = registry.left_out("ct")
    assert sum("RT structure set" in one.reason for one in left_out) == 4
    files = registry.summary("ct")["files"]
    assert files["used"] + files["left_out"] == 10


def manifest(path, header, rows):
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(rows)
    return path


def test_hippocampus_volumes_go_through_with_their_labels(site, real_images, tmp_path):
    names = [row["file"] for row in csv.DictReader((real_images / "hippocampus" / "index.csv").open())]
    folder = real_images / "hippocampus"
    rows = [(name, folder / "images" / name, folder / "labels" / name) for name in names[:40]]
    registry = Registry(site)
    registry.add("hippocampus", manifest(tmp_path / "m.csv", ["patient", "image", "mask"], rows))
    assert registry.summary("hippocampus")["files"] == {"used": 80, "left_out": 0}
    job = Job.from_dict(
        {
            "name": "hippocampus",
            "task": "segmentation",
            "classes": ["background", "anterior", "posterior"],
            "images": {"size": [40, 56, 40], "spacing": [1, 1, 1]},
            "network": {"name": "UNet"},
            "privacy": {"mode": "none"},
        }
    )
    assert registry.select(job) == "hippocampus"
    cohort = Cohort(site, "hippocampus", job, "test")
    item = registry.items("hippocampus", "test")[0]
    image, target = cohort.load(cohort.patients.index(item.patient), 0)
    stored = np.asarray(nibabel.load(item.masks[0]).dataobj).round()
    for index in (1, 2):
        # Cropped and padded around the centre at the same spacing: no voxel of the small structure is lost.
        assert int((target == index).sum()) == int((stored == index).sum())
    assert float(image.std()) > 0.5


def test_dermatoscopy_is_split_by_lesion(site, real_images, tmp_path):
    folder = real_images / "ham10000"
    rows = list(csv.DictReader((folder / "index.csv").open()))
    chosen = [row for row in rows if row["site"] == "vienna_modern"][:400]
    lines = [
        (
            row["lesion_id"],
            folder / "images" / f"{row['image_id']}.jpg",
            folder / "masks" / f"{row['image_id']}.png",
            "malignant" if row["malignant"] == "1" else "benign",
        )
        for row in chosen
    ]
    registry = Registry(site)
    registry.add("skin", manifest(tmp_path / "m.csv", ["patient", "image", "mask", "label"], lines))
    summary = registry.summary("skin")
    assert summary["files"] == {"used": 800, "left_out": 0}
    assert summary["patients"] == len({row["lesion_id"] for row in chosen}) < 400
    for task, classes in (("segmentation", ["background", "lesion"]), ("classification", ["benign", "malignant"])):
        job = Job.from_dict(
            {
                "name": "skin",
                "task": task,
                "classes": classes,
                "images": {"size": [96, 128], "channels": 3},
                "network": {"name": "UNet"},
                "privacy": {"mode": "none"},
            }
        )
        assert registry.select(job) == "skin"
        image, _ = Cohort(site, "skin", job, "train").load(0, 0)
        assert tuple(image.shape) == (3, 96, 128)


def test_a_real_volume_is_turned_as_nibabel_turns_it(site, real_images):
    registry = Registry(site)
    registry.add("mr", real_images / "dicom" / "mr_brain_t2")
    (item,) = registry.items("mr")
    array, affine = images.read(item)
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(array, affine))
    size = canonical.shape
    job_images = Job.from_dict(
        {
            "name": "mr",
            "task": "segmentation",
            "classes": ["a", "b"],
            "images": {"size": list(size)},
            "network": {"name": "UNet"},
            "privacy": {"mode": "none"},
        }
    ).images
    ours = Preprocessing(job_images).image(array, affine)[0].numpy()
    theirs = canonical.get_fdata()
    np.testing.assert_allclose(ours, (theirs - theirs.mean()) / theirs.std(), atol=1e-3)
    assert Preprocessing(job_images).spacing_after(affine, array.shape) == pytest.approx(
        (0.6875, 0.6875, 6.5), abs=1e-3
    )
