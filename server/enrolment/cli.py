"""`insitu-server invite`, `admit`, `sites`, `revoke`: who may take part."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from server.home import Home
from shared import console, identity
from shared.declared import Duration, explain
from shared.errors import BadInput

Name = Annotated[str, typer.Argument(help="What the site is called here.", metavar="SITE")]

_TRIES_SECONDS = 7 * 86400.0


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (invite, admit, sites, revoke):
        app.command()(command)


def invite(
    name: Annotated[str, typer.Argument(help="What the site shall be called here.", metavar="SITE")],
    home: console.Home,
    out: Annotated[Path, typer.Option(help="The ticket to write, for the site.", metavar="TICKET")],
    expires: Annotated[str, typer.Option(help="How long it is good: 30m, 12h, 7d.")] = "7d",
) -> None:
    """Write a ticket with which one site joins, once, by `insitu-client join`."""
    opened = Home.open(home)
    try:
        valid = TypeAdapter(Duration).validate_python(expires)
    except ValidationError as error:
        raise BadInput(f"--expires: {explain(error)}") from None
    from server.enrolment import invitations

    ticket = invitations.invite(opened, name, valid=valid, out=out)
    console.say(
        f"wrote {out}, good until {console.when(ticket.expires.timestamp())}. Whoever has it can join as {name}: send "
        f"it as a secret. There: `insitu-client join {out.name} --home S`"
    )
    if opened.running() is None:
        console.say("no coordinator runs on this home: nobody can join until one is started")


def admit(
    name: Annotated[str, typer.Argument(help="What the site shall be called here.")],
    key: Annotated[Path, typer.Argument(help="The site's public key, its keys/site.pub.")],
    home: console.Home,
) -> None:
    """Admit a site by its public key, where it was carried over by hand."""
    opened = Home.open(home)
    public = identity.read_public(key)
    from server import admission

    admission.admit(opened, name, public)
    console.say(f"admitted {name}; compare with what the site sees: {identity.fingerprint(public)}")


def sites(home: console.Home, as_json: console.Json = False) -> None:
    """List who is admitted, who is invited, and whose key was revoked."""
    opened = Home.open(home)
    from server.enrolment import invitations
    from server.enrolment.register import Register

    rows = invitations.overview(opened)
    heads = {
        "name": "site",
        "standing": "standing",
        "admitted": "admitted",
        "expires": "ticket expires",
        "wrong_proofs": "wrong proofs",
        "revoked": "revoked",
        "fingerprint": "fingerprint",
    }
    filled = {key: head for key, head in heads.items() if any(row[key] is not None for row in rows)}
    console.listing(rows, filled, as_json=as_json, empty="no site yet; `insitu-server invite SITE --out TICKET`")
    tries = Register(opened.store.path).tries(time.time() - _TRIES_SECONDS)
    if tries and not as_json:
        last = tries[0]
        whose = f" ({last.site})" if last.site else ""
        console.say(
            f"refused in the last 7 days: {len(tries)} tries; the last from {last.peer}{whose}, "
            f"{console.when(last.time)}: {last.why}"
        )


def revoke(name: Name, home: console.Home) -> None:
    """Admit a site no longer, and take back its invitations; its key is refused for ever."""
    opened = Home.open(home)
    from server import admission
    from server.enrolment.register import Register

    withdrawn = Register(opened.store.path).withdraw(name)
    revoked = admission.revoke(opened, name)
    if not revoked and not withdrawn:
        raise BadInput(f"no site {name!r} is admitted or invited here; `insitu-server sites` lists them")
    if withdrawn:
        console.say(f"took back the invitation of {name}")
    if revoked:
        console.say(
            f"revoked {name}: what it sends from now on is refused; runs that it takes part in go on without it"
        )
