"""`insitu-client jobs`, `show`, `approve`, `revoke`: the operator's word on what is trained here."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from client.jobs.inbox import Entry, Inbox, Note
from client.site import Site
from shared import console
from shared.console import Home, Json, when
from shared.job import Job

JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="Its name, or the beginning of its digest, as `insitu-client jobs` says; or its file, a job.toml.",
    ),
]
_Reason = Annotated[str, typer.Option(help="Who decided it, and why; the record keeps it.", metavar="TEXT")]
_WIDTH = 110


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("jobs")(jobs)
    app.command("show")(show)
    app.command("approve")(approve)
    app.command("revoke")(revoke)


def jobs(home: Home, as_json: Json = False) -> None:
    """List the jobs that were offered to this site, and how each stands."""
    rows = [_row(entry) for entry in Inbox(Site.open(home)).entries()]
    columns = {"job": "job", "digest": "digest", "state": "state", "privacy": "ε", "rounds": "rounds", "runs": "runs"}
    columns |= {"offered": "first offered", "answer": "last answer"}
    shown = rows if as_json else [{**row, "digest": row["digest"][:12]} for row in rows]
    console.listing(shown, columns, as_json=as_json, empty="no job was offered yet")


def show(job: JobArgument, home: Home, as_json: Json = False) -> None:
    """Explain a job: what is trained, on whom, what it costs, what leaves and how often."""
    entry = _find(Inbox(Site.open(home)), job)
    from client import opened
    from client.jobs.explanation import explain, sentences

    facts = explain(opened.at(home), entry)
    if as_json:
        console.dump({**facts, "offered": _when(entry)})
        return
    for sentence in sentences(facts):
        print(textwrap.fill(sentence, _WIDTH, subsequent_indent="  "))
    if entry.state in ("pending", "revoked"):
        console.say(f"insitu-client approve {entry.job.digest[:12]} --home {home} says yes")


def approve(
    job: JobArgument,
    home: Home,
    runs: Annotated[int, typer.Option(help="To how many runs of it, from now on.", min=1)] = 1,
    reason: _Reason = "",
) -> None:
    """Say yes to a job: to this one, as its digest says it, and to so many runs of it."""
    site = Site.open(home)
    inbox = Inbox(site)
    entry = _find(inbox, job)
    inbox.approve(entry.job, runs=runs, reason=reason, note=_recording(site, "approved", entry, reason))
    console.say(f"approved: {entry.job.name} ({entry.job.digest[:12]}), {runs} {'run' if runs == 1 else 'runs'}")


def revoke(job: JobArgument, home: Home, reason: _Reason = "") -> None:
    """Say no to a job: what it is doing here stops within the step, and it is refused until you say yes."""
    site = Site.open(home)
    inbox = Inbox(site)
    entry = _find(inbox, job)
    inbox.revoke(entry.job, reason=reason, note=_recording(site, "revoked", entry, reason))
    console.say(f"revoked: {entry.job.name} ({entry.job.digest[:12]})")


def _find(inbox: Inbox, text: str) -> Entry:
    """A job that was offered, or the one that a file declares."""
    return inbox.of(Job.load(Path(text))) if text.endswith(".toml") else inbox.find(text)


def _when(entry: Entry) -> str | None:
    return None if entry.offered is None else when(entry.offered)


def _recording(site: Site, what: str, entry: Entry, reason: str) -> Note:
    from client.audit import Decided, Record

    def note(by: str) -> None:
        Record(site).append(Decided(what=what, job=entry.job.digest, name=entry.job.name, by=by, reason=reason.strip()))

    return note


def _row(entry: Entry) -> dict[str, Any]:
    job = entry.job
    return {
        "job": job.name,
        "digest": job.digest,
        "task": job.task,
        "state": entry.state,
        "privacy": job.privacy.epsilon if job.private else "none",
        "rounds": job.federation.rounds,
        "runs": len(entry.runs),
        "runs_left": max(0, entry.left),
        "offered": _when(entry),
        "by": entry.by,
        "reason": entry.reason,
        "answer": entry.code,
        "detail": entry.detail,
    }
