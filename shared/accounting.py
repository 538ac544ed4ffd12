"""Privacy accounting: (noise multiplier, sample rate, steps) history → ε, and the noise that keeps a job within its ε.

The mechanism is the Poisson-subsampled Gaussian under add/remove adjacency. ε is computed twice, by Opacus: numerically
(PRV: Gopi, Lee, Wutschitz 2021, "Numerical Composition of Differential Privacy") and by Rényi divergences (RDP:
Mironov, Talwar, Zhang 2019). Both are upper bounds, so the smaller one holds; PRV is about a tenth tighter, and where
its grid would be too large or its numerics give out, RDP stands alone. The tests hold both against dp-accounting.

    >>> history = [(1.0, 0.04, 250), (1.0, 0.04, 250)]
    >>> round(epsilon(history, delta=1e-5), 2)
    5.89
    >>> calibrate(epsilon=8.0, delta=1e-5, sample_rate=0.05, steps=750)
    1.088
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from opacus.accountants import PRVAccountant
from opacus.accountants.analysis.prv import Domain
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

from shared.errors import BadInput
from shared.job import Job

Charge = tuple[float, float, int]  # noise multiplier σ, sample rate q, steps
History = Iterable[Charge]

CLAIM = (
    "What ε says: the unit is one patient with all their images (add/remove adjacency, at each hospital by itself). "
    "Each step draws every training patient independently with the job's public sample rate (Poisson sampling); the "
    "drawn images of a patient give one gradient, clipped to the clipping norm; Gaussian noise from a cryptographic "
    "generator seeded by the hospital's operating system is added to their sum, which is divided by a public constant. "
    "ε is composed over all steps of all rounds (PRV accounting, with RDP as a check) and holds against everybody who "
    "sees every message and every model, the coordinator included. It is no promise about a patient known to two "
    "hospitals, whose ε add up, nor about the patients whom a job without privacy was trained on."
)

# Orders of the Rényi divergence that Opacus computes, and those in between (see `_rdp_of_a_step`).
_COMPUTED = (1.25, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, *range(5, 65), 80, 96, 128, 192, 256, 384, 512)
_ORDERS = np.concatenate([np.arange(1.05, 5, 0.05), np.arange(5, 25, 0.2), np.arange(25, 65), _COMPUTED[-7:]])
_EPSILON_ERROR = 0.01  # what the PRV bound may be above the truth
_GRID = 2**22  # points of the PRV grid, a quarter of a gigabyte: no job may cost a site more
_LARGEST_LOSS = 500.0  # its end: exp() of the privacy loss must stay within the range of a float
_SMALLEST_PRV_DELTA = 1e-10  # below, the rounding errors of a sum of floats are of its size
_DECIMALS = 1000  # a noise multiplier is calibrated to 1/1000
_LEAST, _RUNGS = 50, 205  # in those units: .05, and 5 % more with every rung up to 1000


def epsilon(history: History, *, delta: float) -> float:
    """The ε spent by all these steps together, at this δ.

    Args:
        history: (σ, q, steps) each; a σ of 0 protects nobody.
        delta: above 0 and below 1.

    Returns:
        An upper bound from 0; 0 where no step was taken, infinity where one had no noise.

    Raises:
        ValueError: if δ or a charge is not possible.
    """
    return _epsilon(_merged(history), _possible(delta))


def rdp_epsilon(history: History, *, delta: float) -> float:
    """The same by RDP alone: looser, quicker, and the check on `epsilon`."""
    return _rdp_epsilon(_merged(history), _possible(delta))


def within(history: History, *, delta: float, epsilon: float) -> bool:
    """Whether `epsilon(history, delta=delta) <= epsilon`, by the quick bound where that is enough."""
    merged = _merged(history)
    return _rdp_epsilon(merged, _possible(delta)) <= epsilon or _epsilon(merged, delta) <= epsilon


@lru_cache(maxsize=256)
def calibrate(*, epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """The smallest noise multiplier, to three decimals, with which `steps` steps stay within (ε, δ).

    Returns:
        σ from .05; 0 where there are no steps.

    Raises:
        BadInput: if no noise multiplier up to 1000 is enough.
    """
    if steps == 0:
        return 0.0

    def history(thousandths: int) -> tuple[Charge, ...]:
        return _merged([(thousandths / _DECIMALS, sample_rate, steps)])

    _possible(delta)
    ladder = [math.ceil(_LEAST * 1.05**rung) for rung in range(_RUNGS)]
    rung = bisect_left(ladder, True, key=lambda noise: _rdp_epsilon(history(noise), delta) <= epsilon)
    enough = ladder[min(rung, _RUNGS - 1)]
    if _epsilon(history(enough), delta) > epsilon:
        raise BadInput(
            f"[privacy] epsilon: {epsilon} (with delta {delta}) cannot be kept over {steps} steps at sample rate "
            f"{sample_rate}; allow more epsilon, or fewer steps"
        )
    return _refined(lambda noise: _epsilon(history(noise), delta), epsilon, enough) / _DECIMALS


def noise_for(job: Job) -> float:
    """The noise multiplier that keeps a whole private job, all its rounds, within its ε and δ.

    Raises:
        BadInput: if there is none.
        ValueError: if the job is not private.
    """
    privacy, steps = job.privacy, job.steps_per_round
    if privacy.epsilon is None or privacy.delta is None or privacy.sample_rate is None or steps is None:
        raise ValueError("a job without privacy has no noise")
    return calibrate(
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        sample_rate=privacy.sample_rate,
        steps=job.federation.rounds * steps,
    )


def _possible(delta: float) -> float:
    if not 0 < delta < 1:
        raise ValueError(f"delta: got {delta}, expected a number between 0 and 1")
    return delta


def _merged(history: History) -> tuple[Charge, ...]:
    """One entry per (σ, q): the order does not matter, and the PRV accountant's time grows with the entries."""
    steps: dict[tuple[float, float], int] = {}
    for noise_multiplier, sample_rate, count in history:
        if not noise_multiplier >= 0 or not 0 < sample_rate <= 1 or count < 0:
            raise ValueError(f"not a possible charge: {noise_multiplier}, {sample_rate}, {count}")
        if count:
            steps[noise_multiplier, sample_rate] = steps.get((noise_multiplier, sample_rate), 0) + count
    return tuple(sorted((*key, count) for key, count in steps.items()))


