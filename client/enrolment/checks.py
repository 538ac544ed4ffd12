"""What else has to be right before the daemon can connect: the clocks, the versions, the way to the fleet port."""

from __future__ import annotations

import ssl
from importlib.metadata import version

import httpx

from client.enrolment.channel import Begun, proxy_for, shown
from shared.errors import InsituError
from shared.messages import PROTOCOL

# Flower takes a signature whose time is at most so far ahead of its own clock, or behind it.
MOST_AHEAD_SECONDS = 5.0
MOST_BEHIND_SECONDS = 305.0
_WORTH_SAYING_SECONDS = 2.0
_TIMEOUT_SECONDS = 20.0


def protocol(begun: Begun) -> None:
    """Make sure that both sides speak the same.

    Raises:
        InsituError: if they do not.
    """
    if begun.protocol != PROTOCOL:
        older = "this one" if begun.protocol > PROTOCOL else "the coordinator's"
        raise InsituError(
            f"the coordinator speaks protocol {begun.protocol}, this insitu ({version('insitu')}) protocol {PROTOCOL}: "
            f"upgrade {older}, then join with the same ticket"
        )


def clock(begun: Begun) -> tuple[str | None, str | None]:
    """How far the clocks are apart: what is wrong, and what is only worth saying."""
    ahead = begun.ahead
    said = f"this machine's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the coordinator's"
    bounds = f"at most {MOST_AHEAD_SECONDS:.0f} s ahead or {MOST_BEHIND_SECONDS:.0f} s behind are accepted"
    if ahead > MOST_AHEAD_SECONDS or -ahead > MOST_BEHIND_SECONDS:
        return (
            f"{said}, and {bounds}: set whichever is wrong (`timedatectl set-ntp true`), or nothing is accepted",
            None,
        )
    if abs(ahead) > _WORTH_SAYING_SECONDS + begun.accuracy:
        return None, f"{said} ({bounds}): have it set by a time server (`timedatectl set-ntp true`)"
    return None, None


def release(theirs: str) -> str | None:
    """What there is to say of the coordinator's version."""
    ours = version("insitu")
    if theirs.split(".")[:2] == ours.split(".")[:2]:
        return None
    return (
        f"the coordinator runs insitu {theirs[:40]}, this is {ours}: better have the same minor version on both sides"
    )


def reach(address: str, ca: bytes) -> str | None:
    """Why the SuperNode could not connect to the fleet interface; None where it could.

    Args:
        address: host:port.
        ca: the coordinator's CA certificate (PEM).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca.decode())
    proxy = proxy_for(address)
    way = f" through the proxy {shown(proxy)}" if proxy else ""
    try:
        with httpx.Client(verify=context, timeout=_TIMEOUT_SECONDS) as client:
            found = client.get(f"https://{address}/health")
    except httpx.ProxyError:
        return f"the proxy {shown(proxy)} does not let this machine through to {address}"
    except httpx.HTTPError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return f"{address} shows a certificate that is not this coordinator's{way}: who is in between?"
        return f"{address} cannot be reached{way}: does a firewall let this machine dial that port?"
    return None if found.status_code == httpx.codes.OK else f"{address} answers, but not as a coordinator does{way}"
