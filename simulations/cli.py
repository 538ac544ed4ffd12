"""insitu-sim: virtual hospitals on one machine."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from shared import console
from shared.errors import BadInput, InsituError
from shared.job import Job

app = console.app("Virtual hospitals on one machine: the same code, nobody to bother.")

Out = Annotated[Path, typer.Option("--out", help="A folder that is empty or not there yet.")]
Data = Annotated[Path, typer.Option("--data", help="One folder a hospital: a manifest.csv, or a tree of DICOM.")]


class TaskName(StrEnum):
    """The tasks there are."""

    SEGMENTATION = "segmentation"
    CLASSIFICATION = "classification"


class EngineName(StrEnum):
    """How virtual hospitals run."""

    PROCESS = "process"
    RAY = "ray"


@app.command()
def demo(
    out: Out = Path("demo"),
    processes: Annotated[
        bool, typer.Option("--processes", help="Over a real coordinator and real daemons on loopback, TLS and all.")
    ] = False,
    as_json: console.Json = False,
) -> None:
    """The main job on three phantom hospitals: real DICOM, ε = 8 for each patient, and a report."""
    from simulations import demonstration

    _begin(out)
    summary = demonstration.demo(out, processes=processes)
    _finish(summary, out, as_json=as_json)


@app.command()
def phantoms(
    folder: Annotated[Path, typer.Argument(help="A folder that is empty or not there yet.")],
    sites: Annotated[int, typer.Option(min=1, max=200)] = 3,
    patients: Annotated[int, typer.Option(min=1, max=100_000, help="Of each hospital.")] = 40,
    task: TaskName = TaskName.SEGMENTATION,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write synthetic hospitals as DICOM, each with a scanner and a prevalence of its own."""
    from simulations import phantoms as synthetic

    _begin(folder)
    with console.progress() as progress:
        bar = progress.add_task("writing phantoms", total=sites * patients)
        written = synthetic.write(
            folder,
            sites=sites,
            patients=patients,
            task=task.value,
            seed=seed,
            progress=lambda: progress.advance(bar),
        )
    job_file = folder / "job.toml"
    job_file.write_text(synthetic.job(task.value, sites=sites).to_toml(), encoding="utf-8")
    console.say(f"{len(written)} hospitals in {folder}; a job for them in {job_file}")


@app.command()
def run(
    job: Annotated[Path, typer.Argument(help="A job.toml.")],
    data: Data,
    out: Out,
    engine: EngineName = EngineName.PROCESS,
    as_json: console.Json = False,
) -> None:
    """Run a job over virtual hospitals."""
    _compare(job, data, out, engine, (), as_json=as_json)


@app.command()
def compare(
    job: Annotated[Path, typer.Argument(help="A job.toml.")],
    data: Data,
    out: Out,
    engine: EngineName = EngineName.PROCESS,
    as_json: console.Json = False,
) -> None:
    """Run a job as each hospital alone, pooled, federated, and federated with privacy."""
    from simulations.compare import ARMS

    _compare(job, data, out, engine, ARMS, as_json=as_json)


@app.command()
def audit(
    job: Annotated[Path, typer.Argument(help="A job.toml.")],
    claim: Annotated[float | None, typer.Option(help="The ε to refute; the job's own without it.")] = None,
    canaries: Annotated[
        int, typer.Option(min=10, max=10_000, help="About a third of 1/δ of them show most, if that is not too many.")
    ] = 1000,
    confidence: Annotated[float, typer.Option(help="Above 0 and below 1.")] = 0.95,
    as_json: console.Json = False,
) -> None:
    """Try to refute a job's ε: canaries go through the real private training, and an observer guesses who was in."""
    from simulations.attacks import audit as auditing
    from simulations.attacks import table

    declared = Job.load(job)
    auditing.check(declared, file=job)
    with console.progress() as progress:
        bar = progress.add_task("training on canaries", total=declared.federation.rounds)
        found = auditing.run(
            declared,
            claim=claim,
            canaries=canaries,
            confidence=confidence,
            progress=lambda: progress.advance(bar),
        )
    table.show(found, name=declared.name, as_json=as_json)
    if found.refuted:
        raise InsituError(
            f"{job}: ε = {found.claim:g} is refuted: the training was seen to have an ε of {found.lower_bound:.2f} or "
            f"more, at {100 * confidence:g} % confidence (δ = {found.delta:g})"
        )


@app.command()
def networks(as_json: console.Json = False) -> None:
    """The networks there are."""
    from shared import networks as catalogue

    console.listing(catalogue.describe(), as_json=as_json, title="networks")


@app.command()
def algorithms(as_json: console.Json = False) -> None:
    """The federated algorithms there are."""
    from server import algorithms as catalogue

    console.listing(catalogue.describe(), as_json=as_json, title="algorithms")


@app.command()
def bench(
    name: Annotated[str | None, typer.Argument(help="One benchmark; all without a name.")] = None,
    as_json: console.Json = False,
) -> None:
    """Measure, side by side in one run."""
    from simulations import benchmarks

    results = benchmarks.run(name)
    if as_json:
        console.dump(results[name] if name else results)
        return
    for title, result in results.items():
        console.listing(result["rows"], title=title)


def _begin(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput("is not empty; choose a folder that is empty or not there yet", file=out)
    out.mkdir(parents=True, exist_ok=True)


def _compare(
    job_file: Path, data: Path, out: Path, engine: EngineName, arms: tuple[str, ...], *, as_json: bool
) -> None:
    from server import submission
    from simulations import hospitals, study

    job = Job.load(job_file)
    submission.check(job, file=job_file)
    hospitals.found(data)
    if out.resolve().is_relative_to(data.resolve()):
        raise BadInput(f"is inside {data}, where every folder is a hospital; choose another", file=out)
    _begin(out)
    with console.progress() as progress:
        started = time.monotonic()
        sites = hospitals.admit(data, out / "sites", progress=progress)
        summary = study.run(job, sites, out, engine=engine.value, arms=arms, progress=progress, started=started)
    _finish(summary, out, as_json=as_json)


def _finish(summary: dict[str, Any], out: Path, *, as_json: bool) -> None:
    from simulations import tables

    if as_json:
        console.dump(summary)
    else:
        tables.show(summary)
        console.say(f"summary.json, model.safetensors, events/ and report.html are in {out}")


def main() -> NoReturn:
    """Entry point."""
    console.run(app)
