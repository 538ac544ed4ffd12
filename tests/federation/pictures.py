"""A hospital's worth of small pictures: bright discs on a noisy ground, and a manifest beside them."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image


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
