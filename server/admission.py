"""Who may take part: a site's name, its public key, and the node id Flower gives it, always all three or none."""

from __future__ import annotations

import re

from server.flower.superlink import SuperLink
from server.home import Home
from shared import identity
from shared.errors import BadInput

# As a site calls itself (client.site.SITE_NAME); the coordinator may call it otherwise, in the same letters.
SITE_NAME = r"[a-z0-9][a-z0-9-]{0,62}"


def admit(home: Home, name: str, key: identity.PublicKey) -> int:
    """Admit a site, whether a coordinator runs on the home or not; its node id.

    Raises:
        BadInput: if the name is none, or the name or the key is taken.
    """
    if re.fullmatch(SITE_NAME, name) is None:
        raise BadInput(f"{name!r} is no site name: small letters, digits and dashes, at most 63, no dash first")
    store = home.store
    pem = identity.public_pem(key)
    admitted = store.sites()
    if name in admitted:
        raise BadInput(f"a site named {name!r} is already admitted")
    if any(row.public_key == pem.decode() for row in admitted.values()):
        raise BadInput("this key is already admitted under another name")
    superlink = SuperLink.open(home.database)
    node = superlink.known(pem)
    if node is None:
        node = superlink.admit(name, pem)
    store.admit(name, node_id=node, public_key=pem.decode())
    return node
