"""One line of record.jsonl: an entry, chained to the one before and signed.

    {"number":7,"before":"…","body":{…},"link":"…","signature":"…"}

`link` is the SHA-256 of the link before, the number and the text of the body; `signature` is the site's (Ed25519) over
the link. A line says what it follows, so that each can be checked by itself, and what is missing can be told from what
was changed. There is one way to write a line: nothing in it can be changed without being noticed, not even a blank.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from client.audit.entries import Head

_LINE = re.compile(
    r'\{"number":([1-9][0-9]{0,17}),"before":"((?:[0-9a-f]{64})?)","body":(\{.*\}),'
    r'"link":"([0-9a-f]{64})","signature":"([0-9a-f]{128})"\}'
)
_SIGNED = "insitu record entry\n"  # so that the signature can be taken for that of nothing else


class Untrusted(Exception):
    """The record or its head is not as it was left; the text says what is wrong, for the operator."""


@dataclass(frozen=True)
class Line:
    """A line, as it was read or is to be written.

    Attributes:
        number: from 1, without gaps.
        before: the link of the entry before; empty for the first.
        body: the entry, as JSON.
        link: see above.
        signature: hexadecimal.
    """

    number: int
    before: str
    body: str
    link: str
    signature: str

    @property
    def head(self) -> Head:
        """How far a record has got that ends with it."""
        return Head.model_construct(number=self.number, link=self.link)

    def encoded(self) -> bytes:
        """As it stands in the file, with the end of the line."""
        return (
            f'{{"number":{self.number},"before":"{self.before}","body":{self.body},'
            f'"link":"{self.link}","signature":"{self.signature}"}}\n'
        ).encode()

    def genuine(self, key: Ed25519PublicKey) -> bool:
        """Whether this very line was written by who has the key."""
        if self.link != _linked(self.before, self.number, self.body):
            return False
        try:
            key.verify(bytes.fromhex(self.signature), (_SIGNED + self.link).encode())
        except InvalidSignature:
            return False
        return True


def signed(key: Ed25519PrivateKey, *, before: str, number: int, body: str) -> Line:
    """A new line."""
    link = _linked(before, number, body)
    return Line(number, before, body, link, key.sign((_SIGNED + link).encode()).hex())


def parse(raw: bytes) -> Line:
    """A line as it was read, without its end.

    Raises:
        Untrusted: if it is none.
    """
    try:
        match = _LINE.fullmatch(raw.decode())
    except UnicodeDecodeError:
        match = None
    if match is None:
        raise Untrusted("a line of it cannot be read: it was changed, or is damaged")
    number, before, body, link, signature = match.groups()
    return Line(int(number), before, body, link, signature)


def _linked(before: str, number: int, body: str) -> str:
    return hashlib.sha256(f"{before}\n{number}\n{body}".encode()).hexdigest()
