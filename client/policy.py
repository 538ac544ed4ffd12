"""What this hospital allows: a job is held against the policy in a fixed order, and the first rule it breaks is named.

The order goes from what concerns the whole site to what concerns one dataset, so that the same job gets the same code
at any time, whatever data is there.
"""

from __future__ import annotations

from client.site import DatasetRules, Policy
from shared.errors import RefusalCode, Refused
from shared.job import Job


def check_job(policy: Policy, job: Job) -> None:
    """Whether the site takes part in a job at all, whatever its data.

    Raises:
        Refused: `task`, `privacy_required`, `epsilon_limit`, `secure_aggregation` or `min_sites`, tried in this order.
    """
    if job.task not in policy.tasks:
        raise Refused(RefusalCode.TASK, f"job {job.name}: the policy allows {', '.join(policy.tasks) or 'no task'}")
    if policy.privacy_required and not job.private:
        raise Refused(RefusalCode.PRIVACY_REQUIRED, f"job {job.name} has no privacy, which the policy requires")
    if job.privacy.epsilon is not None and job.privacy.epsilon > policy.max_epsilon_per_job:
        raise Refused(
            RefusalCode.EPSILON_LIMIT,
            f"job {job.name} declares ε = {job.privacy.epsilon:g}, the policy allows {policy.max_epsilon_per_job:g}",
        )
    if job.privacy.secure_aggregation:
        raise Refused(RefusalCode.SECURE_AGGREGATION, f"job {job.name} asks for it, and this version does not have it")
    if job.federation.min_sites < policy.min_sites:
        raise Refused(
            RefusalCode.MIN_SITES,
            f"job {job.name} counts a round of {job.federation.min_sites} sites, the policy wants {policy.min_sites}",
        )


def check_dataset(policy: Policy, rules: DatasetRules, job: Job, *, dataset: str, patients: int) -> None:
    """Whether the dataset that a job would train on may be trained on by it.

    A job's ε says nothing by itself: with a larger δ the same noise has a smaller ε. So a job may not declare a δ above
    the one in which the hospital counts the dataset's budget.

    Args:
        policy: the site's.
        rules: of the dataset.
        job: allowed by `check_job`.
        dataset: its name.
        patients: in its training split.

    Raises:
        Refused: `epsilon_limit` for the δ, `few_patients`; tried in this order.
    """
    if job.privacy.delta is not None and job.privacy.delta > rules.delta:
        raise Refused(
            RefusalCode.EPSILON_LIMIT,
            f"job {job.name} declares δ = {job.privacy.delta:g}, the budget of {dataset} is for {rules.delta:g}",
        )
    if patients < policy.min_patients:
        raise Refused(
            RefusalCode.FEW_PATIENTS,
            f"dataset {dataset} has {patients} training patients, the policy wants {policy.min_patients}",
        )
