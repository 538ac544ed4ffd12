"""An audit of a job's ε in one run: canaries go through the real private training, and an observer guesses who was in.

Algorithm 1 of Steinke, Nasr and Jagielski 2023, "Privacy Auditing with One (1) Training Run" (arXiv:2305.08846). Each
canary is in or out by a fair coin, and all rounds of the job are trained on those that are in (see `canaries`). A
canary's score is how far the updates together moved the model along its axis (their algorithm 3): those with the
highest scores are guessed to be in, those with the lowest out, and of the rest nothing is said. `bound` tells what the
right guesses prove.

The score adds up what was released. It is blind to noise that comes back in every round, of which the difference of two
rounds is free; the tests look for that in the updates themselves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from client.training.drawing import Source
from shared import accounting
from shared.errors import BadInput
from shared.job import Job
from simulations.attacks.bound import lower_bound
from simulations.attacks.canaries import Canaries, job_on, updates

SHOWS = (
    "What an audit shows: a lower bound above the claim refutes the claim, at this confidence. One that is not above "
    "it proves nothing, for a better attack might find more. One run is a weak witness: with so many guesses, at this "
    "δ, a claim above the bound's limit could not be refuted even if there were no noise at all. Audited is the real "
    "training with the job's privacy, rounds and steps, on canaries and a network made for them; not the job's own "
    "network and data, and nothing else that a site does."
)

# Of all canaries the share guessed to be in, and as many to be out. It has to be settled beforehand: on Gaussian scores
# of 1000 canaries no other share shows a tenth more, wherever the lower bound is from .4 to 4.
_SHARE = 0.1


@dataclass(frozen=True)
class Audit:
    """What came of it.

    Attributes:
        claim: the ε to be refuted, at the job's δ.
        delta: δ.
        lower_bound: ε is not below it, at this confidence.
        limit: the lower bound if every guess had been right.
        confidence: between 0 and 1.
        canaries: in and out.
        guesses: how many of them were guessed at.
        correct: how many rightly.
        noise_multiplier: σ.
        steps: of all rounds.
        seconds: it took.
    """

    claim: float
    delta: float
    lower_bound: float
    limit: float
    confidence: float
    canaries: int
    guesses: int
    correct: int
    noise_multiplier: float
    steps: int
    seconds: float

    @property
    def refuted(self) -> bool:
        """Whether the claim is."""
        return self.lower_bound > self.claim


def check(job: Job, *, file: object) -> None:
    """Whether there is anything to audit.

    Args:
        job: of any network, which is not looked at.
        file: where it is from, for the message.

    Raises:
        BadInput: for a job without privacy, without steps, or with an ε that no noise can keep.
    """
    try:
        if not job.private:
            raise BadInput('[privacy] mode: got "none", expected "patient": a job without privacy claims nothing')
        if not job.steps_per_round:
            raise BadInput("[training] local_steps: got 0, expected 1 or more: where nothing is trained nothing leaks")
        accounting.noise_for(job)
    except BadInput as error:
        raise BadInput(str(error), file=file) from None


def run(
    job: Job,
    *,
    claim: float | None = None,
    canaries: int = 1000,
    confidence: float = 0.95,
    coins: Source | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Audit:
    """Train all rounds of the job on canaries, guess who they were, and say what the right guesses prove.

    Args:
        job: one that passes `check`.
        claim: an ε from 0, by default the job's own.
        canaries: from 10.
        confidence: above 0 and below 1.
        coins: say who is in; by default they come from the operating system.
        progress: called after every round.

    Raises:
        BadInput: for a claim or a confidence that cannot be.
    """
    started = time.perf_counter()
    privacy, steps = job.privacy, job.steps_per_round
    if privacy.epsilon is None or privacy.delta is None or not steps:
        raise ValueError("a job without privacy, or without steps, cannot be audited")
    claim = privacy.epsilon if claim is None else claim
    if not 0 <= claim < math.inf:
        raise BadInput(f"--claim: got {claim}, expected an ε from 0")
    if not 0 < confidence < 1:
        raise BadInput(f"--confidence: got {confidence}, expected a number above 0 and below 1")
    noise_multiplier = accounting.noise_for(job)

    # Not from `client.training.noise`, which is what is audited.
    present = (coins or np.random.default_rng()).random(canaries) < 0.5
    scores = np.zeros(canaries)
    cohort = Canaries(present.nonzero()[0], job_on(job, canaries))
    for update in updates(cohort, noise_multiplier=noise_multiplier):
        scores += update[:canaries]
        progress()

    each = round(_SHARE * canaries)
    ranking = np.argsort(scores, kind="stable")
    correct = int((~present[ranking[:each]]).sum() + present[ranking[-each:]].sum())
    bound = partial(lower_bound, canaries=canaries, guesses=2 * each, delta=privacy.delta, confidence=confidence)
    return Audit(
        claim=claim,
        delta=privacy.delta,
        lower_bound=bound(correct=correct),
        limit=bound(correct=2 * each),
        confidence=confidence,
        canaries=canaries,
        guesses=2 * each,
        correct=correct,
        noise_multiplier=noise_multiplier,
        steps=job.federation.rounds * steps,
        seconds=time.perf_counter() - started,
    )
