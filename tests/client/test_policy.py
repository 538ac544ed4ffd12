"""One code for each rule, in a fixed order."""

import pytest

from client import policy
from client.site import DatasetRules, Policy
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
