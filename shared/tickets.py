"""Tickets: one small file by which a hospital joins, and what is signed when it does.

The ticket's secret is the seed of an Ed25519 key. The coordinator keeps a hash of the public half only: whoever reads
its store, or a back-up of it, can join nothing. A site proves that it has the ticket by a signature, so the secret
itself is never sent, not even inside TLS.

What is signed holds the coordinator's CA certificate and a nonce of its own, once used: a proof is good for this
coordinator, this key and this one call.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from shared.declared import SITE_NAME, explain
from shared.errors import BadInput

SECRET_BYTES = 32
_LONGEST = 64 * 2**10
_HEADER = "# Lets one site join, once: whoever has this file can, so send it as a secret.\n"
_SIGNED = b"insitu enrolment 1\n"  # so that no signature can be taken for that of anything else


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[^\s:/@]+", host) or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError(f"got {text!r}, expected host:port")
    return text


def _certificate(text: str) -> str:
    try:
        x509.load_pem_x509_certificate(text.encode())
    except ValueError:
        raise ValueError("is not a certificate in PEM") from None
    return text


Address = Annotated[str, AfterValidator(_address)]


class Ticket(BaseModel):
    """A ticket.

    Attributes:
        version: of this format.
        site: what the coordinator calls the site.
        coordinator: host:port of the fleet interface.
        enrolment: host:port of the enrolment service.
        expires: when it is no longer good.
        secret: 32 bytes in hexadecimal.
        ca: the coordinator's CA certificate (PEM).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    site: Annotated[str, Field(pattern=SITE_NAME)]
    coordinator: Address
    enrolment: Address
    expires: AwareDatetime
    secret: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", repr=False)]
    ca: Annotated[str, AfterValidator(_certificate)]

    @property
    def key(self) -> Ed25519PrivateKey:
        """The key that proves it."""
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(self.secret))

    @property
    def authority(self) -> bytes:
        """The coordinator's CA certificate (PEM)."""
        return self.ca.encode()


def new_secret() -> str:
    """A secret from the operating system's generator."""
    return os.urandom(SECRET_BYTES).hex()


def parse(data: bytes, *, file: object = "ticket") -> Ticket:
    """A ticket as it stands in a file.

    Raises:
        BadInput: if it is none; the secret is in no message.
    """
    if len(data) > _LONGEST:
        raise BadInput("is no ticket: it is too long", file=file)
    try:
        read = tomllib.loads(data.decode())
    except (ValueError, RecursionError):  # no TOML, a number of a thousand digits, a thousand brackets
        raise BadInput("is no ticket, as `insitu-server invite` writes them", file=file) from None
    version = read.get("version")
    if isinstance(version, int) and not isinstance(version, bool) and version > 1:
        raise BadInput(f"is a ticket of version {version}, from a newer insitu: upgrade this one", file=file)
    try:
        return Ticket.model_validate(read)
    except ValidationError as error:
        raise BadInput(_explained(error), file=file) from None


def _explained(error: ValidationError) -> str:
    if any(one["loc"][:1] == ("secret",) for one in error.errors()):
        return "secret: is not 32 bytes in hexadecimal"
    return explain(error)


def read(file: Path) -> Ticket:
    """Read a ticket.

    Raises:
        BadInput: if there is none, or it is damaged.
    """
    try:
        with Path(file).open("rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise BadInput("is no file", file=file)
            data = stream.read(_LONGEST + 1)
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror}); expected a ticket", file=file) from None
    return parse(data, file=file)


def write(file: Path, ticket: Ticket) -> None:
    """Write a ticket that only its owner may read; never over a file that is there.

    Raises:
        BadInput: if the file is there already.
    """
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise BadInput("is there already; choose another name for the ticket", file=file) from None
    with os.fdopen(handle, "wb") as stream:
        stream.write(encoded(ticket))
        stream.flush()
        os.fsync(handle)


def encoded(ticket: Ticket) -> bytes:
    """A ticket as it stands in a file."""
    data = ticket.model_dump() | {"expires": ticket.expires.astimezone(dt.UTC)}
    return (_HEADER + tomli_w.dumps(data, multiline_strings=True)).encode()


def hashed(public: bytes) -> str:
    """What the coordinator keeps of a ticket: SHA-256 of the public half of its secret."""
    return hashlib.sha256(_SIGNED + public).hexdigest()


def public_bytes(ticket: Ticket) -> bytes:
    """The public half of a ticket's secret."""
    return ticket.key.public_key().public_bytes_raw()


def joining(*, ca: bytes, nonce: bytes, site: str, ticket: bytes, key: bytes) -> bytes:
    """What a site signs to join, with the ticket's key and with its own.

    Args:
        ca: the coordinator's CA certificate (PEM).
        nonce: as the coordinator gave it.
        site: what the coordinator calls the site.
        ticket: the public half of the ticket's secret.
        key: the site's public key (DER).
    """
    return _statement(b"join", ca, nonce, site.encode(), ticket, key)


def rotating(*, ca: bytes, nonce: bytes, old: bytes, new: bytes) -> bytes:
    """What a site signs, with both keys, to put another key in its own's place; see `joining`."""
    return _statement(b"rotate", ca, nonce, old, new)


def _statement(what: bytes, ca: bytes, *parts: bytes) -> bytes:
    certificate = x509.load_pem_x509_certificate(ca).fingerprint(hashes.SHA256())
    # With the length before each part, no two lists of parts are the same bytes.
    return _SIGNED + b"".join(len(part).to_bytes(4, "big") + part for part in (what, certificate, *parts))


def is_proven(public: bytes, signature: bytes, statement: bytes) -> bool:
    """Whether who signed this has the ticket with this public half."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, statement)
    except (InvalidSignature, ValueError):
        return False
    return True
