"""Looks, while work is under way, whether it may go on: the operator's no and the policy's time limit count at once."""

from __future__ import annotations

import time
from collections.abc import Callable

from client.jobs import Inbox
from client.site import Policy
from shared.errors import RefusalCode, Refused
from shared.job import Job

Watch = Callable[[], None]  # called with every step and every pass; raises where the work may not go on


def nothing() -> None:
    """Watches nothing: what nobody could revoke may go on."""


def over(job: Job, inbox: Inbox, policy: Policy) -> Watch:
    """A watch over one message's work, which begins now.

    The watch raises:
        Refused: `revoked` or `time`.
    """
    deadline = time.monotonic() + 60 * policy.max_minutes

    def look() -> None:
        if inbox.revoked(job):
            raise Refused(RefusalCode.REVOKED, f"the operator said no to job {job.name} while it was under way")
        if time.monotonic() > deadline:
            raise Refused(
                RefusalCode.TIME, f"job {job.name} took longer than the {policy.max_minutes:g} minutes of the policy"
            )

    return look
