"""insitu-server: the coordinator's side."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from server.enrolment import cli as enrolment
from server.home import DEFAULT_PORT, Home, ServerConfig
from server.store import ACCEPTED, ENDED, RunRow, Store
from shared import accounting, console
from shared.errors import BadInput, InsituError
from shared.job import Job

if TYPE_CHECKING:
    from rich.progress import Progress

app = console.app("The coordinator: admits hospitals, and conducts what they train together.")

Run = Annotated[str, typer.Argument(help="A run, as `insitu-server runs` lists it.")]

_LOOK_EVERY_SECONDS = 0.2


@app.command()
def init(
    home: console.Home,
    host: Annotated[str, typer.Option(help="The name or address by which the sites reach this machine.")],
    port: Annotated[int, typer.Option(help="The port for the sites.", min=0, max=65535)] = DEFAULT_PORT,
) -> None:
    """Make a coordinator's home: certificates, keys, configuration."""
    made = Home.create(home, ServerConfig(host=host, port=port))
    console.say(
        f"made {home}. `insitu-server start` it, and `insitu-server invite SITE --out TICKET` for every site; they "
        f"have to reach ports {port} and {made.config.enrols_at or 'another'} of {host}"
    )


@app.command()
def start(home: console.Home) -> None:
    """Run the coordinator in the foreground, until it is told to stop."""
    opened = Home.open(home)
    from server import coordinator

    coordinator.run(opened)


enrolment.add_to(app)


@app.command()
def submit(
    job_file: Annotated[Path, typer.Argument(metavar="JOB", help="A job.toml.")],
    home: console.Home,
    follow: Annotated[bool, typer.Option("--follow", help="Show the rounds until the run has ended.")] = False,
    as_json: console.Json = False,
) -> None:
    """Submit a job: the coordinator starts a run of it."""
    opened = Home.open(home)
    job = Job.load(job_file)
    running = opened.running() is not None
    if follow and not running:
        raise InsituError(f"no coordinator runs on {home}: `insitu-server start` it, or submit without --follow")
    _check(job, opened.store, job_file)
    run = opened.store.create_run(job)
    if not running:
        console.say("no coordinator runs on this home: the run begins when one is started")
    if not follow:
        if as_json:
            console.dump({"run": run, "digest": job.digest})
        else:
            print(run)
        return
    console.say(f"{run}: submitted")
    row = _follow(opened, run)
    _show(opened.store, row, as_json=as_json)
    if row.status != "completed":
        raise InsituError(f"{run}: {row.status}: {row.message}")


def _check(job: Job, store: Store, file: Path) -> None:
    from server import submission

    submission.check(job, file=file)
    admitted = len(store.sites.admitted())
    if admitted < job.federation.min_sites:
        raise BadInput(
            f"[federation] min_sites: got {job.federation.min_sites}, but {admitted} sites are admitted", file=file
        )


def _follow(home: Home, run: str) -> RunRow:
    """Show progress until the run has ended."""
    store = home.store
    with console.progress() as progress:
        bar = progress.add_task(f"{run}: waiting for the sites", total=store.run(run).job.federation.rounds)
        while True:
            row = store.run(run)
            _advance(progress, bar, store, row)
            if row.status in ENDED:
                return row
            if home.running() is None:
                raise InsituError(f"the coordinator was stopped while {run} was {row.status}")
            time.sleep(_LOOK_EVERY_SECONDS)


def _advance(progress: Progress, bar: Any, store: Store, row: RunRow) -> None:
    rounds = store.rounds(row.id)
    if not rounds:
        waiting = [f"{site} {one['standing']}" for site, one in store.standings(row.id).items()]
        if row.message or waiting:
            progress.update(bar, description=f"{row.id}: {row.message or ', '.join(waiting)}")
        return
    last = rounds[-1]
    missing = f", without {', '.join(last.missing)}" if last.missing else ""
    progress.update(
        bar,
        completed=last.round,
        description=f"{row.id}: round {last.round}, {len(last.contributed)} sites{missing}",
    )


@app.command()
def runs(home: console.Home, as_json: console.Json = False) -> None:
    """List the runs, the newest first."""
    store = Home.open(home).store
    rows = [_facts(row) | {"rounds": len(store.rounds(row.id))} for row in store.runs()]
    columns = {"run": "run", "status": "status", "rounds": "rounds", "submitted": "submitted", "message": "message"}
    console.listing(rows, columns, as_json=as_json, empty="no runs; `insitu-server submit JOB`")


@app.command()
def show(run: Run, home: console.Home, as_json: console.Json = False) -> None:
    """Show a run: its rounds, and what the sites said of its models."""
    store = Home.open(home).store
    _show(store, store.run(run), as_json=as_json)


