"""Example pictures: what is outlined is where it is."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from client.data.loading import Cohort
from client.data.registry import Registry
from client.site import Site, SiteConfig
from shared.job import Job
from simulations import overlays


class Threshold(nn.Module):
    """A network of one weight: bright is foreground."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.level - images[:, :1], images[:, :1] - self.level], dim=1)


def cohort(job: Job, data: Path, home: Path) -> Cohort:
    site = Site.create(home, SiteConfig(name="north"), secret=bytes(32))
    Registry(site).add("data", data)
    return Cohort(site, "data", job, "test")


def opened(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def coloured(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where the picture (without its strip of labels) has about this colour."""
    body = picture[: picture.shape[0] - 30]
    return np.argwhere(np.abs(body - np.array(colour)).sum(axis=-1) < 90)


@pytest.fixture
def volumes(tmp_path) -> Path:
    """Ten patients, each a volume of 24 × 32 × 8 voxels of 2 × 1 × 3 mm that is bright at the right and in front."""
    folder = tmp_path / "volumes"
    folder.mkdir()
    lesion = np.zeros((24, 32, 8), np.uint8)
    lesion[16:22, 24:30, 2:6] = 1
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    with (folder / "manifest.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["patient", "image", "mask", "split"])
        for number in range(10):
            noise = np.random.default_rng(number).normal(0, 10, lesion.shape)
            nibabel.save(
                nibabel.Nifti1Image((100 * lesion + noise).astype(np.float32), affine), folder / f"{number}.nii"
            )
            nibabel.save(nibabel.Nifti1Image(lesion, affine), folder / f"{number}-mask.nii")
            rows.writerow([f"patient-{number}", f"{number}.nii", f"{number}-mask.nii", "test"])
    return folder


def test_flat_images_are_outlined_where_truth_and_model_are(job, hospitals, tmp_path):
    pictures = overlays.examples(cohort(job, hospitals / "south", tmp_path / "home"), Threshold(0.5), count=3)
    assert len(pictures) == 3
    for png in pictures:
        picture = opened(png)
        assert min(picture.shape[:2]) >= 320
        truth, model = coloured(picture, overlays.TRUTH), coloured(picture, overlays.MODEL)
        assert len(truth) > 50
        assert len(model) > 50
        assert np.abs(truth.mean(axis=0) - model.mean(axis=0)).max() < 40, "the outlines are of different places"


def test_a_volume_is_shown_from_the_feet_the_patients_right_at_the_left(job, volumes, tmp_path):
    data = {**job.model_dump(mode="json", exclude_none=True), "images": {"size": [24, 32, 8]}}
    network = Threshold(3.0).train()
    [picture] = [
        opened(png)
        for png in overlays.examples(cohort(Job.from_dict(data), volumes, tmp_path / "home"), network, count=1)
    ]
    assert network.training
    height, width = picture.shape[0] - 30, picture.shape[1]
    assert width / height == pytest.approx(24 * 2.0 / (32 * 1.0), rel=0.02), "millimetres, not voxels"
    for colour in (overlays.TRUTH, overlays.MODEL):
        rows, columns = coloured(picture, colour).mean(axis=0)
        assert rows == pytest.approx((32 - 27) / 32 * height, abs=0.06 * height)
        assert columns == pytest.approx((24 - 19) / 24 * width, abs=0.06 * width)


def test_a_patient_with_nothing_to_find_is_passed_over(job, tmp_path):
    copy = tmp_path / "data"
    copy.mkdir()
    rows = []
    for number in range(4):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (16, 16), np.uint8)).save(copy / f"{number}.png")
        mask = np.zeros((16, 16), np.uint8)
        if number == 3:
            mask[4:9, 4:9] = 255
        Image.fromarray(mask).save(copy / f"{number}-mask.png")
        rows.append(f"p{number},{number}.png,{number}-mask.png,test")
    (copy / "manifest.csv").write_text("patient,image,mask,split\n" + "\n".join(rows) + "\n")
    assert len(overlays.examples(cohort(job, copy, tmp_path / "home"), Threshold(0.5), count=2)) == 1
