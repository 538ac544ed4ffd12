"""The operator's side: a ticket for one site, and how sites and invitations stand."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from pydantic import ValidationError

from server import admission
from server.enrolment.register import Register
from server.home import Home
from shared import identity, tickets
from shared.declared import explain
from shared.errors import BadInput, InsituError
from shared.tickets import Ticket

LONGEST = dt.timedelta(days=90)


def invite(home: Home, site: str, *, valid: dt.timedelta, out: Path) -> Ticket:
    """Write a ticket, and remember its hash. An earlier ticket of the site that was not used is no longer good.

    Args:
        home: the coordinator's.
        site: what the site shall be called here.
        valid: how long the ticket is good.
        out: the file to write; it must not be there.

    Raises:
        BadInput: if the name is none or taken, or the file is there.
        InsituError: if nobody knows yet at which port the sites will find the coordinator.
    """
    admission.check_name(site)
    if site in home.store.sites.admitted():
        raise BadInput(
            f"a site named {site!r} is already admitted; `insitu-server revoke {site}` first, or another name"
        )
    if not dt.timedelta(seconds=1) <= valid <= LONGEST:
        raise BadInput(f"--expires: expected between 1s and {LONGEST.days}d")
    running = home.running() or {}
    fleet, enrolment = home.config.port or running.get("port"), home.config.enrols_at or running.get("enrolment")
    if not fleet or not enrolment:
        raise InsituError("its ports are taken when the coordinator starts: `insitu-server start` it first")
    try:
        ticket = Ticket(
            site=site,
            coordinator=f"{home.config.host}:{fleet}",
            enrolment=f"{home.config.host}:{enrolment}",
            expires=dt.datetime.now(dt.UTC).replace(microsecond=0) + valid,
            secret=tickets.new_secret(),
            ca=identity.read_certificate(home.ca).decode(),
        )
    except ValidationError as error:  # a host that no site.toml can name, as an address of IPv6
        raise BadInput(f"host: {explain(error)}", file=home.path / "server.toml") from None
    register = Register(home.store.path)
    tickets.write(out, ticket)
    try:
        ticket_hash = tickets.hashed(tickets.public_bytes(ticket))
        register.invite(ticket_hash, site, expires=ticket.expires.timestamp())
    except BaseException:
        out.unlink()
        raise
    return ticket


def overview(home: Home) -> list[dict[str, Any]]:
    """Who is admitted, who is invited, who was: one row each, for `insitu-server sites`."""
    now = time.time()
    store = home.store
    invited = [(one, one.standing(now)) for one in Register(store.path).invitations()]
    return [
        *(
            _row(row.name, "admitted", row.public_key, node_id=str(row.node_id), admitted=row.admitted)
            for row in store.sites.admitted().values()
        ),
        *(
            _row(
                one.site,
                "invited" if standing == "open" else f"invitation {standing}",
                one.public_key,
                expires=_when(one.expires),
                wrong_proofs=one.wrong,
            )
            for one, standing in invited
            if standing not in ("used", "withdrawn")
        ),
        *(
            _row(row.name, "revoked", row.public_key, admitted=row.admitted, revoked=row.revoked)
            for row in store.sites.revoked()
        ),
    ]


def _row(name: str, standing: str, public_key: str | None, **more: object) -> dict[str, Any]:
    empty = {"node_id": None, "admitted": None, "expires": None, "revoked": None, "wrong_proofs": None}
    print_ = _fingerprint(public_key) if public_key else None
    return {"name": name, "standing": standing, "fingerprint": print_, **empty, **more}


def _when(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")


def _fingerprint(pem: str) -> str | None:
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except ValueError:  # a virtual site's
        return None
    return identity.fingerprint(key) if isinstance(key, identity.PublicKey) else None
