"""insitu-client: the hospital's side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError

from client import credentials, logs
from client.audit import Record
from client.audit.cli import app as audit_app
from client.data.cli import app as data_app
from client.jobs import Inbox
from client.jobs import cli as jobs_cli
from client.ledger import Ledger
from client.ledger.cli import app as budget_app
from client.site import Coordinator, Site, SiteConfig
from shared import console, identity, tickets
from shared.declared import explain
from shared.errors import BadInput, InsituError

app = console.app("A hospital: what it has, what it allows, and the daemon that answers for it.")
app.add_typer(data_app, name="data")
app.add_typer(budget_app, name="budget")
app.add_typer(audit_app, name="audit")
jobs_cli.add_to(app)


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="What the site is called: small letters, digits, dashes.")],
    home: console.Home,
    coordinator: Annotated[str | None, typer.Option(help="host:port of the coordinator.")] = None,
    ca: Annotated[Path | None, typer.Option(help="The coordinator's ca.pem.")] = None,
    witness: Annotated[
        Path | None, typer.Option(help="A folder on another disk for the ledger's witness; by default in the home.")
    ] = None,
) -> None:
    """Make a site's home, with a key of its own."""
    if (coordinator is None) != (ca is None):
        raise BadInput("give --coordinator and --ca together, or neither (and write [coordinator] in site.toml later)")
    certificate = identity.read_certificate(ca) if ca is not None else None
    try:
        config = SiteConfig(
            name=name,
            coordinator=Coordinator(address=coordinator) if coordinator else None,
            witness=str(witness.resolve()) if witness else None,
        )
    except ValidationError as error:
        raise BadInput(explain(error)) from None
    site = Site.create(home, config)
    key = credentials.equip(site)
    if certificate is not None and config.coordinator is not None:
        credentials.trust(site, config.coordinator, ca=certificate)
    public = site.home / "keys" / "site.pub"
    console.say(f"made {home}. Send the coordinator {public}, and compare: {identity.fingerprint(key)}")


@app.command()
def join(
    ticket: Annotated[Path, typer.Argument(help="The file that the coordinator sent.", metavar="TICKET")],
    home: console.Home,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="With another key: the coordinator revoked this one.")
    ] = False,
) -> None:
    """Take part: make a home with a key of its own if there is none, and prove the ticket to the coordinator."""
    read = tickets.read(ticket)
    from client.enrolment import joining

    joined = joining.join(read, home, another_key=new_key)
    called = f", where it is {joined.called}" if joined.called != joined.site.name else ""
    console.say(f"{joined.site.name} has joined{called}. Its key, made here, is {joined.fingerprint}")
    for note in joined.notes:
        console.say(f"note: {note}")
    if joined.problems:
        raise InsituError(f"it cannot connect yet: {'; '.join(joined.problems)}. The same command checks again")
    console.say(f"`insitu-client data add` what it has, read {joined.site.home / 'site.toml'}, and start it")


@app.command()
def rotate(home: console.Home) -> None:
    """Make another key in the place of the site's, which signs for it; a daemon goes on with the new one by itself."""
    site = Site.open(home)
    from client.enrolment import rotation

    console.say(f"{site.name} has another key: {rotation.rotate(site)}")


@app.command()
def start(home: console.Home) -> None:
    """Answer the coordinator, in the foreground, until told to stop."""
    site = Site.open(home)
    from client import daemon

    daemon.run(site)


@app.command()
def separate(
    home: console.Home,
    out: Annotated[Path, typer.Option(help="The SuperNode's folder: empty or not there yet, outside the home.")],
) -> None:
    """Let another user run the SuperNode: make it a folder of its own, and move the site's key there."""
    from client import separation

    site = Site.open(home)
    if separation.separate(site, out):
        console.say(
            f"moved the key of {site.name} to {out}. Give that folder to the SuperNode's user (chown -R), who runs "
            f"`insitu-client supernode --folder {out}`; what is left here, `insitu-client start` runs"
        )
    else:
        console.say(f"{site.name} is separated from its SuperNode already")


@app.command()
def supernode(
    folder: Annotated[Path, typer.Option(help="The SuperNode's folder, made by `insitu-client separate`.")],
) -> None:
    """Run only the SuperNode, as the user whose folder this is, in the foreground, until told to stop."""
    from client import carrier

    carrier.run(folder)


@app.command()
def status(home: console.Home, as_json: console.Json = False) -> None:
    """Say what the daemon does, and since when."""
    site = Site.open(home)
    from client import state

    facts = {"site": site.name, **state.summary(site.home), "budget": Ledger(site).troubles()}
    facts |= {"record": Record(site).troubles(), "pending": [entry.job.name for entry in Inbox(site).pending()]}
    if as_json:
        console.dump(facts)
        return
    for line in _lines(facts):
        print(line)


def _lines(facts: dict[str, Any]) -> list[str]:
    site = facts["site"]
    if not facts["running"]:
        lines = [f"{site}: not running; `insitu-client start` starts it"]
    elif facts["since"] is None:
        lines = [f"{site}: starting"]
    else:
        lines = [f"{site}: running since {console.when(facts['since'])} (process {facts['pid']})"]
        if facts["problem"]:
            lines.append(f"not connected to {facts['coordinator']}: {facts['problem']}")
        elif facts["connected"]:
            lines.append(f"connected to {facts['coordinator']}")
        else:
            lines.append(f"connecting to {facts['coordinator']}")
        if facts["working"]:
            lines.append(f"answering {_message(facts['working'])} since {console.when(facts['working']['since'])}")
        lines.extend(
            f"the {part} was started again {facts[part]['restarts']} times, after exit code {facts[part]['last_exit']}"
            for part in ("supernode", "executor")
            if facts[part].get("restarts")
        )
    lines.extend([*facts["budget"], *facts["record"]])
    if facts["pending"]:
        lines.append(f"wait for your word (`insitu-client jobs`): {', '.join(facts['pending'])}")
    if facts["last"]:
        lines.append(f"last answered {_message(facts['last'])} at {console.when(facts['last']['until'])}")
    return lines


def _message(facts: dict[str, Any]) -> str:
    return f"{facts['type']!r}" + (f" of round {facts['round']}" if str(facts.get("round", "")).isdigit() else "")


def main() -> NoReturn:
    """Entry point."""
    logs.guard()  # of an exception that nobody foresaw no text is shown: a terminal's output is kept, too
    console.run(app)


if __name__ == "__main__":
    main()
