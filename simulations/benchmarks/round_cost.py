"""What the federation itself costs a round: a job that trains nothing and says nothing, over every engine."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from client.site import Site
from shared import console
from shared.job import Job
from simulations import hospitals
from simulations.engine import Engine, simulate

_PATIENTS = 10
_FEW, _MANY = 3, 50
_ROUNDS = {"process": 20, "ray": 20, "processes": 20}
_JOB = {
    "name": "nothing",
    "task": "segmentation",
    "classes": ["background", "lesion"],
    "images": {"size": [16, 16]},
    "network": {"name": "UNet", "channels": [4, 8], "strides": [2]},
    "training": {"local_steps": 0},
    "privacy": {"mode": "none"},
    "federation": {"evaluate_every": 0, "evaluate_at_end": False},
}


def measure() -> dict[str, Any]:
    """Seconds a round (median) and of the first round, from the start of the engine, for three sites; and 50 × 5."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        _write(home / "data", _MANY)
        with console.progress() as progress:
            sites = hospitals.admit(home / "data", home / "sites", progress=progress)
        few = dict(list(sites.items())[:_FEW])
        simulate(_job(1), few, home / "warm-up")
        rows = [_row(engine, few, home / engine) for engine in ("process", "ray", "processes")]
        started = time.perf_counter()
        simulate(_job(5), sites, home / "many")
        many = time.perf_counter() - started
    rows.append({"engine": "process", "sites": _MANY, "rounds": 5, "total_seconds": many})
    by_engine = {row["engine"]: row for row in rows[:3]}
    return {
        "rows": rows,
        "in_process_seconds_per_round": by_engine["process"]["seconds_per_round"],
        "ray_seconds_per_round": by_engine["ray"]["seconds_per_round"],
        "processes_seconds_per_round": by_engine["processes"]["seconds_per_round"],
        "processes_first_round_seconds": by_engine["processes"]["first_round_seconds"],
        "in_process_50_sites_5_rounds_seconds": many,
    }


def _row(engine: Engine, sites: dict[str, Site], home: Path) -> dict[str, Any]:
    rounds = _ROUNDS[engine]
    started = time.perf_counter()
    finished = simulate(_job(rounds), sites, home, engine=engine)
    total = time.perf_counter() - started
    seconds = [row.seconds for row in finished.rounds]
    return {
        "engine": engine,
        "sites": len(sites),
        "rounds": rounds,
        "seconds_per_round": median(seconds[1:]),
        "first_round_seconds": finished.first_round_seconds,
        "total_seconds": total,
    }


def _job(rounds: int) -> Job:
    return Job.from_dict(_JOB).varied(federation={"rounds": rounds})


def _write(data: Path, count: int) -> None:
    """Hospitals with a few tiny pictures."""
    source = np.random.default_rng(0)
    for number in range(count):
        folder = data / f"site-{number:02d}"
        folder.mkdir(parents=True)
        with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["patient", "image", "mask"])
            for patient in range(_PATIENTS):
                pixels = source.integers(0, 255, (16, 16), np.uint8)
                Image.fromarray(pixels).save(folder / f"{patient}.png")
                Image.fromarray(np.where(pixels > 127, 255, 0).astype(np.uint8)).save(folder / f"{patient}-mask.png")
                writer.writerow([f"patient-{patient}", f"{patient}.png", f"{patient}-mask.png"])
