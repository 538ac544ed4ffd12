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
from client.ledger import Ledger
from client.site import Site
from server import report
from server.observers.checkpoint import FINAL, of_round
from server.store import Store
from shared import accounting, arrays, networks, tasks
from shared.arrays import write_atomically
from shared.job import Job
from simulations import figures, overlays
from simulations.compare import Arm
from simulations.hospitals import DATASET

_LIBRARIES = ("insitu", "flwr", "torch", "monai", "opacus", "pydicom")


def summarise(
    job: Job, run: str, sites: Mapping[str, Site], store: Store, *, engine: str, seconds: float, arms: Mapping[str, Arm]
) -> dict[str, Any]:
    """The summary of one run over these sites, with the arms it was compared to, if any."""
    folder = store.folder(run)
    main = tasks.of(job).main
    before = figures.exact(job, arrays.load(of_round(folder, 0)), sites, split="test")
    after = figures.exact(job, arrays.load(folder / FINAL), sites, split="test", full=True)
    summary = {
        "job": job.model_dump(mode="json", exclude_none=True),
        "digest": job.digest,
        "engine": engine,
        "algorithm": job.federation.algorithm,
        "seconds": round(seconds, 2),
        "versions": {name: version(name) for name in _LIBRARIES},
        "figures": "exact, computed outside the sites' door, as only a simulation may",
        "sites": {
            name: {
                "patients": figures.patients(job, site),
                "before": before[name],
                "after": after[name],
                "privacy": _privacy(job, run, site),
            }
            for name, site in sites.items()
        },
        "mean": figures.mean(after.values()),
        "worst": figures.worst(after.values(), main),
        "rounds": _rounds(job, run, sites, store),
    }
    if arms:
        summary["arms"] = {name: arm.as_row() for name, arm in arms.items()}
    return summary


def _rounds(job: Job, run: str, sites: Mapping[str, Site], store: Store) -> list[dict[str, Any]]:
    """Every round with the validation figure of its model at each site."""
    folder = store.folder(run)
    return [
        {
            "round": row.round,
            "seconds": round(row.seconds, 3),
            "contributed": list(row.contributed),
            "missing": dict(row.missing),
            "sites": figures.exact(job, arrays.load(of_round(folder, row.round)), sites, split="validation"),
        }
        for row in store.rounds(run)
    ]


def _privacy(job: Job, run: str, site: Site) -> dict[str, float] | None:
    """What this run has spent here, composed from the site's own ledger."""
    if not job.private:
        return None
    history = Ledger(site).history(DATASET, job=job.digest, run=run)
    delta = float(job.privacy.delta or 0)
    return {
        "epsilon": accounting.epsilon(history, delta=delta),
        "delta": delta,
        "noise_multiplier": history[0][0] if history else accounting.noise_for(job),
        "sample_rate": float(job.privacy.sample_rate or 0),
        "steps": sum(steps for _, _, steps in history),
    }


def write(out: Path, summary: Mapping[str, Any], job: Job, run: str, sites: Mapping[str, Site], store: Store) -> None:
    """Write everything into OUT."""
    model = arrays.load(store.folder(run) / FINAL)
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
