"""Who is admitted, and who may change their key; why not is for the operator, and one answer for everybody else.

Admitting takes several steps, and what is cut off between two of them is asked again: the ticket belongs to the first
key that proves it, from then on, and that key gets the same answer whenever it asks.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from server import admission
from server.enrolment.register import MOST_WRONG_PROOFS, Invitation, Register, Try
from server.home import Home
from shared import identity, tickets
from shared.enrolment_pb2 import JoinRequest, RotateRequest
from shared.errors import BadInput

PEER_SECONDS = 600.0
MOST_REFUSED = 30  # tries from one address within that time; more are not looked at


class Stranger(Exception):
    """Refused.

    Attributes:
        why: in words for the operator.
        site: whose ticket or key it was; empty if nobody's.
        ticket: the hash of the ticket whose proof was wrong.
    """

    def __init__(self, why: str, *, site: str = "", ticket: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.site = site
        self.ticket = ticket


@dataclass(frozen=True)
class Joined:
    """A site that was admitted; `new` is whether by this very call."""

    site: str
    key: identity.PublicKey
    new: bool


class Decisions:
    """What the service decides; one call at a time.

    Args:
        home: the coordinator's.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._store = home.store
        self._register = Register(self._store.path)
        self._ca = identity.read_certificate(home.ca)
        self._lock = threading.Lock()

    def is_tiresome(self, peer: str) -> bool:
        """Whether so many tries from this address were refused lately that no more are looked at."""
        return self._register.refused(peer, time.time() - PEER_SECONDS) >= MOST_REFUSED

    def note(self, peer: str, refused: Stranger) -> None:
        """Remember a refusal."""
        self._register.refuse(Try(time.time(), peer, refused.site, refused.why), ticket=refused.ticket)

    def join(self, request: JoinRequest) -> Joined:
        """Admit a site that proves its ticket and its key.

        Raises:
            Stranger: if it does not, or may not.
        """
        key = identity.from_der(request.public_key)
        if key is None:
            raise Stranger("malformed: no public key over P-384")
        statement = tickets.joining(
            ca=self._ca, nonce=request.nonce, site=request.site, ticket=request.ticket, key=request.public_key
        )
        # Before it is looked up: who has no ticket cannot tell by the time it takes whether there is such a one.
        proven = tickets.is_proven(request.ticket, request.proof, statement)
        possessed = identity.is_signed(key, request.possession, statement)
        hashed = tickets.hashed(request.ticket)
        with self._lock:
            invitation = self._register.find(hashed)
            if invitation is None:
                raise Stranger("no ticket of this coordinator's, or one that was never written")
            _check(invitation, request.site, proven=proven, possessed=possessed, now=time.time())
            pem = identity.public_pem(key).decode()
            # Whoever proved it once, and came not to the end, may come again after it has expired.
            if invitation.public_key is None and time.time() >= invitation.expires:
                raise Stranger("the ticket has expired", site=invitation.site)
            if invitation.public_key not in (None, pem):
                raise Stranger("the ticket was used already, with another key", site=invitation.site)
            return self._admit(invitation, key, pem)

    def _admit(self, invitation: Invitation, key: identity.PublicKey, pem: str) -> Joined:
        site = invitation.site
        row = self._store.sites.admitted().get(site)
        if row is not None and row.public_key != pem:
            raise Stranger("the site has another key by now", site=site)
        if row is None and invitation.used is not None:
            raise Stranger("the site was revoked", site=site)
        try:
            if row is None:
                # First of all: a key that cannot be admitted must not have the ticket.
                admission.check(self._home, site, key)
            if not self._register.bind(invitation.ticket, pem):
                raise Stranger("the ticket was used already, with another key", site=site)
            if row is None:
                admission.admit(self._home, site, key)
        except BadInput as error:
            raise Stranger(str(error), site=site) from None
        self._register.use(invitation.ticket)
        return Joined(site, key, new=row is None)

    def rotate(self, request: RotateRequest) -> Joined:
        """Put another key in the place of an admitted site's, which signs for it.

        Raises:
            Stranger: if either key has not signed, or the old one is no site's.
        """
        old, new = identity.from_der(request.old_key), identity.from_der(request.new_key)
        if old is None or new is None:
            raise Stranger("malformed: no public key over P-384")
        statement = tickets.rotating(ca=self._ca, nonce=request.nonce, old=request.old_key, new=request.new_key)
        by_old = identity.is_signed(old, request.by_old, statement)
        by_new = identity.is_signed(new, request.by_new, statement)
        with self._lock:
            names = {row.public_key: name for name, row in self._store.sites.admitted().items()}
            old_pem, new_pem = (identity.public_pem(one).decode() for one in (old, new))
            site = names.get(new_pem) or names.get(old_pem)
            if site is None:
                raise Stranger("a change of key, but the old one is no admitted site's")
            if not by_old or not by_new:
                raise Stranger("a change of key that one of the keys has not signed", site=site)
            if new_pem in names and old_pem in names:
                raise Stranger("a change of key: this key is admitted already", site=site)
            if new_pem in names:
                return Joined(site, new, new=False)  # asked again: the answer to the first call was lost
            try:
                admission.rekey(self._home, site, new)
            except BadInput as error:
                raise Stranger(f"a change of key: {error}", site=site) from None
            return Joined(site, new, new=True)


def _check(invitation: Invitation, site: str, *, proven: bool, possessed: bool, now: float) -> None:
    hashed, ours = invitation.ticket, invitation.site
    if invitation.withdrawn is not None:
        raise Stranger("the ticket was taken back, or replaced by a newer one", site=ours)
    if invitation.used is None and invitation.wrong >= MOST_WRONG_PROOFS:
        raise Stranger(f"the ticket is dead after {MOST_WRONG_PROOFS} wrong proofs; invite the site again", site=ours)
    if not proven or site != ours:
        raise Stranger("a wrong proof: somebody knows of this ticket, and has not its secret", site=ours, ticket=hashed)
    if not possessed:
        raise Stranger("the ticket is right, and the site's key has not signed", site=ours, ticket=hashed)
