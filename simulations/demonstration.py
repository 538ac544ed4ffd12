"""The main job, from nothing: three phantom hospitals as real DICOM, federated training with privacy, a report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from shared import console
from simulations import hospitals, phantoms, study
from simulations.compare import ALONE
from simulations.engine import Engine

SITES = 3
PATIENTS = 130  # of each hospital: few enough for a coffee, enough for privacy to leave something to learn


def demo(out: Path, *, processes: bool = False) -> dict[str, Any]:
    """Run the demonstration.

    Args:
        out: an existing, empty folder.
        processes: train over a real coordinator and real daemons on loopback instead of in this process.

    Returns:
        What `summary.json` holds.
    """
    job = phantoms.job("segmentation")
    data = out / "data"
    started = time.monotonic()
    with console.progress() as progress:
        bar = progress.add_task("writing phantom hospitals (DICOM)", total=SITES * PATIENTS)
        phantoms.write(
            data, sites=SITES, patients=PATIENTS, task="segmentation", progress=lambda: progress.advance(bar)
        )
        (out / "job.toml").write_text(job.to_toml(), encoding="utf-8")
        sites = hospitals.admit(data, out / "sites", progress=progress)
        engine: Engine = "processes" if processes else "process"
        return study.run(job, sites, out, engine=engine, arms=(ALONE,), progress=progress, started=started)
