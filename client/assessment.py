"""A job held against this site: whether the policy allows it, on which dataset, with which network, at what cost."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from client import policy
from client.opened import Opened, Recent
from shared import accounting, networks
from shared.accounting import Charge
from shared.errors import BadInput, RefusalCode, Refused
from shared.job import Job

_networks: Recent[nn.Module] = Recent(2)
_counts: Recent[int] = Recent(64)


@dataclass(frozen=True)
class Assessment:
    """What a job that the policy allows would be here.

    Attributes:
        dataset: that it would train on.
        patients: in its training split.
        parameters: of its network.
        charge: what one round costs the training patients: σ, q, steps; None if it costs no privacy.
    """

    dataset: str
    patients: int
    parameters: int
    charge: Charge | None


def assess(here: Opened, job: Job) -> Assessment:
    """Hold a job against the policy, in its order; a job that cannot be built is no job.

    Raises:
        Refused: what the policy says, what keeps every dataset from being the one, or `malformed`.
    """
    rules = here.site.config.policy
    policy.check_job(rules, job)
    dataset = here.dataset(job)
    patients = len(here.cohort(job, "train"))
    of_dataset = here.ledger.rules(dataset) if job.private else here.site.rules(dataset)
    policy.check_dataset(rules, of_dataset, job, dataset=dataset, patients=patients)
    parameters = _parameters(job)
    policy.check_network(rules, job, parameters=parameters)
    return Assessment(dataset=dataset, patients=patients, parameters=parameters, charge=charge(job))


def affordable(here: Opened, job: Job) -> None:
    """Whether the whole job still fits the dataset's budget.

    Raises:
        Refused: `over_budget`, or `ledger`.
    """
    if (each := charge(job)) is not None:
        here.ledger.check(here.dataset(job), each, planned=each[2] * job.federation.rounds)


def charge(job: Job) -> Charge | None:
    """What one round of a job costs the training patients; None if it costs no privacy.

    Raises:
        Refused: `malformed`, if no noise keeps what the job declares.
    """
    if not costs(job) or job.steps_per_round is None or job.privacy.sample_rate is None:
        return None
    try:
        return accounting.noise_for(job), job.privacy.sample_rate, job.steps_per_round
    except BadInput as error:
        raise Refused(RefusalCode.MALFORMED, str(error)) from None


def costs(job: Job) -> bool:
    """Whether a round of it costs the training patients privacy."""
    return job.private and bool(job.steps_per_round)


def network(job: Job) -> nn.Module:
    """The job's network, kept for the next message; its parameters are whatever the last one left."""

    def build() -> nn.Module:
        try:
            return networks.build(job)
        except BadInput as error:
            raise Refused(RefusalCode.MALFORMED, str(error)) from None

    return _networks.get(job.digest, build)


def _parameters(job: Job) -> int:
    return _counts.get(job.digest, lambda: sum(each.numel() for each in network(job).parameters()))
