"""Nonces that are good once, and how often one address may ask. What is remembered here, nobody can make grow."""

from __future__ import annotations

import hmac
import ipaddress
import os
import struct
import threading
import time
from collections import OrderedDict, deque
from urllib.parse import unquote

NONCE_SECONDS = 60.0
_MOST_NONCES = 100_000  # that were used within their minute; 250 calls for each of the process's file descriptors
CALLS_A_MINUTE = 600
_MOST_PEERS = 10_000


class Nonces:
    """Gives nonces, and takes each once. They say themselves when they end: nothing is kept of one not used.

    A restart forgets which were used, and its key: those given before it are good for nothing.
    """

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._used: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def give(self) -> bytes:
        """A new nonce."""
        said = os.urandom(16) + struct.pack(">d", time.monotonic() + NONCE_SECONDS)
        return said + self._mac(said)

    def take(self, nonce: bytes) -> bool:
        """Whether a nonce is ours, in time, and not used before; it is now."""
        said, mac = nonce[:24], nonce[24:]
        if len(nonce) != 56 or not hmac.compare_digest(mac, self._mac(said)):
            return False
        now, ends = time.monotonic(), struct.unpack(">d", said[16:])[0]
        with self._lock:
            while self._used and next(iter(self._used.values())) <= now:
                self._used.popitem(last=False)
            if now >= ends or said in self._used or len(self._used) >= _MOST_NONCES:
                return False
            # They are taken about in the order in which they end; one that is not is kept a little longer.
            self._used[said] = now + NONCE_SECONDS
        return True

    def _mac(self, said: bytes) -> bytes:
        return hmac.digest(self._key, said, "sha256")


class Calls:
    """Counts the calls of each address within a minute."""

    def __init__(self, most: int = CALLS_A_MINUTE) -> None:
        self._most = most
        self._calls: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def admits(self, peer: str) -> bool:
        """Count a call; whether it is not one too many."""
        now = time.monotonic()
        with self._lock:
            calls = self._calls.setdefault(peer, deque())
            self._calls.move_to_end(peer)
            while calls and calls[0] < now - 60:
                calls.popleft()
            if len(self._calls) > _MOST_PEERS:
                self._calls.popitem(last=False)
            if len(calls) >= self._most:
                return False
            calls.append(now)
        return True


def address(peer: str) -> str:
    """The address in what gRPC says of a peer; of IPv6 the network, of which somebody has all addresses."""
    kind, _, rest = peer.partition(":")
    host = unquote(rest).rpartition(":")[0].strip("[]")
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return kind[:40] or "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
