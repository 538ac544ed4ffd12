"""What a simulation leaves in OUT: summary.json, model.safetensors, TensorBoard events, report.html.

`summary.json` holds exact figures, as a simulation may; see `simulations.figures`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from client.data.loading import Cohort
from client.data.registry import Registry
from client.ledger import Ledger
from client.site import Site
from server import report
from server.observers.checkpoint import FINAL
from shared import accounting, arrays, networks, tasks
from shared.arrays import write_atomically
from shared.job import Job
from simulations import figures, overlays
from simulations.compare import Arm
from simulations.hospitals import DATASET

_LIBRARIES = ("insitu", "flwr", "torch", "monai", "opacus", "pydicom")


def summarise(arm: Arm, sites: Mapping[str, Site], *, engine: str, arms: Mapping[str, Arm]) -> dict[str, Any]:
    """The summary of the job's own arm, with the arms it was compared to, if any; `seconds` is the caller's."""
    job = arm.job
    before = figures.exact(job, arm.finished.model(0), sites, split="test")
    summary = {
        "job": job.model_dump(mode="json", exclude_none=True),
        "digest": job.digest,
        "engine": engine,
        "algorithm": job.federation.algorithm,
        "seconds": 0.0,
        "versions": {name: version(name) for name in _LIBRARIES},
        "figures": "exact, computed outside the sites' door, as only a simulation may",
        "sites": {
            name: {
                "patients": figures.patients(job, site),
                "files": Registry(site).summary(DATASET)["files"],
                "before": before[name],
                "after": arm.figures[name],
                "privacy": _privacy(arm, site),
            }
            for name, site in sites.items()
        },
        **{key: value for key, value in arm.as_row().items() if key != "sites"},
        "rounds": _rounds(arm, sites),
    }
    if arms:
        summary["arms"] = {name: other.as_row() for name, other in arms.items()}
    return summary


def _rounds(arm: Arm, sites: Mapping[str, Site]) -> list[dict[str, Any]]:
    """Every round with the validation figures of its model at each site."""
    return [
        {
            "round": row.round,
            "seconds": round(row.seconds, 3),
            "contributed": list(row.contributed),
            "missing": dict(row.missing),
            "sites": figures.exact(arm.job, arm.finished.model(row.round), sites, split="validation"),
        }
        for row in arm.finished.rounds
    ]


def _privacy(arm: Arm, site: Site) -> dict[str, float] | None:
    """What this run has spent here, composed from the site's own ledger."""
    privacy = arm.job.privacy
    if not arm.job.private or privacy.delta is None or privacy.sample_rate is None:
        return None
    history = Ledger(site).history(DATASET, job=arm.job.digest, run=arm.finished.run)
    return {
        "epsilon": accounting.epsilon(history, delta=privacy.delta),
        "delta": privacy.delta,
        "noise_multiplier": accounting.noise_for(arm.job),
        "sample_rate": privacy.sample_rate,
        "steps": sum(steps for _, _, steps in history),
    }


def write(out: Path, summary: Mapping[str, Any], arm: Arm, sites: Mapping[str, Site]) -> None:
    """Write everything into OUT."""
    job, model = arm.job, arm.finished.model()
    arrays.save(out / FINAL, model, {"job": job.canonical(), "digest": job.digest})
    write_atomically(out / "summary.json", (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())
    _events(out / "events", summary, tasks.of(job).main)
    report.write(out / "report.html", dict(summary), _examples(job, model, sites))


def _examples(job: Job, model: arrays.Arrays, sites: Mapping[str, Site]) -> list[report.Overlay]:
    if job.task != "segmentation":
        return []
    network = networks.build(job)
    arrays.into_network(model, network)
    return [
        report.Overlay(site=name, title=f"example {number}", png=png)
        for name, site in sites.items()
        for number, png in enumerate(overlays.examples(Cohort(site, DATASET, job, "test"), network, count=2), start=1)
    ]


def _events(folder: Path, summary: Mapping[str, Any], main: str) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for row in summary["rounds"]:
            for site, numbers in row["sites"].items():
                if main in numbers:
                    writer.add_scalar(f"{main}/{site}", numbers[main], row["round"])
            mean = figures.mean(row["sites"].values())
            if main in mean:
                writer.add_scalar(f"{main}/mean", mean[main], row["round"])
            writer.add_scalar("round/seconds", row["seconds"], row["round"])
