"""`insitu-client audit`: what left, what was refused, what was decided; and the proof that it is all of it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from client.audit import overview
from client.audit.counts import in_words
from client.audit.entries import Head
from client.audit.findings import Findings
from client.audit.verification import verify as verified
from client.site import Site
from shared import console, identity
from shared.console import Home, Json
from shared.errors import BadInput, InsituError

app = console.app("The record: what left this hospital, what was refused, and who decided what.")


@app.callback(invoke_without_command=True, no_args_is_help=False)
def show(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option("--home", envvar="INSITU_HOME", help="The home folder.", show_default=False)
    ] = None,
    job: Annotated[str, typer.Option(help="Only this job: its name, or how its digest begins.")] = "",
    since: Annotated[str, typer.Option(help="Only from this day or time on: 2026-03-01, or with T14:30.")] = "",
    last: Annotated[int | None, typer.Option(help="Only the last so many.", min=1)] = None,
    as_json: Json = False,
) -> None:
    """Every entry of the record; `verify` proves that they are all, and as they were written."""
    if context.invoked_subcommand is not None:
        return
    if home is None:
        raise typer.BadParameter("missing; say which home, or set INSITU_HOME", param_hint="--home")
    earliest = parse_time(since) if since else 0.0
    findings = verified(Site.open(home))
    entries = overview.chosen(findings.entries, job=job, since=earliest, last=last)
    if as_json:
        console.dump(
            [{"number": one.line.number, **one.entry.model_dump(mode="json"), "link": one.line.link} for one in entries]
        )
    else:
        rows = [overview.row(one) for one in entries]
        filled = {key: head for key, head in overview.COLUMNS.items() if any(row[key] is not None for row in rows)}
        console.listing(rows, filled)
        for line in in_words(findings.pending):
            console.say(f"counted, and not yet an entry: {line}")
    if findings.faults:
        console.say(
            f"{_many(len(findings.faults), 'thing')} wrong with this record: `insitu-client audit verify` says what"
        )


@app.command()
def verify(
    home: Home,
    head: Annotated[str, typer.Option(help="A head that was noted earlier.", metavar="NUMBER:LINK")] = "",
    as_json: Json = False,
) -> None:
    """Prove that every entry is as it was written, in its order, and that none is missing; exits with 1 if not."""
    site = Site.open(home)
    findings = verified(site, earlier=parse_head(head) if head else None)
    if as_json:
        console.dump(_facts(findings))
    else:
        _say(findings)
    if findings.faults:
        raise typer.Exit(InsituError.exit_code)


@app.command()
def check(
    receipts: Annotated[Path, typer.Argument(help="What `insitu-server receipts RUN --out FILE` wrote.")],
    home: Home,
    as_json: Json = False,
) -> None:
    """Hold a coordinator's receipts of a run against the record; exits with 1 if they do not agree."""
    site = Site.open(home)
    from client.audit import comparison

    lines = comparison.read(receipts)
    if site.config.coordinator is None:
        raise BadInput("[coordinator] is missing, whose ca.pem says which signature is right", file=home / "site.toml")
    ca = identity.read_certificate(site.home / site.config.coordinator.ca)
    entries = [one.entry for one in verified(site).entries]
    compared = comparison.compare(lines, entries, site=site.name, ca=ca)
    if as_json:
        console.dump({"run": lines[0].receipt.run, "rounds": compared.rounds, "faults": compared.faults})
    else:
        columns = {"round": "round", "standing": "this site", "sites": "sites", "agrees": "as the record has it"}
        console.listing(compared.rounds, columns, title=lines[0].receipt.run)
        for fault in compared.faults:
            console.say(fault)
    if compared.faults:
        raise typer.Exit(InsituError.exit_code)


@app.command()
def export(
    home: Home,
    out: Annotated[Path, typer.Option(help="The file to write: .html or .csv.", metavar="FILE")],
) -> None:
    """Write the whole record, with its sums and its head, as a page or a table to keep."""
    site = Site.open(home)
    from client.audit import export as exporting

    findings = verified(site)
    exporting.write(out, site, findings)
    console.say(f"wrote {out}: {_many(len(findings.entries), 'entry', 'entries')}, head {findings.head}")
    if findings.faults:
        console.say(
            f"{_many(len(findings.faults), 'thing')} wrong with this record, which {out.name} says if it is a page"
        )


@app.command()
def accept(
    home: Home,
    reason: Annotated[str, typer.Option(help="Who decided it, and why; the record keeps it.", metavar="TEXT")],
) -> None:
    """Go on with a record that is not trusted: it is set aside, and another begins that says so."""
    if not reason.strip():
        raise BadInput("--reason: say who decided it, and why; the record keeps it")
    site = Site.open(home)
    from client.audit import renewal

    with site.claimed():
        head = renewal.accept(site, reason=reason)
    if head is None:
        console.say("nothing is wrong with this record: there is nothing to accept")
        return
    console.say(f"set aside what was there; a new record has begun with entry {head.number}, which says why")


def parse_head(text: str) -> Head:
    """A head as `verify` and an export say it.

    Raises:
        BadInput: if it is none.
    """
    number, _, link = text.strip().partition(":")
    try:
        return Head(number=int(number), link=link.strip().lower()) if link and int(number) else _no_head(text)
    except (ValueError, ValidationError):
        return _no_head(text)


def _no_head(text: str) -> Head:
    raise BadInput(f"--head: got {text!r}, expected NUMBER:LINK, the link in 64 hexadecimal digits")


def parse_time(text: str) -> float:
    """A day or a time, local unless it says its zone, as seconds since 1970.

    Raises:
        BadInput: if it is none.
    """
    try:
        return dt.datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise BadInput(f"--since: got {text!r}, expected a day or a time, as 2026-03-01 or 2026-03-01T14:30") from None


def _facts(findings: Findings) -> dict[str, Any]:
    return {
        "site": findings.site,
        "key": findings.key or None,
        "entries": len(findings.entries),
        "head": findings.head.model_dump(),
        "faults": [{"number": fault.number, "what": fault.what, "do": fault.do} for fault in findings.faults],
        "notes": findings.notes,
        "pending": [count.model_dump(mode="json") for count in findings.pending],
    }


def _say(findings: Findings) -> None:
    for fault in findings.faults:
        which = f"entry {fault.number} " if fault.number else ""
        print(f"WRONG: {which}{fault.what}. What to do: {fault.do}.")
    for note in findings.notes:
        print(f"note: {note}.")
    for line in in_words(findings.pending):
        print(f"note: counted, and not yet an entry: {line}.")
    count = _many(len(findings.entries), "entry", "entries")
    if findings.faults:
        print(f"{count} are as they were written; {_many(len(findings.faults), 'thing')} wrong.")
    else:
        print(f"{count}, each as it was written, in order, none missing. Head: {findings.head}")
        print("Keep the head elsewhere: with --head it proves later that nothing up to here was changed since.")


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"
