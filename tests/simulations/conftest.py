"""Small hospitals of pictures: bright discs on a noisy ground, darker or brighter by hospital."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_hospital(folder: Path, *, patients: int, brightness: float, seed: int) -> None:
    """Pictures with masks of a disc, and a manifest beside them."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:16, :16]
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "image", "mask"])
        for patient in range(patients):
            centre = rng.uniform(5, 11, 2)
            disc = np.hypot(rows - centre[0], columns - centre[1]) < rng.uniform(3, 5)
            pixels = np.clip(rng.normal(60, 12, (16, 16)) + brightness * disc, 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{patient}.png")
            Image.fromarray(np.where(disc, 255, 0).astype(np.uint8)).save(folder / f"{patient}-mask.png")
            writer.writerow([f"patient-{patient}", f"{patient}.png", f"{patient}-mask.png"])


@pytest.fixture(scope="session")
def hospitals(tmp_path_factory) -> Path:
    """DATA with three hospitals."""
    data = tmp_path_factory.mktemp("data")
    for number, (name, brightness) in enumerate({"east": 60, "north": 90, "south": 120}.items()):
        write_hospital(data / name, patients=40, brightness=brightness, seed=number)
    return data
