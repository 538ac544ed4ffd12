"""Who may take part: a site's name, its public key, and the node id Flower gives it, always all three or none."""

from __future__ import annotations

import re

from server.flower.superlink import SuperLink
from server.home import Home
from shared import identity
from shared.declared import SITE_NAME  # the coordinator may call a site otherwise than it does itself
from shared.errors import BadInput


def check_name(name: str) -> None:
    """Make sure that a site can be called this.

    Raises:
        BadInput: if it cannot.
    """
    if re.fullmatch(SITE_NAME, name) is None:
        raise BadInput(f"{name!r} is no site name: small letters, digits and dashes, at most 63, no dash first")


def check(home: Home, name: str, key: identity.PublicKey) -> None:
    """Make sure that a site can be admitted by this name and key.

    Raises:
        BadInput: if the name is none, the name or the key is taken, or the key was revoked.
    """
    check_name(name)
    pem = identity.public_pem(key).decode()
    admitted = home.store.sites.admitted()
    if name in admitted:
        raise BadInput(f"a site named {name!r} is already admitted")
    if any(row.public_key == pem for row in admitted.values()):
        raise BadInput("this key is already admitted under another name")
    if any(row.public_key == pem for row in home.store.sites.revoked()):
        raise BadInput("this key was revoked, and is not admitted again: the site has to make another")


def admit(home: Home, name: str, key: identity.PublicKey) -> int:
    """Admit a site, whether a coordinator runs on the home or not; its node id.

    Raises:
        BadInput: as `check` does.
    """
    check(home, name, key)
    store, pem = home.store, identity.public_pem(key)
    superlink = SuperLink.open(home.database)
    node = superlink.known(pem)
    if node is None:
        node = superlink.admit(name, pem)
    store.sites.admit(name, node_id=node, public_key=pem.decode())
    return node


def revoke(home: Home, name: str) -> bool:
    """Admit a site no longer, whether a coordinator runs on the home or not; whether it was admitted.

    What it sends from now on is refused, its key for ever; a run that it takes part in goes on without it.
    """
    row = home.store.sites.admitted().get(name)
    if row is None:
        return False
    # First where it counts: killed in between, the same command does the rest.
    SuperLink.open(home.database).dismiss(row.node_id)
    home.store.sites.revoke(name)
    return True


def rekey(home: Home, name: str, key: identity.PublicKey) -> None:
    """Put another key in the place of an admitted site's; its node id, and so every run it takes part in, stays.

    Raises:
        BadInput: if the key is another site's, or was revoked.
    """
    sites, pem = home.store.sites, identity.public_pem(key)
    admitted = sites.admitted()
    taken = {row.public_key for row in admitted.values() if row.name != name}
    taken |= {row.public_key for row in sites.revoked()}
    if pem.decode() in taken:
        raise BadInput("this key is another site's, or was revoked")
    SuperLink.open(home.database).rekey(admitted[name].node_id, pem)
    sites.rekey(name, pem.decode())
