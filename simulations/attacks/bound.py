"""How large an ε a number of right guesses proves.

Steinke, Nasr and Jagielski 2023, "Privacy Auditing with One (1) Training Run" (NeurIPS, arXiv:2305.08846). Each of m
canaries is in or out by a fair coin. Who sees no more than an (ε, δ)-DP mechanism releases says "in" or "out" of r of
them, and nothing of the others. By theorem 5.2 they are right v times or more with a probability of at most

    f(v) + 2mδ · max over i = 1 … m of (f(v - i) - f(v)) / i,      f(v) = P[Binomial(r, e^ε / (1 + e^ε)) ≥ v].

The first term is ε's: no guess is better than one at randomised response. The second is δ's: on average it gives away
2mδ canaries, and is of most use where it gives away i at once. An ε for which this is 5 % is refuted at 95 %
confidence, and so is every smaller one. Of 1000 canaries, 75 right guesses of 100 show (the paper's appendix D)

    >>> round(lower_bound(canaries=1000, guesses=100, correct=75, delta=1e-4, confidence=0.95), 3)
    0.673
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import binom

_LARGEST = 64.0  # an ε at which 1 / (1 + e^-ε) is 1 in double precision: no number of right guesses refutes it


def p_value(*, canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """How probable so many right guesses are at most, under (ε, δ)-DP for the addition or removal of one canary.

    Args:
        canaries: m, each in or out by a fair coin of its own.
        guesses: r, up to m; how many, and by what rule, has to be settled before anything is seen.
        correct: v, up to r.
        epsilon: from 0.
        delta: from 0 to 1.
    """
    if not 0 <= correct <= guesses <= canaries:
        raise ValueError(f"got {correct} right of {guesses} guesses at {canaries} canaries, expected no more of each")
    at_least = binom.sf(np.arange(correct, -1, -1) - 1, guesses, expit(epsilon))  # f(v), f(v - 1), …, f(0) = 1
    # With i above v the numerator grows no further; with v = 0 there is no such i, and the probability is 1.
    given_away = (at_least[1:] - at_least[0]) / np.arange(1, correct + 1)
    return min(1.0, float(at_least[0] + 2 * canaries * delta * given_away.max(initial=0.0)))


def lower_bound(*, canaries: int, guesses: int, correct: int, delta: float, confidence: float) -> float:
    """The ε up to which so many right guesses refute (ε, δ)-DP; 0 where they refute nothing.

    For a mechanism that is (ε, δ)-DP it comes out above ε with a probability of at most 1 - confidence.

    Args:
        canaries: see `p_value`.
        guesses: the same.
        correct: the same.
        delta: the same.
        confidence: above 0 and below 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: got {confidence}, expected a number between 0 and 1")

    def excess(epsilon: float) -> float:
        probable = p_value(canaries=canaries, guesses=guesses, correct=correct, epsilon=epsilon, delta=delta)
        return probable - (1 - confidence)

    return 0.0 if excess(0.0) >= 0 else float(brentq(excess, 0.0, _LARGEST))
