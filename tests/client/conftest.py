"""Cohorts in memory, and a hospital of small pictures; `asking` can be imported by its name."""

import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from client import training
from client.data.registry import Registry
from client.site import Approval, DatasetRules, Policy, Site, SiteConfig
from shared.job import Job

sys.path.insert(0, str(Path(__file__).parent))


class Pictures:
    """A cohort over tensors: a list of images for each patient, with a disc each, and its mask or class."""

    def __init__(self, counts: Sequence[int], job: Job, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        size, self.job = job.images.size, job
        rows, columns = torch.meshgrid(*[torch.arange(float(n)) for n in size], indexing="ij")
        self.patients = [f"{number:032x}" for number in range(len(counts))]
        self.data: list[list[tuple[Tensor, Tensor]]] = []
        for count in counts:
            pairs = []
            for _ in range(count):
                centre = torch.rand(2, generator=random) * torch.tensor(size)
                disc = torch.hypot(rows - centre[0], columns - centre[1]) < min(size) / 4
                image = torch.randn((job.images.channels, *size), generator=random) * 0.3 + disc
                mask = disc[None].long() if job.task == "segmentation" else disc.any().long()
                pairs.append((image, mask))
            self.data.append(pairs)

    def __len__(self) -> int:
        return len(self.data)

    def images(self, i: int) -> int:
        return len(self.data[i])

    def load(self, i: int, j: int) -> tuple[Tensor, Tensor]:
        return self.data[i][j]

    def spacing(self, i: int, j: int) -> tuple[float, ...] | None:
        return None


@pytest.fixture
def pictures(job: Job) -> Callable[..., Pictures]:
    """Makes a cohort in memory: `pictures([1, 1, 40])` has three patients, one with forty images."""
    return lambda counts, of=job, seed=0: Pictures(counts, of, seed)


def write_pictures(folder: Path, patients: int, images: int = 1) -> Path:
    """A manifest over PNG pictures with masks; patients are called `patient-<number>`."""
    random = np.random.default_rng(7)
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:16, :16]
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "image", "mask"])
        for number in range(patients * images):
            centre = random.uniform(5, 11, 2)
            disc = np.hypot(rows - centre[0], columns - centre[1]) < random.uniform(3, 5)
            pixels = np.clip(random.normal(60, 12, (16, 16)) + 90 * disc, 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
            Image.fromarray(np.where(disc, 255, 0).astype(np.uint8)).save(folder / f"{number}-mask.png")
            writer.writerow([f"patient-{number // images}", f"{number}.png", f"{number}-mask.png"])
    return folder / "manifest.csv"


@pytest.fixture(scope="session")
def manifest(tmp_path_factory) -> Path:
    """Sixty patients with a picture each."""
    return write_pictures(tmp_path_factory.mktemp("pictures") / "hospital", patients=60)


@pytest.fixture
def hospital(tmp_path, manifest) -> Callable[..., Site]:
    """Makes a site with the pictures registered as `data`; its policy and the dataset's rules can be given.

    Every job is approved in advance, unless the site is made to `ask`.
    """

    def make(name: str = "north", *, rules: dict | None = None, ask: bool = False, **policy) -> Site:
        allowed = {"privacy_required": False, "min_sites": 1, "min_patients": 1, "threads": 1, **policy}
        config = SiteConfig(
            name=name,
            policy=Policy(**allowed),
            approve=() if ask else (Approval(),),
            datasets={"data": DatasetRules(**(rules or {}))},
        )
        site = Site.create(tmp_path / "homes" / name, config, secret=(name.encode() * 32)[:32])
        Registry(site).add("data", manifest)
        return site

    return make


@pytest.fixture
def nothing_is_trained(monkeypatch):
    """Fails the test if a gradient is about to be computed."""

    def train(*args, **kwargs):
        pytest.fail("training began")

    monkeypatch.setattr(training.private, "train", train)
    monkeypatch.setattr(training.plain, "train", train)
