"""The coordinator's TLS certificate, renewed from its own CA in its last 30 days, while the coordinator runs.

The key stays: one file changes, whole or not at all, and at no moment do certificate and key not fit. Connections that
are there go on with the old certificate; new ones, on both public ports, get the new one. A certificate that the
operator puts in its place is taken up in the same way.
"""

from __future__ import annotations

import datetime as dt
import ssl
import time
from collections.abc import Callable

from server.home import Home
from shared import console, identity
from shared.errors import BadInput, InsituError
from shared.files import stamp, write_atomically

_LOOK_EVERY_SECONDS = 5.0
_AGAIN_SECONDS = 3600.0  # after a renewal that failed


class Certificate:
    """Keeps a coordinator's certificate valid.

    Args:
        home: the coordinator's.

    Raises:
        InsituError: if it has expired and cannot be renewed.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._next = self._renew_at = 0.0
        self._renew()
        self._stamp = stamp(home.certificate)
        if _left(home) < dt.timedelta(0):
            raise InsituError(f"{home.certificate} has expired, and keys/ca.key that would renew it is not there")

    def look(self, take_up: Callable[[], None]) -> None:
        """Renew it if it is time, and take up one that has changed; costs next to nothing."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _LOOK_EVERY_SECONDS
        self._renew()
        found = stamp(self._home.certificate)
        if found == self._stamp:
            return
        self._stamp = found
        try:
            fits(self._home)
            take_up()
            console.say(f"serving with another certificate, which is valid for {_left(self._home).days} days")
        except (BadInput, OSError, ValueError) as error:
            console.say(
                f"{self._home.certificate} cannot be used ({error}); the sites' port goes on with the one before"
            )

    def _renew(self) -> None:
        """Make another, if this one ends soon."""
        try:
            if time.monotonic() < self._renew_at or _left(self._home) >= identity.RENEW_BEFORE:
                return
            self._renew_at = time.monotonic() + _AGAIN_SECONDS
            renew(self._home)
        except (BadInput, OSError) as error:
            try:
                days = f"expires in {_left(self._home).days} days"
            except BadInput:
                days = "cannot be read"
            console.say(f"warning: {self._home.certificate} {days}, and cannot be renewed: {error}")


def renew(home: Home) -> None:
    """Make another certificate, of the coordinator's own CA and for the same key.

    Raises:
        BadInput: if the CA's certificate or key, or the server's key, cannot be used.
    """
    ca = identity.read_certificate(home.ca)
    authority = identity.authority(ca, identity.read_private(home.path / "keys" / "ca.key"))
    made = identity.new_server_certificate(authority, home.config.host, key=identity.read_private(home.key))
    write_atomically(home.certificate, made.certificate_pem)
    console.say(f"renewed {home.certificate}: valid until {identity.expires(made.certificate_pem):%d %B %Y}")
    left = identity.expires(ca) - dt.datetime.now(dt.UTC)
    if left < dt.timedelta(days=365):
        console.say(f"warning: {home.ca}, by which the sites know this coordinator, expires in {left.days} days")


def fits(home: Home) -> None:
    """Make sure that certificate and key are a pair.

    Raises:
        OSError: if they are not (of which `ssl.SSLError` is one).
    """
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(home.certificate, home.key)


def _left(home: Home) -> dt.timedelta:
    return identity.expires(identity.read_certificate(home.certificate)) - dt.datetime.now(dt.UTC)
