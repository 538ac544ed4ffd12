"""What this hospital allows: a job is held against the policy in a fixed order, and the first rule it breaks is named.

The order goes from what concerns the whole site to what concerns one dataset, so that the same job gets the same code
at any time, whatever data is there. What is allowed still needs the operator's yes (`client.jobs`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from fnmatch import fnmatchcase

from client.site import Approval, DatasetRules, Policy
from shared.errors import RefusalCode, Refused
from shared.job import Job


def check_job(policy: Policy, job: Job) -> None:
    """Whether the site takes part in a job at all, whatever its data.

    Raises:
        Refused: `task`, `network`, `rounds`, `privacy_required`, `epsilon_limit`, `secure_aggregation` or `min_sites`,
            tried in this order.
    """

    def refuse(code: RefusalCode, what: str) -> Refused:
        return Refused(code, f"job {job.name} {what}")

    if job.task not in policy.tasks:
        allowed = ", ".join(policy.tasks) or "no task"
        raise refuse(RefusalCode.TASK, f"is {job.task}, the policy allows {allowed}")
    if not fits(job.network.name, policy.networks):
        # What the message names is repeated only once it is known to be a network's name, which a job's need not be.
        allowed = ", ".join(policy.networks) or "no network"
        raise refuse(RefusalCode.NETWORK, f"has another network than the policy allows: {allowed}")
    if job.federation.rounds > policy.max_rounds:
        raise refuse(RefusalCode.ROUNDS, f"has {job.federation.rounds} rounds, the policy allows {policy.max_rounds}")
    if policy.privacy_required and not job.private:
        raise refuse(RefusalCode.PRIVACY_REQUIRED, "has no privacy, which the policy requires")
    if job.privacy.epsilon is not None and job.privacy.epsilon > policy.max_epsilon_per_job:
        raise refuse(
            RefusalCode.EPSILON_LIMIT,
            f"declares ε = {job.privacy.epsilon:g}, the policy allows {policy.max_epsilon_per_job:g}",
        )
    if job.privacy.secure_aggregation:
        raise refuse(RefusalCode.SECURE_AGGREGATION, "asks for secure aggregation, and this version does not have it")
    if policy.secure_aggregation_required:
        raise refuse(RefusalCode.SECURE_AGGREGATION, "is without secure aggregation, which the policy requires")
    if job.federation.min_sites < policy.min_sites:
        raise refuse(
            RefusalCode.MIN_SITES,
            f"counts a round of {job.federation.min_sites} sites, the policy wants {policy.min_sites}",
        )


def check_network(policy: Policy, job: Job, *, parameters: int) -> None:
    """Whether a network of so many parameters may be trained.

    Raises:
        Refused: `parameters`.
    """
    if parameters > policy.max_parameters:
        raise Refused(
            RefusalCode.PARAMETERS,
            f"the network of job {job.name} has {parameters} parameters, the policy allows {policy.max_parameters}",
        )


def check_hours(policy: Policy, now: dt.time) -> None:
    """Whether work may begin at this time of the day.

    Args:
        policy: the site's.
        now: local time.

    Raises:
        Refused: `hours`.
    """
    if policy.hours and not any(_within(hours, now) for hours in policy.hours):
        raise Refused(RefusalCode.HOURS, f"it is {now:%H:%M}, the policy allows {', '.join(policy.hours)}")


def _within(hours: str, now: dt.time) -> bool:
    """Whether a time is in a span, which may go over midnight; one that ends when it begins is the whole day."""
    begin, end = (dt.time.fromisoformat(part) for part in hours.split("-"))
    return begin <= now < end if begin < end else now >= begin or now < end


def fits(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name is one of these, in which `*` stands for anything."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def approving(rules: Sequence[Approval], job: Job) -> int | None:
    """The number (from 1) of the first rule that says yes to this job in advance; None if none does."""
    for number, rule in enumerate(rules, start=1):
        epsilon = job.privacy.epsilon if job.private else None
        if (
            fits(job.name, rule.jobs)
            and job.task in rule.tasks
            and (rule.max_epsilon is None or (epsilon is not None and epsilon <= rule.max_epsilon))
            and (rule.max_rounds is None or job.federation.rounds <= rule.max_rounds)
        ):
            return number
    return None


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
