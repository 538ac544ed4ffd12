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
from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import lru_cache

from shared.errors import BadInput
from shared.job import Job

Charge = tuple[float, float, int]  # noise multiplier σ, sample rate q, steps
History = Iterable[Charge]

CLAIM = (
    "What ε says: the unit is one patient with all their images (add/remove adjacency, at each hospital by itself). "
    "Each step draws every training patient independently with the job's public sample rate (Poisson sampling); the "
    "drawn images of a patient give one gradient, clipped to the clipping norm; Gaussian noise from a cryptographic "
    "generator seeded by the hospital's operating system is added to their sum, which is divided by a public constant. "
    "Figures of held-out patients, who are others, are read from sums that are noised in the same way. "
    "ε is composed over all steps of all rounds (PRV accounting, with RDP as a check) and holds against everybody who "
    "sees every message and every model, the coordinator included. It is no promise about a patient known to two "
    "hospitals, whose ε add up, nor about the patients whom a job without privacy was trained on."
)

_DECIMALS = 1000  # a noise multiplier is calibrated to 1/1000
_FEW = 4
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


def is_quick(history: History) -> bool:
    """Whether `epsilon` takes a moment: with more different (σ, q) than a few the numerical bound takes seconds."""
    return len(_merged(history)) <= _FEW


def quick_epsilon(history: History, *, delta: float) -> float:
    """`epsilon` where that takes a moment, and `rdp_epsilon` elsewhere."""
    return epsilon(history, delta=delta) if is_quick(history) else rdp_epsilon(history, delta=delta)


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
    from shared import composition

    return min(composition.prv(merged, delta), _rdp_epsilon(merged, delta))


def _rdp_epsilon(merged: tuple[Charge, ...], delta: float) -> float:
    from shared import composition  # torch comes with it: not before it is needed

    return composition.rdp(merged, delta)


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
