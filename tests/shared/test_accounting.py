"""ε against dp-accounting, an independent library, and what must hold of any accountant."""

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import accounting
from shared.errors import BadInput
from shared.job import Job

HISTORIES = [
    ([(1.0, 0.04, 500)], 1e-5),
    ([(1.5, 0.1, 200)], 1e-3),
    ([(0.7, 0.02, 1000)], 1e-5),
    ([(4.6, 0.01, 3000)], 1e-6),
    ([(0.9, 0.01, 10)], 1e-6),
    ([(0.8, 0.5, 4)], 1e-4),
    ([(1.0, 1.0, 1)], 1e-5),
    ([(5.0, 1.0, 100)], 1e-5),
    ([(20.0, 0.05, 10)], 1e-5),
    ([(1.1, 0.05, 75), (1.3, 0.05, 75), (0.9, 0.02, 30), (2.0, 0.1, 50)], 1e-5),
]


def independent(history, delta):
    """ε by dp-accounting: (by privacy loss distributions, by Rényi divergences)."""
    found = []
    for accountant in (PLDAccountant(), RdpAccountant()):
        for noise_multiplier, sample_rate, steps in history:
            gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
            step = dp_accounting.PoissonSampledDpEvent(sample_rate, gaussian)
            accountant.compose(dp_accounting.SelfComposedDpEvent(step, steps))
        found.append(accountant.get_epsilon(delta))
    return found


@pytest.mark.parametrize(("history", "delta"), HISTORIES)
def test_epsilon_is_what_two_independent_accountants_say(history, delta):
    by_loss, by_divergence = independent(history, delta)
    # The numerical bound is above the truth by its own allowance of .01; dp-accounting's is within .001 of it.
    assert -0.001 < accounting.epsilon(history, delta=delta) - by_loss < 0.013
    # Straight lines between orders: up to two in a hundred more, or less than they where they try fewer orders.
    ours = accounting.rdp_epsilon(history, delta=delta)
    assert 0.95 * by_divergence < ours < 1.025 * by_divergence + 0.01
    assert accounting.epsilon(history, delta=delta) <= ours


def test_nothing_spent_is_zero_and_no_noise_is_no_privacy():
    assert accounting.epsilon([], delta=1e-5) == 0
    assert accounting.epsilon([(1.0, 0.1, 0)], delta=1e-5) == 0
    assert accounting.epsilon([(0.0, 0.1, 1)], delta=1e-5) == float("inf")
    assert not accounting.within([(0.0, 0.1, 1)], delta=1e-5, epsilon=1e9)


def test_equal_steps_are_one_entry_whatever_their_order():
    history = [(1.0, 0.05, 10), (2.0, 0.05, 10)] * 40
    assert accounting.epsilon(history, delta=1e-5) == accounting.epsilon(
        [(2.0, 0.05, 400), (1.0, 0.05, 400)], delta=1e-5
    )


@pytest.mark.parametrize(
    ("history", "delta"),
    [
        ([(1.0, 0.0, 1)], 1e-5),
        ([(1.0, 1.1, 1)], 1e-5),
        ([(-1.0, 0.1, 1)], 1e-5),
        ([(float("nan"), 0.1, 1)], 1e-5),
        ([(1.0, 0.1, -1)], 1e-5),
        ([(1.0, 0.1, 1)], 0.0),
        ([(1.0, 0.1, 1)], 1.0),
    ],
)
def test_what_cannot_be_is_no_charge(history, delta):
    with pytest.raises(ValueError, match=r"possible|delta"):
        accounting.epsilon(history, delta=delta)


@pytest.mark.parametrize(("sigma", "rate", "steps"), [(0.05, 0.5, 4), (2.0, 0.05, 10**7), (0.3, 1.0, 10**5)])
def test_where_the_grid_would_be_too_large_the_rdp_bound_stands(sigma, rate, steps):
    history = [(sigma, rate, steps)]
    assert accounting.epsilon(history, delta=1e-5) == accounting.rdp_epsilon(history, delta=1e-5)


noises, rates, counts = st.floats(0.6, 5), st.floats(0.005, 0.5), st.integers(1, 200)


@settings(max_examples=8, deadline=None)
@given(noises, rates, counts)
def test_more_noise_fewer_steps_a_smaller_rate_and_a_larger_delta_never_cost_more(noise, rate, steps):
    spent = accounting.epsilon([(noise, rate, steps)], delta=1e-5)
    slack = 2e-3  # of the numerical bound, whose grid moves
    assert accounting.epsilon([(1.2 * noise, rate, steps)], delta=1e-5) <= spent + slack
    assert accounting.epsilon([(noise, rate, steps + 10)], delta=1e-5) >= spent - slack
    assert accounting.epsilon([(noise, 0.8 * rate, steps)], delta=1e-5) <= spent + slack
    assert accounting.epsilon([(noise, rate, steps)], delta=1e-4) <= spent + slack
    assert accounting.epsilon([(noise, rate, steps), (4.0, 0.1, 5)], delta=1e-5) >= spent - slack


@pytest.mark.parametrize(
    ("epsilon", "delta", "rate", "steps"),
    [(8.0, 1e-5, 0.05, 750), (2.0, 1e-5, 0.05, 750), (8.0, 1e-4, 0.5, 4), (1.0, 1e-5, 1.0, 100), (0.1, 1e-6, 0.01, 99)],
)
def test_calibrated_noise_is_the_least_that_keeps_the_job_within_its_epsilon(epsilon, delta, rate, steps):
    noise = accounting.calibrate(epsilon=epsilon, delta=delta, sample_rate=rate, steps=steps)
    assert noise == round(noise, 3)
    assert accounting.epsilon([(noise, rate, steps)], delta=delta) <= epsilon
    assert accounting.epsilon([(noise - 0.001, rate, steps)], delta=delta) > epsilon


def test_no_steps_need_no_noise():
    assert accounting.calibrate(epsilon=1.0, delta=1e-5, sample_rate=0.1, steps=0) == 0


def test_an_epsilon_that_cannot_be_kept_is_named():
    with pytest.raises(BadInput, match=r"\[privacy\] epsilon"):
        accounting.calibrate(epsilon=1e-4, delta=1e-9, sample_rate=1.0, steps=10**9)


def test_a_job_is_calibrated_over_all_its_rounds(private_job: Job):
    steps = private_job.federation.rounds * private_job.training.local_steps
    noise = accounting.noise_for(private_job)
    spent = accounting.epsilon([(noise, 0.5, steps)], delta=private_job.privacy.delta)
    assert 0.95 * 8 < spent <= 8
    more_rounds = private_job.varied(federation={"rounds": 20})
    assert accounting.noise_for(more_rounds) > noise
    with pytest.raises(ValueError, match="without privacy"):
        accounting.noise_for(private_job.without_privacy())


def test_the_claim_says_unit_adjacency_sampling_and_adversary():
    for word in ("patient", "add/remove", "Poisson", "clipped", "public constant", "coordinator", "two hospitals"):
        assert word in accounting.CLAIM