@app.command()
def receipts(
    run: Run,
    home: console.Home,
    out: Annotated[Path | None, typer.Option(help="Write them there, for a hospital to check.", metavar="FILE")] = None,
    as_json: console.Json = False,
) -> None:
    """Who contributed what to each round of a run, signed: `insitu-client audit check` holds it against a record."""
    from server.receipts import NAME, read

    store = Home.open(home).store
    folder = store.folder(store.run(run).id)
    lines = read(folder)
    if out is not None:
        out.write_bytes((folder / NAME).read_bytes() if lines else b"")
        console.say(f"wrote {out}: {len(lines)} rounds")
        return
    if as_json:
        console.dump([line.model_dump(mode="json") for line in lines])
        return
    rows = [
        {
            "round": line.receipt.round,
            "site": site,
            "standing": line.receipt.missing.get(site, "contributed"),
            "weight": one.weight if (one := line.receipt.contributed.get(site)) else None,
            "digest": one.content[:12] if one else None,
        }
        for line in lines
        for site in sorted({*line.receipt.contributed, *line.receipt.missing})
    ]
    columns = {"round": "round", "site": "site", "standing": "standing", "weight": "weight", "digest": "digest"}
    console.listing(rows, columns, empty=f"{run}: no round yet")


@app.command()
def stop(
    run: Run,
    home: console.Home,
    reason: Annotated[str, typer.Option(help="Why; `runs` shows it.", metavar="TEXT")] = "",
) -> None:
    """Stop a run for good; its models up to the last round stay, and what the sites have spent stays spent."""
    opened = Home.open(home)
    before = opened.store.run(run).status
    if before in ENDED:
        raise BadInput(f"{run} has ended already: {before}")
    status = opened.store.stop(run, reason)
    running = opened.running() is not None
    console.say(f"{run}: {status}" + ("" if running or status == "stopped" else "; no coordinator runs on this home"))


def _facts(row: RunRow) -> dict[str, Any]:
    return {
        "run": row.id,
        "job": row.job.name,
        "digest": row.digest,
        "status": row.status,
        "message": row.message,
        "submitted": row.submitted,
        "ended": row.ended,
    }


def _members(store: Store, row: RunRow) -> list[str]:
    return [site for site, one in store.standings(row.id).items() if one["standing"] == ACCEPTED]


def _show(store: Store, row: RunRow, *, as_json: bool) -> None:
    rounds = store.rounds(row.id)
    figures = store.figures(row.id)
    model = store.folder(row.id) / "model.safetensors"
    if as_json:
        console.dump(
            {
                **_facts(row),
                "model": str(model) if model.exists() else None,
                "rounds": [
                    {
                        "round": entry.round,
                        "seconds": entry.seconds,
                        "contributed": entry.contributed,
                        "missing": entry.missing,
                        "sites": entry.numbers,
                        "model": entry.model,
                    }
                    for entry in rounds
                ],
                "sites": figures,
                "standings": store.standings(row.id),
            }
        )
        return
    main = "dice" if row.job.task == "segmentation" else "auroc"
    lines = [
        {
            "round": str(entry.round),
            "seconds": entry.seconds,
            "sites": entry.contributed,
            "missing": [f"{site} ({code})" for site, code in entry.missing.items()],
            main: [f"{site} {numbers[main]:.3f}" for site, numbers in entry.numbers.items() if main in numbers],
        }
        for entry in rounds
    ]
    if figures:
        final = [f"{site} {numbers[main]:.3f}" for site, numbers in figures.items() if main in numbers]
        silent = [f"{site} (no figures)" for site, numbers in figures.items() if main not in numbers]
        silent += [f"{site} (no answer)" for site in _members(store, row) if site not in figures]
        lines.append({"round": "final", "sites": list(figures), "missing": silent, main: final})
    columns = {"round": "round", "seconds": "seconds", "sites": "sites", "missing": "missing", main: main}
    apart = [{"site": site, **one} for site, one in store.standings(row.id).items() if one["standing"] != ACCEPTED]
    if apart:
        console.listing(apart, {"site": "site", "standing": "takes no part", "since": "since"})
    console.listing(lines, columns, title=f"{row.id}: {row.status}", empty=f"{row.id}: {row.status}, no rounds")
    if row.message:
        console.say(row.message)
    if figures and row.job.private:
        privacy = row.job.privacy
        console.say(f"what the sites say is noised: ε = {privacy.epsilon:g}, δ = {privacy.delta:g}. {accounting.CLAIM}")
    if model.exists():
        console.say(f"the model is {model}")


def main() -> NoReturn:
    """Entry point."""
    console.run(app)


if __name__ == "__main__":
    main()
