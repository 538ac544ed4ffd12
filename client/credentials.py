"""A site's key pair, made where it stays, and the certificate by which it knows its coordinator."""

from __future__ import annotations

import tomli_w

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
    """Write the coordinator's address and its CA certificate (PEM) into the home; the site as it is then.

    The section is added to site.toml, whose every other line, and comment, is the operator's; one that is there is
    replaced together with the file.
    """
    write_atomically(site.home / coordinator.ca, ca)
    file = site.home / "site.toml"
    joined = Site(site.home, site.config.model_copy(update={"coordinator": coordinator}))
    if site.config.coordinator is not None or not file.exists():
        joined.write_config()
        return joined
    section = tomli_w.dumps({"coordinator": coordinator.model_dump(exclude_defaults=True)})
    write_atomically(file, file.read_bytes().rstrip() + b"\n\n" + section.encode(), mode=0o600)
    return joined
