"""One code for each rule, in a fixed order."""

import datetime as dt

import pytest

from client import policy
from client.site import Approval, DatasetRules, Policy
from shared.errors import RefusalCode, Refused
from shared.job import Job

STRICT = Policy(tasks=("classification",), max_epsilon_per_job=2.0, min_sites=3)


def refused(allowed: Policy, job: Job) -> RefusalCode:
    with pytest.raises(Refused) as caught:
        policy.check_job(allowed, job)
    assert job.name in caught.value.detail
    return caught.value.code


@pytest.mark.parametrize(
    ("allowed", "change", "code"),
    [
        ({"tasks": ("classification",)}, {}, RefusalCode.TASK),
        ({"tasks": ()}, {}, RefusalCode.TASK),
        ({"networks": ("SegResNet",)}, {}, RefusalCode.NETWORK),
        ({"networks": ("Basic*", "Seg*")}, {}, RefusalCode.NETWORK),
        ({"max_rounds": 2}, {"federation": {"rounds": 3}}, RefusalCode.ROUNDS),
        ({"secure_aggregation_required": True}, {}, RefusalCode.SECURE_AGGREGATION),
        ({"max_epsilon_per_job": 7.9}, {}, RefusalCode.EPSILON_LIMIT),
        ({}, {"privacy": {"secure_aggregation": True}}, RefusalCode.SECURE_AGGREGATION),
        ({"min_sites": 3}, {"federation": {"min_sites": 2}}, RefusalCode.MIN_SITES),
    ],
)
def test_each_rule_has_its_code(private_job, allowed, change, code):
    assert refused(Policy(**allowed), private_job.varied(**change)) == code


def test_a_job_without_privacy_is_refused_unless_the_policy_says_otherwise(job):
    job = job.varied(federation={"min_sites": 2})
    assert refused(Policy(), job) == RefusalCode.PRIVACY_REQUIRED
    policy.check_job(Policy(privacy_required=False), job)


def test_a_job_within_the_default_policy_is_allowed(private_job):
    policy.check_job(Policy(), private_job.varied(federation={"min_sites": 2}))


def test_the_first_broken_rule_is_the_one_that_is_named(private_job):
    job = private_job.varied(privacy={"secure_aggregation": True}, federation={"min_sites": 1})
    codes, allowed = [], STRICT
    for repair in ({"tasks": ("segmentation",)}, {"max_epsilon_per_job": 8.0}, {"min_sites": 1}):
        codes.append(refused(allowed, job))
        allowed = allowed.model_copy(update=repair)
    assert codes == [RefusalCode.TASK, RefusalCode.EPSILON_LIMIT, RefusalCode.SECURE_AGGREGATION]


@pytest.mark.parametrize(
    ("rules", "patients", "code"),
    [({"delta": 5e-5}, 50, RefusalCode.EPSILON_LIMIT), ({}, 4, RefusalCode.FEW_PATIENTS), ({}, 5, None)],
)
def test_a_dataset_has_its_rules(private_job, rules, patients, code):
    def check() -> None:
        policy.check_dataset(Policy(), DatasetRules(**rules), private_job, dataset="data", patients=patients)

    if code is None:
        check()
        return
    with pytest.raises(Refused) as caught:
        check()
    assert caught.value.code == code


def test_few_patients_are_too_few_without_privacy_as_well(job):
    with pytest.raises(Refused) as caught:
        policy.check_dataset(Policy(min_patients=9), DatasetRules(), job, dataset="data", patients=8)
    assert caught.value.code == RefusalCode.FEW_PATIENTS


def test_a_network_may_have_so_many_parameters(private_job):
    policy.check_network(Policy(max_parameters=1000), private_job, parameters=1000)
    with pytest.raises(Refused) as caught:
        policy.check_network(Policy(max_parameters=1000), private_job, parameters=1001)
    assert caught.value.code is RefusalCode.PARAMETERS


@pytest.mark.parametrize(
    ("hours", "allowed", "not_allowed"),
    [
        ((), ["00:00", "12:00"], []),
        (("22:00-06:00",), ["22:00", "23:59", "00:00", "05:59"], ["06:00", "12:00", "21:59"]),
        (("12:00-13:30", "18:00-20:00"), ["12:00", "13:29", "19:00"], ["11:59", "13:30", "20:00"]),
        (("00:00-00:00",), ["00:00", "12:00"], []),
    ],
)
def test_work_begins_within_the_hours_of_the_policy_only(hours, allowed, not_allowed):
    for time in allowed:
        policy.check_hours(Policy(hours=hours), dt.time.fromisoformat(time))
    for time in not_allowed:
        with pytest.raises(Refused) as caught:
            policy.check_hours(Policy(hours=hours), dt.time.fromisoformat(time))
        assert caught.value.code is RefusalCode.HOURS


@pytest.mark.parametrize("hours", ["22-6", "25:00-06:00", "22:00", "22:00-06:60", "night"])
def test_hours_are_two_times_of_the_day(hours):
    with pytest.raises(ValueError, match="hours"):
        Policy(hours=(hours,))


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ({}, True),
        ({"jobs": ("other-*",)}, False),
        ({"tasks": ("classification",)}, False),
        ({"max_epsilon": 8.0}, True),
        ({"max_epsilon": 7.9}, False),
        ({"max_rounds": 1}, False),
        ({"max_rounds": 2}, True),
    ],
)
def test_a_rule_approves_what_fits_all_of_it(private_job, rule, fits):
    job = private_job.varied(privacy={"epsilon": 8.0}, federation={"rounds": 2})
    assert policy.approving((Approval(**rule),), job) == (1 if fits else None)


def test_a_rule_with_an_epsilon_approves_no_job_without_privacy(job):
    assert policy.approving((Approval(max_epsilon=100.0),), job) is None
    assert policy.approving((Approval(max_epsilon=100.0), Approval()), job) == 2


def test_nothing_is_approved_in_advance_by_nobody(job):
    assert policy.approving((), job) is None
