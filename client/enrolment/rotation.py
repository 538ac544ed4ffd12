"""`insitu-client rotate`: another key in the place of the site's, signed by the old one; the daemon may run.

In this order: the new key is on the disk; the coordinator knows it (and from then on refuses the old one); the record
says so; it takes the old one's place. Cut off between two of them, the same command does the rest. The SuperNode ends
when its key is refused, and is started again with the new one.
"""

from __future__ import annotations

from client.audit import Record, verification
from client.audit.entries import Rekeyed
from client.audit.succession import rekeyed
from client.enrolment.channel import Denied, Service
from client.ledger.journal import sync
from client.site import Site
from shared import identity
from shared.errors import BadInput, InsituError
from shared.files import held, write_atomically


def rotate(site: Site) -> str:
    """Put another key in the place of the site's; its fingerprint.

    Raises:
        BadInput: if the site has not joined, or another user has its key.
        Refused: `record`, if the record cannot be written.
        InsituError: if the record is not trusted, or the coordinator refuses or cannot be reached.
    """
    coordinator, file = site.config.coordinator, site.home / "site.toml"
    if coordinator is None:
        raise BadInput("[coordinator] is missing: the site has to join first", file=file)
    if site.config.supernode is not None:
        raise BadInput(
            "the SuperNode is another user's, who has the key: go back to one user (docs/operations.md, Two users), "
            "rotate, then `insitu-client separate` again",
            file=file,
        )
    with held(site.home / "keys", "rotation"):
        old, new = identity.read_private(site.home / "keys" / "site.pem"), coming(site)
        ca = identity.read_certificate(site.home / coordinator.ca)
        try:
            with Service(coordinator.enrols_at, ca) as service:
                service.rotate(service.begin(), old, new)
        except Denied:
            raise InsituError(
                "the coordinator refuses to change the key: it does not know this site's, or has revoked it; its "
                "operator sees why (`insitu-server sites`)"
            ) from None
        settle(site, old, new)
    return identity.fingerprint(new.public_key())


def coming(site: Site) -> identity.PrivateKey:
    """The key that is to take the place of the site's; made if it is not there yet.

    Raises:
        InsituError: if the change could not be recorded.
    """
    if trouble := Record(site).troubles():
        raise InsituError(f"the change has to be recorded: {trouble[0]}")
    file = site.home / "keys" / "site.next.pem"
    if not file.exists():
        identity.write_private(file, identity.private_pem(identity.new_key()))
    return identity.read_private(file)


def settle(site: Site, old: identity.PrivateKey, new: identity.PrivateKey) -> None:
    """Record the change, and put the new key in its place; the coordinator knows it.

    Raises:
        Refused: `record`, if that cannot be written.
    """
    keys = site.home / "keys"
    entry = rekeyed(site, old, new)
    if not _is_recorded(site, entry):
        Record(site).append(entry)
    write_atomically(keys / "site.pub", identity.public_pem(new.public_key()))
    (keys / "site.next.pem").replace(keys / "site.pem")
    sync(keys)


def _is_recorded(site: Site, entry: Rekeyed) -> bool:
    """Whether this change is in the record already: one that was cut off after it."""
    changes = [one.entry for one in verification.verify(site).entries if isinstance(one.entry, Rekeyed)]
    return bool(changes) and changes[-1].new_key == entry.new_key
