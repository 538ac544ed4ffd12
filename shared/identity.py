"""Who is who: the coordinator's certificates, and the keys by which sites are known.

All keys are ECDSA over P-384 (what Flower's node authentication signs with). Private keys are written with mode 0600
and never leave the machine that made them; a site gives the coordinator its public key, and gets the CA certificate.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.errors import BadInput
from shared.files import write_atomically

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey

CA_YEARS = 10
_LONGEST_DER = 256
CERTIFICATE_DAYS = 825  # the longest that common TLS clients accept of a server
RENEW_BEFORE = dt.timedelta(days=30)
_CLOCK_SKEW = dt.timedelta(hours=1)  # a hospital's clock may be a little behind


@dataclass(frozen=True)
class Certificate:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, which anybody may see."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key."""
        return private_pem(self.key)


def new_key() -> PrivateKey:
    """A new P-384 key from the operating system's generator."""
    return ec.generate_private_key(ec.SECP384R1())


def new_authority(name: str) -> Certificate:
    """A certificate authority of the coordinator's own, that signs server certificates and nothing below them."""
    key = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"insitu coordinator {name}"[:64])])
    builder = (
        _builder(subject, subject, key.public_key(), dt.timedelta(days=365 * CA_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Certificate(builder.sign(key, hashes.SHA384()), key)


def authority(certificate_pem: bytes, key: PrivateKey) -> Certificate:
    """A certificate authority, from its files.

    Raises:
        BadInput: if the certificate is not this key's.
    """
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    if certificate.public_key() != key.public_key():
        raise BadInput("the CA's certificate (ca.pem) is not that of its key (keys/ca.key)")
    return Certificate(certificate, key)


def new_server_certificate(
    authority: Certificate,
    host: str,
    *,
    key: PrivateKey | None = None,
    valid: dt.timedelta = dt.timedelta(days=CERTIFICATE_DAYS),
) -> Certificate:
    """A certificate for `host` (a DNS name or an IP address), and for this machine's own names.

    Args:
        authority: that signs it; it ends with that at the latest.
        host: by which the sites dial it.
        key: of the server; by default a new one.
        valid: from now on.

    Raises:
        BadInput: if `host` is neither.
    """
    names = list(dict.fromkeys([_alternative(host), *map(_alternative, ("localhost", "127.0.0.1", "::1"))]))
    key = key or new_key()
    valid = min(valid, authority.certificate.not_valid_after_utc - dt.datetime.now(dt.UTC))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    issuer = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _builder(subject, authority.certificate.subject, key.public_key(), valid)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer),
            critical=False,
        )
    )
    return Certificate(builder.sign(authority.key, hashes.SHA384()), key)


def _builder(subject: x509.Name, issuer: x509.Name, key: PublicKey, valid: dt.timedelta) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + valid)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    labels = host.split(".")
    if len(host) > 253 or not all(label.isascii() and label.strip("-") == label and label for label in labels):
        raise BadInput(f"{host!r} is neither a host name nor an IP address")
    if not all(character.isalnum() or character == "-" for label in labels for character in label):
        raise BadInput(f"{host!r} is neither a host name nor an IP address")
    return x509.DNSName(host)


def expires(certificate_pem: bytes) -> dt.datetime:
    """When a certificate ends, in UTC."""
    return x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc


def private_pem(key: PrivateKey) -> bytes:
    """A private key as PKCS #8 PEM, unencrypted: whoever can read the file is the site."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: PublicKey) -> bytes:
    """A public key as PEM (SubjectPublicKeyInfo), which is how Flower stores it too."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: PublicKey) -> str:
    """SHA-256 of the public key in groups of four digits, for two people to compare over the telephone."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digits = hashlib.sha256(der).hexdigest()
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))


def write_private(path: Path, pem: bytes) -> None:
    """Write a private key that only its owner may read."""
    write_atomically(path, pem, mode=0o600)


def read_private(path: Path) -> PrivateKey:
    """Read a private key.

    Raises:
        BadInput: if it is missing, damaged, not P-384, or readable by others than its owner.
    """
    key = load_private(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise BadInput("is not an ECDSA key over P-384", file=path)
    return key


def load_private(path: Path) -> PrivateKeyTypes:
    """The same, of any kind."""
    path = Path(path)
    pem = _read(path, "a private key")
    if os.stat(path).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadInput("others than its owner may read this private key; `chmod 600` it", file=path)
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadInput("is not a private key in PEM without a password", file=path) from None


def read_public(path: Path) -> PublicKey:
    """Read a public key.

    Raises:
        BadInput: if it is missing, damaged or not P-384; or if it is a private key, which must stay at the site.
    """
    pem = _read(Path(path), "a site's public key (site.pub)")
    if b"PRIVATE KEY" in pem:
        raise BadInput("is a private key, which must never leave the site; expected its site.pub", file=path)
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise BadInput("is not a public key in PEM", file=path) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise BadInput("is not an ECDSA key over P-384; `insitu-client init` makes one", file=path)
    return key


def read_certificate(path: Path) -> bytes:
    """Read a certificate, as PEM.

    Raises:
        BadInput: if it is missing or damaged.
    """
    pem = _read(Path(path), "a certificate")
    try:
        x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise BadInput("is not a certificate in PEM", file=path) from None
    return pem


def _read(path: Path, expected: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"no such file; expected {expected}", file=path) from None
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror}); expected {expected}", file=path) from None


def der(key: PublicKey) -> bytes:
    """A public key as it is sent and signed."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def from_der(data: bytes) -> PublicKey | None:
    """The public key that was sent; None where it is none over P-384, or not written as `der` does."""
    if len(data) > _LONGEST_DER:
        return None
    try:
        key = serialization.load_der_public_key(data)
    except Exception:  # whatever a parser of other people's bytes raises
        return None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        return None
    return key if der(key) == data else None


def sign(key: PrivateKey, statement: bytes) -> bytes:
    """A signature (ECDSA, SHA-384)."""
    return key.sign(statement, ec.ECDSA(hashes.SHA384()))


def is_signed(key: PublicKey, signature: bytes, statement: bytes) -> bool:
    """Whether this key signed this."""
    try:
        key.verify(signature, statement, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


def is_certified(certificate_pem: bytes, signature: bytes, statement: bytes, *, ca_pem: bytes) -> bool:
    """Whether the key of a certificate that this CA issued signed this; it may have expired since."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca_pem))
    except (ValueError, TypeError, InvalidSignature):
        return False
    key = certificate.public_key()
    return isinstance(key, ec.EllipticCurvePublicKey) and is_signed(key, signature, statement)
