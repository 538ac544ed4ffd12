"""The bound: the paper's own figures, exact arithmetic, and mechanisms whose ε is known."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom, binomtest

from simulations.attacks.bound import lower_bound, p_value


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta", "published"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675)],  # appendix D, and section 7
)
def test_it_is_what_the_paper_prints(canaries, guesses, correct, delta, published):
    found = lower_bound(canaries=canaries, guesses=guesses, correct=correct, delta=delta, confidence=0.95)
    assert found == pytest.approx(published, abs=1e-3)


@pytest.mark.parametrize("correct", [0, 1, 5, 8, 9])
@pytest.mark.parametrize("delta", [Fraction(0), Fraction(1, 1000), Fraction(1, 20)])
def test_the_p_value_is_that_of_the_theorem_in_exact_fractions(correct, delta):
    canaries, guesses, right = 30, 9, Fraction(2, 3)  # e^ε = 2

    def at_least(v: int) -> Fraction:
        return sum(comb(guesses, k) * right**k * (1 - right) ** (guesses - k) for k in range(max(0, v), guesses + 1))

    tail = at_least(correct)
    heap = max((at_least(correct - i) - tail) / i for i in range(1, canaries + 1))
    expected = min(Fraction(1), tail + 2 * canaries * delta * heap)
    found = p_value(canaries=canaries, guesses=guesses, correct=correct, epsilon=np.log(2), delta=float(delta))
    assert found == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("guesses", [20, 300])
@pytest.mark.parametrize("share", [0.55, 0.8, 1.0])
def test_with_a_delta_of_zero_it_is_the_clopper_pearson_bound_on_a_guess(guesses, share):
    correct = round(share * guesses)
    least = binomtest(correct, guesses, alternative="greater").proportion_ci(0.95, method="exact").low
    found = lower_bound(canaries=guesses, guesses=guesses, correct=correct, delta=0.0, confidence=0.95)
    assert found == pytest.approx(max(0.0, np.log(least / (1 - least))), abs=1e-9)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-3])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_randomised_response_is_above_its_own_epsilon_no_oftener_than_the_confidence_says(epsilon, delta, confidence):
    guesses = 200
    bounds = [
        lower_bound(canaries=1000, guesses=guesses, correct=correct, delta=delta, confidence=confidence)
        for correct in range(guesses + 1)
    ]
    probable = binom.pmf(np.arange(guesses + 1), guesses, expit(epsilon))
    assert probable[np.array(bounds) > epsilon].sum() <= 1 - confidence


@pytest.mark.parametrize("delta", [1e-4, 1e-2, 0.2])
def test_giving_everybody_away_once_in_a_while_is_covered_by_delta(delta):
    guesses = 20
    for correct in range(guesses + 1):
        honest = binom.sf(correct - 1, guesses, expit(1.0))
        found = p_value(canaries=guesses, guesses=guesses, correct=correct, epsilon=1.0, delta=delta)
        assert (1 - delta) * honest + delta <= found + 1e-12


def test_more_right_guesses_show_more_and_more_confidence_less():
    def bound(correct: int, confidence: float = 0.95) -> float:
        return lower_bound(canaries=1000, guesses=200, correct=correct, delta=1e-5, confidence=confidence)

    found = [bound(correct) for correct in range(201)]
    assert found == sorted(found)
    assert found[100] == 0
    assert bound(170, 0.9) > bound(170, 0.95) > bound(170, 0.99) > 0


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="11 right of 10"):
        p_value(canaries=100, guesses=10, correct=11, epsilon=1.0, delta=0.0)
    with pytest.raises(ValueError, match="confidence"):
        lower_bound(canaries=100, guesses=10, correct=9, delta=0.0, confidence=1.0)
