"""A site's key pair, made where it stays, and the certificate by which it knows its coordinator."""

from __future__ import annotations

from client.site import Coordinator, Site
from shared import identity
from shared.files import write_atomically


def equip(site: Site) -> identity.PublicKey:
    """Make the site's key pair in its home; the public half is what the coordinator gets."""
    key = identity.new_key()
    identity.write_private(site.home / "keys" / "site.pem", identity.private_pem(key))
    write_atomically(site.home / "keys" / "site.pub", identity.public_pem(key.public_key()))
    return key.public_key()


def trust(site: Site, coordinator: Coordinator, *, ca: bytes) -> Site:
    """Write the coordinator's address and its CA certificate (PEM) into the home; the site as it is then."""
    write_atomically(site.home / coordinator.ca, ca)
    joined = Site(site.home, site.config.model_copy(update={"coordinator": coordinator}))
    joined.write_config()
    return joined