@lru_cache(maxsize=4096)
def _epsilon(merged: tuple[Charge, ...], delta: float) -> float:
    bound = _rdp_epsilon(merged, delta)
    if not 0 < bound < math.inf or delta < _SMALLEST_PRV_DELTA:
        return bound
    accountant = _PRV()
    accountant.history = list(merged)
    try:
        with _quiet():
            exact = float(accountant.get_epsilon(delta, eps_error=_EPSILON_ERROR))
    except (_TooLarge, RuntimeError, ValueError, ArithmeticError, IndexError):
        return bound
    return min(exact, bound) if exact > 0 else bound  # also where it is not a number


class _TooLarge(Exception):
    pass


class _PRV(PRVAccountant):
    """Opacus's PRV accountant on the same domain (remark 5.6 of the paper), found with the quick RDP, and bounded."""

    def _get_domain(self, prvs: object, num_self_compositions: object, eps_error: float, delta_error: float) -> Domain:
        steps = sum(count for _, _, count in self.history)
        half = _rdp_epsilon(tuple(self.history), delta_error / 4)
        for noise_multiplier, sample_rate, _ in self.history:
            half = max(half, _rdp_epsilon(((noise_multiplier, sample_rate, 1),), delta_error / (8 * steps)))
        half = max(half, eps_error) + 3
        mesh = eps_error / math.sqrt(steps * math.log(12 / delta_error) / 2)
        if half > _LARGEST_LOSS or 2 * half / mesh > _GRID:
            raise _TooLarge
        return Domain.create_aligned(-half, half, mesh)


def _rdp_epsilon(merged: tuple[Charge, ...], delta: float) -> float:
    if not merged:
        return 0.0
    if any(noise_multiplier == 0 for noise_multiplier, _, _ in merged):
        return math.inf
    divergence = np.sum([_rdp_of_a_step(noise, rate) * steps for noise, rate, steps in merged], axis=0)
    with _quiet():
        bound = float(get_privacy_spent(orders=_ORDERS, rdp=divergence, delta=delta)[0])
    return math.inf if math.isnan(bound) else max(0.0, bound)


@lru_cache(maxsize=4096)
def _rdp_of_a_step(noise_multiplier: float, sample_rate: float) -> npt.NDArray[np.float64]:
    """The Rényi divergence at each of `_ORDERS`.

    Opacus's series for an order that is not whole converges slowly, most of all below 2: few are computed. (α - 1)
    times the divergence is convex in α (a cumulant generating function) and 0 at α = 1, so that the straight line
    between two orders is an upper bound.
    """

    def computed(order: float) -> float:
        try:
            return float(compute_rdp(q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=float(order)))
        except (ValueError, ArithmeticError):
            return math.inf

    with _quiet():
        orders = np.array([1, *_COMPUTED])
        scaled = (orders - 1) * np.array([0.0, *map(computed, _COMPUTED)])
        values = np.interp(_ORDERS, orders, scaled) / (_ORDERS - 1)
    return np.where(np.isfinite(values), np.maximum(values, 0), np.inf)


@contextmanager
def _quiet() -> Iterator[None]:
    """Opacus warns of what is handled here: a logarithm of 0 at q = 1, a best order at the end of the list."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _refined(epsilon_of: Callable[[int], float], target: float, enough: int) -> int:
    """The first whole number at which a falling function is at most the target, close below `enough`, where it is.

    Secants in logarithms, where ε over σ is nearly a straight line: the function takes a tenth of a second.
    """
    too_little = enough
    while epsilon_of(too_little) <= target:
        if too_little == _LEAST:
            return _LEAST
        enough, too_little = too_little, max(_LEAST, int(too_little * 0.9))
    while enough - too_little > 1:
        above, below = epsilon_of(too_little), max(epsilon_of(enough), 1e-12)
        share = math.log(above / target) / math.log(above / below) if math.isfinite(above) else 0.5
        guess = min(max(too_little + share * (enough - too_little), too_little + 1), enough - 1)
        # A good guess closes the bracket from both of its sides.
        for noise in (math.ceil(guess), math.floor(guess)):
            if too_little < noise < enough:
                if epsilon_of(noise) <= target:
                    enough = noise
                else:
                    too_little = noise
    return enough
