"""The two bounds on ε that Opacus has for the Poisson-subsampled Gaussian; importing this imports torch (seconds).

`rdp` is by Rényi divergences (Mironov, Talwar, Zhang 2019, arXiv:1908.10530), `prv` numerical (Gopi, Lee, Wutschitz
2021, arXiv:2106.02848). See `shared.accounting`, which is what everybody else asks.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from opacus.accountants import PRVAccountant
from opacus.accountants.analysis.prv import Domain
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

Charges = tuple[tuple[float, float, int], ...]  # merged: noise multiplier σ, sample rate q, steps above 0

# Orders of the Rényi divergence that Opacus computes, and those in between (see `_rdp_of_a_step`).
_COMPUTED = (1.25, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, *range(5, 65), 80, 96, 128, 192, 256, 384, 512)
_ORDERS = np.concatenate([np.arange(1.05, 5, 0.05), np.arange(5, 25, 0.2), np.arange(25, 65), _COMPUTED[-7:]])
_EPSILON_ERRORS = (0.01, 0.05, 0.2)  # what the PRV bound may be above the truth: the first that the grid allows
_GRID = 2**20  # points of the PRV grid: no job may cost a site more than some seconds of it
_LARGEST_LOSS = 500.0  # its end: exp() of the privacy loss must stay within the range of a float
_SMALLEST_PRV_DELTA = 1e-10  # below, the rounding errors of a sum of floats are of its size


def prv(merged: Charges, delta: float) -> float:
    """The numerical bound; infinity where its grid would be too large, or its numerics give out."""
    if not 0 < rdp(merged, delta) < math.inf or delta < _SMALLEST_PRV_DELTA:
        return math.inf
    accountant = _PRV()
    accountant.history = list(merged)
    for error in _EPSILON_ERRORS:
        try:
            with _quiet():
                exact = float(accountant.get_epsilon(delta, eps_error=error))
        except _TooLarge:
            continue
        except (RuntimeError, ValueError, ArithmeticError, IndexError):
            return math.inf
        return exact if exact > 0 else math.inf  # also where it is not a number
    return math.inf


class _TooLarge(Exception):
    pass


class _PRV(PRVAccountant):
    """Opacus's PRV accountant on the same domain (remark 5.6 of the paper), found with the quick RDP, and bounded."""

    def _get_domain(self, prvs: object, num_self_compositions: object, eps_error: float, delta_error: float) -> Domain:
        steps = sum(count for _, _, count in self.history)
        half = rdp(tuple(self.history), delta_error / 4)
        for noise_multiplier, sample_rate, _ in self.history:
            half = max(half, rdp(((noise_multiplier, sample_rate, 1),), delta_error / (8 * steps)))
        half = max(half, eps_error) + 3
        mesh = eps_error / math.sqrt(steps * math.log(12 / delta_error) / 2)
        if half > _LARGEST_LOSS or 2 * half / mesh > _GRID:
            raise _TooLarge
        return Domain.create_aligned(-half, half, mesh)


def rdp(merged: Charges, delta: float) -> float:
    """The bound by Rényi divergences: 0 for no step, infinity for one without noise."""
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
