"""`insitu-client join`: with one file, a hospital takes part.

The key is made here and stays. Cut off between any two steps, the same command with the same ticket does the rest: to
the coordinator the ticket belongs to the first key that proved it, and that key gets the same answer again.
"""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass
from pathlib import Path

from client import credentials
from client.audit import Decided, Record
from client.enrolment import checks, homes, rotation
from client.enrolment.channel import Begun, Denied, Service
from client.site import Coordinator, Site
from shared import identity
from shared.enrolment_pb2 import JoinReply
from shared.errors import BadInput, InsituError
from shared.files import held
from shared.tickets import Ticket


@dataclass(frozen=True)
class Joined:
    """A site that takes part.

    Attributes:
        site: as it is now.
        called: what the coordinator calls it.
        fingerprint: of its key.
        problems: what has to be put right before it can connect.
        notes: what is worth knowing.
    """

    site: Site
    called: str
    fingerprint: str
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def join(ticket: Ticket, home: Path, *, another_key: bool = False) -> Joined:
    """Join a federation; see above.

    Args:
        ticket: the coordinator's.
        home: of the site; made if it is not there, with the name in the ticket.
        another_key: make another key first, as a site has to that was revoked; data, ledger and record stay.

    Raises:
        BadInput: if the home cannot be used.
        Refused: `record`, if the home's record is not trusted.
        InsituError: if the coordinator refuses, cannot be reached, or is of another version.
    """
    homes.check(home)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with held(home, "daemon"):
        site = homes.opened(home, ticket.site)
        old = _key(site, ticket)
        key = rotation.coming(site) if another_key else old
        with Service(ticket.enrolment, ticket.authority) as service:
            begun = service.begin()
            checks.protocol(begun)
            try:
                reply = service.join(begun, ticket, key)
            except Denied:
                raise InsituError(_denied(ticket, begun)) from None
        if key is not old:
            rotation.settle(site, old, key)
        site = _trusting(site, ticket, reply)
    wrong, worth = checks.clock(begun)
    problems = (wrong, checks.reach(reply.coordinator, ticket.authority))
    return Joined(
        site=site,
        called=reply.site,
        fingerprint=identity.fingerprint(key.public_key()),
        problems=tuple(filter(None, problems)),
        notes=tuple(filter(None, (worth, checks.release(reply.version)))),
    )


def _key(site: Site, ticket: Ticket) -> identity.PrivateKey:
    """The site's key, if the home is one that may join."""
    chosen = site.config.coordinator
    if chosen is not None and identity.read_certificate(site.home / chosen.ca).strip() != ticket.authority.strip():
        raise BadInput(
            f"[coordinator] names another coordinator already ({chosen.address}): join with another home, or remove "
            "that section first",
            file=site.home / "site.toml",
        )
    if site.config.supernode is not None:
        raise BadInput(
            "the SuperNode is another user's already, who has the key: join first, then separate", file=site.home
        )
    return identity.read_private(site.home / "keys" / "site.pem")


def _trusting(site: Site, ticket: Ticket, reply: JoinReply) -> Site:
    """Write down what the site has to know."""
    try:
        coordinator = Coordinator(address=reply.coordinator, enrolment=ticket.enrolment)
    except ValueError:
        raise InsituError("the coordinator says no address at which it is found; is it of another version?") from None
    chosen = site.config.coordinator
    if chosen is None:
        reason = f"{coordinator.address}, as {reply.site}"
        Record(site).append(Decided(what="joined", by="operator", reason=reason))
        return credentials.trust(site, coordinator, ca=ticket.authority)
    if chosen.address != coordinator.address:
        file = site.home / "site.toml"
        raise BadInput(
            f"[coordinator] address: is {chosen.address}, and the coordinator says {coordinator.address}", file=file
        )
    return site


def _denied(ticket: Ticket, begun: Begun) -> str:
    """Why, as far as it can be known here: the coordinator says the same to whoever it refuses."""
    if time.time() - begun.ahead >= ticket.expires.timestamp():
        ended = ticket.expires.astimezone(dt.UTC)
        return f"the ticket was good until {ended:%d %B %Y, %H:%M} UTC; ask the coordinator for another"
    return (
        "the coordinator refuses this ticket: it was used with another key (if not by you, tell the coordinator), "
        "taken back, or replaced; its operator sees why (`insitu-server sites`), and can write another"
    )
