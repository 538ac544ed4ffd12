"""The coordinator's enrolment service, as a site calls it: over TLS verified against one CA, and no other.

Where the environment names a proxy (HTTPS_PROXY, and NO_PROXY for what goes past it), it is asked for a tunnel
(CONNECT); it sees host and port, and TLS.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import grpc

from shared import identity, tickets
from shared.enrolment_pb2 import BeginRequest, JoinReply, JoinRequest, RotateReply, RotateRequest
from shared.enrolment_pb2_grpc import EnrolmentStub
from shared.errors import BadInput, InsituError
from shared.identity import PrivateKey
from shared.tickets import Ticket

_DEADLINE_SECONDS = 20.0
_LONGEST_MESSAGE = 64 * 2**10

_Reply = TypeVar("_Reply")


class Denied(InsituError):
    """The coordinator refused; it says the same to whoever it refuses."""


@dataclass(frozen=True)
class Begun:
    """What the coordinator says before anything is proved to it.

    Attributes:
        nonce: to sign.
        protocol: that it speaks with its sites.
        ahead: seconds by which this machine's clock is ahead of the coordinator's; negative where it is behind.
        accuracy: of that, in seconds.
    """

    nonce: bytes
    protocol: int
    ahead: float
    accuracy: float


class Service:
    """The enrolment service of one coordinator; close it, or use it as a context.

    Args:
        address: host:port.
        ca: the coordinator's CA certificate (PEM).
    """

    def __init__(self, address: str, ca: bytes) -> None:
        self._address = address
        self._ca = ca
        self._proxy = proxy_for(address)
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", _LONGEST_MESSAGE),
            ("grpc.enable_http_proxy", int(self._proxy is not None)),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if self._proxy is not None:
            options.append(("grpc.http_proxy", self._proxy))
        self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca), options=options)
        self._stub = EnrolmentStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def begin(self) -> Begun:
        """Ask for a nonce, and compare the clocks.

        Raises:
            InsituError: if the coordinator cannot be reached, or is another one.
        """
        self._call(self._stub.Begin, BeginRequest())  # the first call makes the connection, which takes its time
        sent, counted = time.time(), time.monotonic()
        reply = self._call(self._stub.Begin, BeginRequest())
        took = time.monotonic() - counted
        return Begun(reply.nonce, reply.protocol, sent + took / 2 - reply.time, took / 2)

    def join(self, begun: Begun, ticket: Ticket, key: PrivateKey) -> JoinReply:
        """Prove the ticket and the key.

        Raises:
            Denied: if the coordinator does not take them.
            InsituError: if it cannot be reached.
        """
        public, proof = identity.der(key.public_key()), tickets.public_bytes(ticket)
        statement = tickets.joining(ca=self._ca, nonce=begun.nonce, site=ticket.site, ticket=proof, key=public)
        request = JoinRequest(
            nonce=begun.nonce,
            site=ticket.site,
            ticket=proof,
            public_key=public,
            proof=ticket.key.sign(statement),
            possession=identity.sign(key, statement),
        )
        reply: JoinReply = self._call(self._stub.Join, request)
        return reply

    def rotate(self, begun: Begun, old: PrivateKey, new: PrivateKey) -> RotateReply:
        """Ask for another key in the place of the site's.

        Raises:
            Denied: if the coordinator does not take it.
            InsituError: if it cannot be reached.
        """
        olds, news = identity.der(old.public_key()), identity.der(new.public_key())
        statement = tickets.rotating(ca=self._ca, nonce=begun.nonce, old=olds, new=news)
        request = RotateRequest(
            nonce=begun.nonce,
            old_key=olds,
            new_key=news,
            by_old=identity.sign(old, statement),
            by_new=identity.sign(new, statement),
        )
        reply: RotateReply = self._call(self._stub.Rotate, request)
        return reply

    def _call(self, method: Callable[..., _Reply], request: object) -> _Reply:
        try:
            return method(request, timeout=_DEADLINE_SECONDS)
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.PERMISSION_DENIED:
            raise Denied("the coordinator refused")
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise InsituError(
                "the coordinator refuses for now: too many tries from this address; try again in ten minutes"
            )
        raise InsituError(f"the coordinator's enrolment service at {self._address}: {self._in_words(code, details)}")

    def _in_words(self, code: grpc.StatusCode, details: str) -> str:
        way = f", through the proxy {shown(self._proxy)}" if self._proxy else ""
        if "CERTIFICATE_VERIFY_FAILED" in details or "certificate" in details.lower() or "Peer name" in details:
            return f"shows a certificate that is not this coordinator's{way}: who answers there, or who is in between?"
        if "DNS" in details or "resolution" in details.lower():
            return "the name is not known here"
        if "HTTP proxy" in details:
            return f"the proxy {shown(self._proxy)} does not let us through to it"
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return f"cannot be reached{way}: is it running, and does a firewall let this machine dial that port?"
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return "does not know this question: it is of another version of insitu"
        return f"failed ({code.name})"


def proxy_for(address: str) -> str | None:
    """The proxy through which the environment wants this address to be reached; None where past any.

    Raises:
        BadInput: if it is none that can be used.
    """
    proxies = urllib.request.getproxies_environment()
    if "https" not in proxies or urllib.request.proxy_bypass(address):
        return None
    proxy = proxies["https"] if "://" in proxies["https"] else f"http://{proxies['https']}"
    if urlsplit(proxy).scheme != "http" or not urlsplit(proxy).hostname:
        raise BadInput(f"got {shown(proxy)}, expected http://host:port", file="HTTPS_PROXY")
    return proxy


def shown(proxy: str | None) -> str:
    """A proxy without its password."""
    parts = urlsplit(proxy or "")
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
