"""One study: a job over virtual hospitals, its arms, and everything it leaves in OUT."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from client.data.registry import Registry
from client.site import Site
from shared.errors import BadInput, Refused
from shared.job import Job
from simulations import results
from simulations.compare import FEDERATED, PRIVATE, Comparison
from simulations.engine import Engine


def run(
    job: Job,
    sites: Mapping[str, Site],
    out: Path,
    *,
    engine: Engine,
    arms: Sequence[str],
    progress: Progress,
    started: float,
) -> dict[str, Any]:
    """Train, evaluate, write OUT.

    Args:
        job: what is trained; its own arm is always among the arms.
        sites: the virtual hospitals.
        out: an existing folder.
        engine: see `simulations.engine`.
        arms: others to compare to, from `compare.ARMS`; none for the job alone.
        progress: shows a bar an arm.
        started: `time.monotonic()` of the beginning.

    Returns:
        What `summary.json` holds.

    Raises:
        BadInput: if the hospitals' data does not fit the job.
        InsituError: if a run fails.
    """
    fits(job, sites)
    own = PRIVATE if job.private else FEDERATED
    trained = Comparison(job, sites, out, engine=engine, progress=progress).arms([*arms, own])
    task = progress.add_task("evaluating and writing the report", total=None)
    summary = results.summarise(trained[own], sites, engine=engine, arms=trained if arms else {})
    summary["seconds"] = round(time.monotonic() - started, 2)
    results.write(out, summary, trained[own], sites)
    progress.update(task, total=1, completed=1)
    return summary


def fits(job: Job, sites: Mapping[str, Site]) -> None:
    """Whether every site's data fits the job.

    Raises:
        BadInput: naming the site and what does not fit.
    """
    for name, site in sites.items():
        try:
            Registry(site).select(job)
        except Refused as refusal:
            raise BadInput(refusal.detail or str(refusal), file=name) from None
