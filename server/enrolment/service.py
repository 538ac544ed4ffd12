"""The gRPC service by which sites join, and its listener: the coordinator's second public port.

It answers nothing else. Messages are small, every call has to end soon, connections do not stay, and nothing older than
TLS 1.3 is spoken. A stranger gets one answer, whatever is wrong; the operator reads why in the coordinator's log, and
in `insitu-server sites`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, NoReturn, TypeVar

import grpc

from server.enrolment.decisions import Decisions, Joined, Stranger
from server.enrolment.limits import Calls, Nonces, address
from server.home import Home
from shared import console, identity
from shared.enrolment_pb2 import BeginReply, BeginRequest, JoinReply, JoinRequest, RotateReply, RotateRequest
from shared.enrolment_pb2_grpc import EnrolmentServicer, add_EnrolmentServicer_to_server
from shared.errors import InsituError
from shared.messages import PROTOCOL

log = logging.getLogger(__name__)

REFUSED = "refused"
TOO_MANY = "too many tries from this address; try again in ten minutes"
_LONGEST_MESSAGE = 4096
_THREADS = 4
_MOST_CALLS = 16  # at a time; more are turned away at once
MOST_CONNECTIONS = 100
_OPTIONS = [
    ("grpc.so_reuseport", 0),  # nobody else may listen beside it
    ("grpc.max_receive_message_length", _LONGEST_MESSAGE),
    ("grpc.max_send_message_length", 64 * 2**10),
    ("grpc.max_metadata_size", 8 * 2**10),
    ("grpc.absolute_max_metadata_size", 16 * 2**10),
    ("grpc.max_concurrent_streams", 4),
    ("grpc.max_allowed_incoming_connections", MOST_CONNECTIONS),  # the fleet interface shares the process's files
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 30_000),
    ("grpc.max_connection_age_ms", 60_000),
    ("grpc.max_connection_age_grace_ms", 10_000),
]

_Request = TypeVar("_Request")
_Reply = TypeVar("_Reply")


class Enrolment(EnrolmentServicer):
    """The service.

    Args:
        home: the coordinator's.
        fleet: host:port at which the sites find it.
        clock: seconds since 1970, as the sites are told.
    """

    def __init__(self, home: Home, *, fleet: str, clock: Callable[[], float] = time.time) -> None:
        self._decisions = Decisions(home)
        self._fleet = fleet
        self._clock = clock
        self._nonces = Nonces()
        self._calls = Calls()

    def Begin(self, request: BeginRequest, context: Any) -> BeginReply:  # noqa: N802 -- the service's name
        """A nonce."""
        return self._answered(self._begin, request, context)

    def Join(self, request: JoinRequest, context: Any) -> JoinReply:  # noqa: N802 -- the service's name
        """Admit a site that has a ticket."""
        return self._answered(self._join, request, context)

    def Rotate(self, request: RotateRequest, context: Any) -> RotateReply:  # noqa: N802 -- the service's name
        """Put another key in the place of a site's."""
        return self._answered(self._rotate, request, context)

    def _begin(self, request: BeginRequest) -> BeginReply:
        return BeginReply(nonce=self._nonces.give(), time=self._clock(), protocol=PROTOCOL)

    def _join(self, request: JoinRequest) -> JoinReply:
        self._take(request.nonce)
        joined = self._decisions.join(request)
        _say("admitted" if joined.new else "came again with its ticket", joined)
        return JoinReply(site=joined.site, coordinator=self._fleet, version=version("insitu"))

    def _rotate(self, request: RotateRequest) -> RotateReply:
        self._take(request.nonce)
        joined = self._decisions.rotate(request)
        _say("has another key" if joined.new else "asked again to change its key", joined)
        return RotateReply(site=joined.site)

    def _take(self, nonce: bytes) -> None:
        if not self._nonces.take(nonce):
            raise Stranger("replayed, too late, or from before the coordinator was started: the nonce is not good")

    def _answered(self, answer: Callable[[_Request], _Reply], request: _Request, context: Any) -> _Reply:
        """Answer, or abort: of an exception nobody outside gets the text."""
        peer = address(context.peer())
        try:
            if not self._calls.admits(peer) or self._decisions.is_tiresome(peer):
                _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_MANY)
            return answer(request)
        except Stranger as refused:
            try:
                self._decisions.note(peer, refused)
            except InsituError as error:
                log.error("%s", error)
            console.say(f"enrolment: refused {peer}{f' ({refused.site})' if refused.site else ''}: {refused.why}")
            _abort(context, grpc.StatusCode.PERMISSION_DENIED, REFUSED)
        except _Aborted:
            raise
        except Exception as error:
            log.error("enrolment: %s", type(error).__name__, exc_info=error)
            _abort(context, grpc.StatusCode.INTERNAL, "failed")


class _Aborted(Exception):
    """The call was ended."""


def _abort(context: Any, code: grpc.StatusCode, text: str) -> NoReturn:
    try:
        context.abort(code, text)
    except Exception:  # gRPC's way to end the call, always raised: told apart here from what nobody foresaw
        raise _Aborted from None
    raise _Aborted


def _say(what: str, joined: Joined) -> None:
    console.say(f"enrolment: {joined.site} {what}: {identity.fingerprint(joined.key)}")


@contextmanager
def serving(home: Home, *, fleet: str, clock: Callable[[], float] = time.time) -> Iterator[int]:
    """Serve while this lasts; the port.

    Args:
        home: the coordinator's.
        fleet: host:port at which the sites find it, as they are told.
        clock: seconds since 1970, as they are told.

    Raises:
        InsituError: if the port is taken.
    """
    host, port = home.config.listen, home.config.enrols_at
    server = grpc.server(
        ThreadPoolExecutor(_THREADS, thread_name_prefix="enrolment"),
        options=_OPTIONS,
        maximum_concurrent_rpcs=_MOST_CALLS,
        compression=None,
    )
    add_EnrolmentServicer_to_server(Enrolment(home, fleet=fleet, clock=clock), server)  # type: ignore[no-untyped-call]
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    # Asked for at every handshake: a certificate that was renewed counts at once.
    credentials = grpc.dynamic_ssl_server_credentials(_certificate(home), lambda: _certificate(home))
    try:
        bound = server.add_secure_port(where, credentials)
    except RuntimeError:
        raise InsituError(f"cannot listen on {where}; see enrolment_port in server.toml") from None
    server.start()
    try:
        yield int(bound)
    finally:
        server.stop(grace=1.0).wait()


def _certificate(home: Home) -> Any:
    return grpc.ssl_server_certificate_configuration([(home.key.read_bytes(), home.certificate.read_bytes())])
