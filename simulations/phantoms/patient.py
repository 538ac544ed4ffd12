"""One phantom patient from nothing to files; what the processes of `phantoms.write` run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simulations.phantoms import chest, dicom, dicom_ct, dicom_xray, hospitals, liver
from simulations.phantoms.abdomen import Abdomen

_GOLDEN = (5**0.5 - 1) / 2


def write(
    folder: Path, site: int, number: int, *, task: str, seed: int, size: tuple[int, ...]
) -> list[tuple[str, str]]:
    """Write patient `number` (from 1) of the hospital at place `site` (from 0) into the hospital's folder.

    Returns:
        (SeriesInstanceUID, label) of each image, where labels are not in the files themselves.
    """
    hospital = hospitals.hospital(site)
    patient = dicom.Patient(seed=seed, site=hospital.name, number=number)
    rng = np.random.default_rng([seed, site, number])
    ill = has_finding(hospital.prevalence, seed, site, number)
    if task == "segmentation":
        grid = hospital.ct.grid(size)
        body = Abdomen(rng, grid, hospital.ct.phase, hospital.ct.habitus)
        liver.add(body, with_lesions=ill)
        hu = hospital.ct.image(rng, body.hu, grid)
        dicom_ct.write_ct(folder / patient.id, patient, hospital.ct, grid, hu, body.labels)
        return []
    device = hospital.xray
    subject = chest.Chest.random(rng, device, with_effusion=ill)
    rows = []
    for study in range(1 + int(rng.random() < 0.25)):  # some come back for another image
        grey, spacing = chest.radiograph(subject, rng, device, size)
        uid = dicom_xray.write_radiograph(folder / patient.id, patient, device, grey, spacing, study)
        rows.append((str(uid), "effusion" if ill else "normal"))
    return rows


def has_finding(prevalence: float, seed: int, site: int, number: int) -> bool:
    """Whether this patient has the finding: evenly spread, so that any run of patients has the hospital's share."""
    start = np.random.default_rng([seed, site]).random()
    return (start + number * _GOLDEN) % 1 < prevalence
