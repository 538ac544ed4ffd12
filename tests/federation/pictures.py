"""A hospital's worth of small pictures: bright discs on a noisy ground, a manifest beside them, and a job for them."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from client.data.registry import Registry
from client.site import DatasetRules, Site
from shared.job import Job

JOB = Job.from_dict(
    {
        "name": "discs",
        "task": "segmentation",
        "classes": ["background", "disc"],
        "images": {"size": [16, 16]},
        "network": {"name": "UNet", "channels": [4, 8], "strides": [2]},
        "training": {"local_steps": 1, "batch_size": 8},
        "privacy": {"epsilon": 2.0, "delta": 1e-4, "sample_rate": 0.2},
        "federation": {"rounds": 3, "min_sites": 2},
    }
)


def write(folder: Path, *, patients: int, brightness: float, seed: int) -> Path:
    """Write them; the manifest."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:16, :16]
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "image", "mask"])
        for patient in range(patients):
            centre = rng.uniform(5, 11, 2)
            disc = np.hypot(rows - centre[0], columns - centre[1]) < rng.uniform(3, 5)
            pixels = np.clip(rng.normal(60, 12, (16, 16)) + brightness * disc, 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{patient}.png")
            Image.fromarray(np.where(disc, 255, 0).astype(np.uint8)).save(folder / f"{patient}-mask.png")
            writer.writerow([f"patient-{patient}", f"{patient}.png", f"{patient}-mask.png"])
    return manifest


def give(site: Site, *, patients: int = 60, epsilon: float = 10.0) -> None:
    """Register pictures at a site, as its dataset `discs` with this budget."""
    rules = DatasetRules(epsilon=epsilon, delta=1e-4)
    site.config = site.config.model_copy(update={"datasets": {"discs": rules}})
    site.write_config()
    manifest = write(site.home.parent / "data" / site.name, patients=patients, brightness=90, seed=1)
    Registry(site).add("discs", manifest)
