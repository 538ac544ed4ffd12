"""What a site does when it is asked: policy, budget, training, and the door. It knows nothing of Flower.

Every way out of `answer` is one of the replies of `shared.messages`, made by `client.egress`. The site's own log says
what happened; of an exception that nobody foresaw it has the type and the lines of our code, but not the text, which
could hold anything.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from client import device, egress, figures, opened, policy, training
from client.data.records import Split
from client.evaluation import evaluate, measured
from client.figures import Noised
from client.ledger import Round
from client.opened import Opened, Recent
from shared import accounting, arrays, networks, tasks
from shared.accounting import Charge
from shared.arrays import StructureError
from shared.errors import BadInput, InsituError, RefusalCode, Refused
from shared.job import Job
from shared.messages import EvaluateRequest, Offer, Reply, TrainRequest

Request = Offer | TrainRequest | EvaluateRequest

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_OURS = Path(__file__).parents[1]

_unopened = logging.getLogger(__name__)
_networks: Recent[nn.Module] = Recent(2)


def answer(home: Path, kind: type[Request], records: Any) -> Reply:
    """The site's reply to a message, whatever is in it.

    Args:
        home: of the site.
        kind: what the message should be.
        records: the message's content.
    """
    try:
        here = opened.at(home)
    except Exception as error:
        _unopened.error("the site cannot be opened: %s", _what(error))
        return egress.refusal(RefusalCode.FAILED)
    parsed = False
    try:
        request = kind.unpack(records)
        parsed = True
        return handle(here, request)
    except Refused as refused:
        here.log.warning("%s refused (%s): %s", kind.__name__, refused.code, refused.detail)
        return egress.refusal(refused.code)
    except Exception as error:
        here.log.error("%s failed: %s", kind.__name__, _what(error))
        return egress.refusal(RefusalCode.FAILED if parsed else RefusalCode.MALFORMED)


def handle(here: Opened, request: Request) -> Reply:
    """Do what is asked, if the site's policy and budget allow it.

    Raises:
        Refused: with the code to be told.
        InsituError: if something at the site is not as it should be.
    """
    device.bound_threads(here.site.config.policy)
    _admit(here, request.job)
    if isinstance(request, Offer):
        return _accept(here, request.job)
    if not _RUN.fullmatch(request.run) or not 1 <= request.round <= request.job.federation.rounds:
        raise Refused(RefusalCode.MALFORMED, "no name of a run, or no round of this job")
    model = arrays.digest(request.model)
    reply = here.replies.find(request, model)
    if reply is not None:
        if not isinstance(request, EvaluateRequest) and _costs(request.job):
            here.ledger.settle(_round(request, model))
        here.log.info("%s round %d of %s: the stored reply", type(request).__name__, request.round, request.run)
        return reply
    return _evaluate(here, request, model) if isinstance(request, EvaluateRequest) else _train(here, request, model)


def _admit(here: Opened, job: Job) -> None:
    """The policy, in its order; and a job that cannot be built is no job."""
    rules = here.site.config.policy
    policy.check_job(rules, job)
    dataset = here.dataset(job)
    patients = len(here.cohort(job, "train"))
    of_dataset = here.ledger.rules(dataset) if job.private else here.site.rules(dataset)
    policy.check_dataset(rules, of_dataset, job, dataset=dataset, patients=patients)


def _accept(here: Opened, job: Job) -> Reply:
    _network(job)
    charge = _charge(job)
    if charge is not None:
        here.ledger.check(here.dataset(job), charge, planned=charge[2] * job.federation.rounds)
    here.log.info("job %s (%s) on dataset %s: accepted", job.name, job.digest[:12], here.dataset(job))
    return egress.accepted()


def _train(here: Opened, request: TrainRequest, model: str) -> Reply:
    job, rules = request.job, here.site.config.policy
    network = _loaded(request)
    cohort = here.cohort(job, "train")
    charge, of = _charge(job), _round(request, model)
    if charge is not None:
        here.ledger.reserve(here.dataset(job), charge, of=of, planned=charge[2] * job.federation.rounds)
    every = job.federation.evaluate_every or 0
    due = every > 0 and (request.round - 1) % every == 0
    found = _figures(here, request, model, network, split="validation", releases=job.evaluations) if due else {}
    training.train(
        network,
        cohort,
        job,
        round=request.round,
        site_name=here.site.name,
        device=here.device,
        noise_multiplier=charge[0] if charge else None,
        log=here.log,
    )
    trained = arrays.of_network(network)
    reply = egress.update(request, trained, figures=found, training_patients=len(cohort), policy=rules)
    here.replies.keep(request, model, reply)
    if charge is not None or isinstance(found, Noised):
        here.ledger.settle(of)
    spent = f"charged {charge[2]} steps, σ = {charge[0]:g}, q = {charge[1]:g}" if charge else "no privacy"
    here.log.info("round %d of %s on dataset %s: trained, %s", request.round, request.run, here.dataset(job), spent)
    return reply


def _evaluate(here: Opened, request: EvaluateRequest, model: str) -> Reply:
    found = _figures(here, request, model, _loaded(request), split="test", releases=1)
    reply = egress.figures(request, found, policy=here.site.config.policy)
    here.replies.keep(request, model, reply)
    if isinstance(found, Noised):
        here.ledger.settle(_round(request, model))
    here.log.info("figures of %s after round %d: %d numbers", request.run, request.round, len(reply.numbers))
    return reply


def _figures(
    here: Opened, request: TrainRequest, model: str, network: nn.Module, *, split: Split, releases: int
) -> Mapping[str, float] | Noised:
    """The figures of the request's model on the patients of a split; under privacy noised, and charged to them.

    Where the patients' budget does not allow it there are none: the training patients, who are others, may train on.
    """
    job, cohort = request.job, here.cohort(request.job, split)
    if not job.private:
        return evaluate(network, cohort, job, device=here.device, full=split == "test")
    try:
        charge = figures.charge(job, releases)
        here.ledger.reserve(here.dataset(job), charge, of=_round(request, model), planned=releases, split=split)
    except BadInput as error:
        raise Refused(RefusalCode.MALFORMED, str(error)) from None
    except Refused as refused:
        if refused.code is not RefusalCode.OVER_BUDGET:
            raise
        here.log.warning("round %d of %s: no figures, %s", request.round, request.run, refused.detail)
        return {}
    measure = measured(network, cohort, job, device=here.device)
    return figures.noised(measure, tasks.of(job), noise_multiplier=charge[0])


def _costs(job: Job) -> bool:
    return job.private and bool(job.steps_per_round)


def _round(request: TrainRequest, model: str) -> Round:
    job = request.job
    return Round(job=job.digest, name=job.name, run=request.run, number=request.round, model=model)


def _charge(job: Job) -> Charge | None:
    """What one round of a job costs: σ, q, steps; None if it costs no privacy."""
    if not _costs(job) or job.steps_per_round is None or job.privacy.sample_rate is None:
        return None
    try:
        return accounting.noise_for(job), job.privacy.sample_rate, job.steps_per_round
    except BadInput as error:
        raise Refused(RefusalCode.MALFORMED, str(error)) from None


def _network(job: Job) -> nn.Module:
    """The job's network, kept for the next message; its parameters are whatever the last one left."""

    def build() -> nn.Module:
        try:
            return networks.build(job)
        except BadInput as error:
            raise Refused(RefusalCode.MALFORMED, str(error)) from None

    return _networks.get(job.digest, build)


def _loaded(request: TrainRequest) -> nn.Module:
    """The job's network with the message's parameters."""
    network = _network(request.job)
    try:
        arrays.into_network(request.model, network)
    except StructureError as error:
        raise Refused(RefusalCode.MALFORMED, f"the model is not of the job's network: {error}") from None
    return network


def _what(error: Exception) -> str:
    """An exception in words that hold no patient's data: our own message, or the type and where it came up."""
    if isinstance(error, InsituError):
        return str(error)
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_OURS)
    ]
    where = [f"{Path(frame.filename).relative_to(_OURS)}:{frame.lineno}" for frame in frames]
    return f"{type(error).__name__} at {' < '.join(reversed(where)) or 'an unknown place'}"
