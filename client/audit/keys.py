"""The key that signs the record, keys/record.pem (Ed25519), and the site's word that it is its own.

It is another key than keys/site.pem, which Flower wants to be P-384 and which the coordinator knows: that one signs the
record's key in the record's first entry, once there is one.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from client.audit.entries import Began
from client.site import Site
from shared import identity
from shared.errors import BadInput

_ENDORSED = "insitu record key\n"


def make(site: Site) -> None:
    """Make the site's key, in its home."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    identity.write_private(site.home / "keys" / "record.pem", pem)


def read(site: Site) -> Ed25519PrivateKey:
    """The site's key.

    Raises:
        BadInput: if it is missing, damaged, or readable by others than its owner.
    """
    file = site.home / "keys" / "record.pem"
    if not file.exists():
        raise BadInput("is gone; restore it from a back-up of the home", file=file)
    key = identity.load_private(file)
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput("is not an Ed25519 key; restore it from a back-up of the home", file=file)
    return key


def text(key: Ed25519PublicKey) -> str:
    """A public key as the record has it (64 hexadecimal digits)."""
    return key.public_bytes_raw().hex()


def public(digits: str) -> Ed25519PublicKey:
    """The key of these digits."""
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(digits))


def endorsed(site: Site, key: str) -> tuple[str, str]:
    """The site's own key, and its signature over the record's; empty where the site has no key of its own yet.

    Raises:
        BadInput: if that key cannot be used.
    """
    file = site.home / "keys" / "site.pem"
    if not file.exists():
        return "", ""
    ours = identity.read_private(file)
    return der(ours.public_key()), endorse(ours, site.name, key)


def endorse(ours: identity.PrivateKey, site: str, key: str) -> str:
    """A site's signature over its record's key."""
    return identity.sign(ours, _statement(site, key)).hex()


def der(key: identity.PublicKey) -> str:
    """A site's public key as the record has it."""
    return identity.der(key).hex()


def is_endorsed(began: Began) -> bool:
    """Whether the site's key that is named in the first entry has signed the record's."""
    return is_vouched(began.site_key, began.endorsement, began.site, began.key)


def is_vouched(site_key: str, endorsement: str, site: str, key: str) -> bool:
    """Whether this key of the site has signed the record's."""
    return is_signed(site_key, endorsement, _statement(site, key))


def is_signed(site_key: str, signature: str, statement: bytes) -> bool:
    """Whether a site's key signed this; both in hexadecimal, as the record has them."""
    key = identity.from_der(bytes.fromhex(site_key))
    return key is not None and identity.is_signed(key, bytes.fromhex(signature), statement)


def _statement(site: str, key: str) -> bytes:
    return f"{_ENDORSED}{site}\n{key}".encode()
