"""What an audit came to, for people and for programs."""

from __future__ import annotations

import textwrap
from dataclasses import asdict

from shared import console
from shared.accounting import CLAIM
from simulations.attacks.audit import SHOWS, Audit

_WIDTH = 110


def show(audit: Audit, *, name: str, as_json: bool) -> None:
    """One row on stdout, with what ε says and what an audit shows on stderr; or all of it as JSON.

    Args:
        audit: done.
        name: of the job.
        as_json: what `--json` said.
    """
    if as_json:
        console.dump({**asdict(audit), "refuted": audit.refuted, "says": CLAIM, "shows": SHOWS})
        return
    row = {
        "claimed ε": audit.claim,
        "δ": f"{audit.delta:g}",
        f"lower bound at {100 * audit.confidence:g} %": audit.lower_bound,
        "its limit": audit.limit,
        "canaries": audit.canaries,
        "guesses": audit.guesses,
        "correct": audit.correct,
        "σ": audit.noise_multiplier,
        "steps": audit.steps,
        "seconds": audit.seconds,
    }
    console.listing([row], title=f"{name}: the claim is {'refuted' if audit.refuted else 'not refuted'}")
    for text in (CLAIM, SHOWS):
        console.say(textwrap.fill(text, _WIDTH))
