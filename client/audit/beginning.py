"""What a record begins with: in a new home a key and a head, and the first entry when there is something to write."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.audit import heads, keys
from client.audit.entries import Began, Head
from client.ledger import Ledger, acceptance
from client.site import Site
from shared.errors import Refused


def begin(site: Site) -> None:
    """What a new home has before its first entry: the key, and a head. It must have no other home's.

    Raises:
        BadInput: if the witness's folder has the head of another record.
    """
    heads.begin(site.witness)
    keys.make(site)


def began(site: Site, key: Ed25519PrivateKey, *, after: Head | None = None, found: str = "", reason: str = "") -> Began:
    """The first entry of a record; see there.

    Raises:
        BadInput: if the site's own key cannot be used.
    """
    ours = keys.text(key.public_key())
    site_key, endorsement = keys.endorsed(site, ours)
    return Began(
        site=site.name,
        key=ours,
        settled=_settled(site),
        after=after,
        found=found,
        reason=reason,
        site_key=site_key,
        endorsement=endorsement,
    )


def _settled(site: Site) -> int:
    """The last charge that was answered so far; 0 where the ledger does not say."""
    try:
        books = acceptance.examine(Ledger(site)).ledger
    except Refused:
        return 0
    return max(books.settled, default=0) if books is not None else 0
