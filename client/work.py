"""What a site does when it is asked: policy, the operator's word, budget, training, and the door.

It knows nothing of Flower.
Every way out of `answer` is one of the replies of `shared.messages`, made by `client.egress`. The site's own log says
what happened; of an exception that nobody foresaw it has the type and the lines of our code, but not the text, which
could hold anything.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from client import assessment, device, egress, figures, logs, opened, policy, training, watch
from client.assessment import affordable, assess, costs
from client.audit import Decided
from client.data.records import Split
from client.evaluation import evaluate, measured
from client.figures import Noised
from client.ledger import Round
from client.opened import Opened
from client.training import memory
from client.watch import Watch
from shared import arrays, tasks
from shared.arrays import StructureError
from shared.errors import BadInput, InsituError, RefusalCode, Refused
from shared.messages import EvaluateRequest, Figures, Offer, Reply, TrainRequest, Update

Request = Offer | TrainRequest | EvaluateRequest

_unopened = logging.getLogger(__name__)


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
        _unopened.error("the site cannot be opened: %s", logs.what(error))
        return egress.refusal(RefusalCode.FAILED)
    request = None
    try:
        request = kind.unpack(records)
        return handle(here, request)
    except Exception as error:
        return _refused(here, kind, request, error)


def _refused(here: Opened, kind: type[Request], request: Request | None, error: Exception) -> Reply:
    """The refusal that an exception comes to; the site's log says more than may leave."""
    if isinstance(error, Refused):
        code, detail = error.code, error.detail
    elif memory.ran_out(error):
        code, detail = RefusalCode.MEMORY, "there was not enough memory, or the policy's max_memory was reached"
    else:
        code, detail = RefusalCode.FAILED if request else RefusalCode.MALFORMED, logs.what(error)
    if here.news(kind, request.job.digest if request else "", code, detail):
        here.log.warning("%s refused (%s): %s", kind.__name__, code, detail)
    try:
        if request is not None:
            here.inbox.answered(request.job, code, detail)
    except InsituError as unwritten:
        here.log.error("%s", unwritten)
    return here.door.refuse(code, kind=kind.__name__, about=request)


def handle(here: Opened, request: Request) -> Reply:
    """Do what is asked, if the site's policy, operator and budget allow it.

    Raises:
        Refused: with the code to be told.
        InsituError: if something at the site is not as it should be.
    """
    device.bound(here.site.config.policy, here.device)
    _check(here, request)
    _admit(here, request)
    if isinstance(request, Offer):
        return egress.accepted()
    model = arrays.digest(request.model)
    reply = here.replies.find(request, model)
    if reply is not None:
        return _again(here, request, model, reply)
    return _evaluate(here, request, model) if isinstance(request, EvaluateRequest) else _train(here, request, model)


def _check(here: Opened, request: Request) -> None:
    """The policy; and a run that cannot be paid for as a whole is not begun."""
    assess(here, request.job)
    if isinstance(request, Offer):
        affordable(here, request.job)
    else:
        policy.check_hours(here.site.config.policy, dt.datetime.now().time())


def _admit(here: Opened, request: Request) -> None:
    """The operator's yes to this run of the job, given before, or in advance by a rule."""
    job, rule = request.job, policy.approving(here.site.config.approve, request.job)

    def note(by: str) -> None:
        here.door.record.append(
            Decided(what="admitted", job=job.digest, name=job.name, by=by, reason=f"run {request.run}")
        )

    by = here.inbox.admit(job, request.run, rule=rule, note=note)
    if by is None:
        return
    here.inbox.answered(job, None)
    here.log.info("run %s of job %s (%s): takes part, by %s", request.run, job.name, job.digest[:12], by)


def _again(here: Opened, request: TrainRequest, model: str, reply: Update | Figures) -> Reply:
    """A stored reply, as it is; the ledger has to know of what it cost."""
    job = request.job
    if job.private and (reply.numbers or (isinstance(reply, Update) and costs(job))):
        here.ledger.settle(_round(request, model))
    here.log.info("%s round %d of %s: the stored reply", type(request).__name__, request.round, request.run)
    return here.door.again(request, reply, dataset=here.dataset(job))


def _train(here: Opened, request: TrainRequest, model: str) -> Reply:
    job, look = request.job, watch.over(request.job, here.inbox, here.site.config.policy)
    network = _loaded(request)
    cohort, dataset = here.cohort(job, "train"), here.dataset(job)
    charge, of = assessment.charge(job), _round(request, model)
    if charge is not None:
        here.ledger.reserve(
            dataset,
            charge,
            of=of,
            planned=charge[2] * job.federation.rounds,
            again=here.site.config.policy.max_repeats,
        )
    every = job.federation.evaluate_every or 0
    due = every > 0 and (request.round - 1) % every == 0
    found: Mapping[str, float] | Noised = {}
    if due:
        found = _figures(here, request, model, network, split="validation", releases=job.evaluations, look=look)
    training.train(
        network,
        cohort,
        job,
        round=request.round,
        site_name=here.site.name,
        device=here.device,
        noise_multiplier=charge[0] if charge else None,
        log=here.log,
        watch=look,
    )
    paid = here.ledger.paid(of, dataset) if charge is not None or isinstance(found, Noised) else None
    look()
    reply = here.door.update(
        request,
        arrays.of_network(network),
        figures=found,
        training_patients=len(cohort),
        dataset=dataset,
        paid=paid,
    )
    here.replies.keep(request, model, reply)
    if paid is not None:
        here.ledger.settle(of)
    spent = f"charged {charge[2]} steps, σ = {charge[0]:g}, q = {charge[1]:g}" if charge else "no privacy"
    here.log.info("round %d of %s on dataset %s: trained, %s", request.round, request.run, dataset, spent)
    return reply


def _evaluate(here: Opened, request: EvaluateRequest, model: str) -> Reply:
    look = watch.over(request.job, here.inbox, here.site.config.policy)
    found = _figures(here, request, model, _loaded(request), split="test", releases=1, look=look)
    of, dataset = _round(request, model), here.dataset(request.job)
    paid = here.ledger.paid(of, dataset) if isinstance(found, Noised) else None
    look()
    reply = here.door.figures(request, found, dataset=dataset, paid=paid)
    here.replies.keep(request, model, reply)
    if paid is not None:
        here.ledger.settle(of)
    here.log.info("figures of %s after round %d: %d numbers", request.run, request.round, len(reply.numbers))
    return reply


def _figures(
    here: Opened,
    request: TrainRequest,
    model: str,
    network: nn.Module,
    *,
    split: Split,
    releases: int,
    look: Watch,
) -> Mapping[str, float] | Noised:
    """The figures of the request's model on the patients of a split; under privacy noised, and charged to them.

    Where the patients' budget does not allow it there are none: the training patients, who are others, may train on.
    """
    job, cohort, repeats = request.job, here.cohort(request.job, split), here.site.config.policy.max_repeats
    if not job.private:
        return evaluate(network, cohort, job, device=here.device, full=split == "test", watch=look)
    try:
        charge = figures.charge(job, releases)
        here.ledger.reserve(
            here.dataset(job), charge, of=_round(request, model), planned=releases, split=split, again=repeats
        )
    except BadInput as error:
        raise Refused(RefusalCode.MALFORMED, str(error)) from None
    except Refused as refused:
        if refused.code is not RefusalCode.OVER_BUDGET:
            raise
        here.log.warning("round %d of %s: no figures, %s", request.round, request.run, refused.detail)
        return {}
    measure = measured(network, cohort, job, device=here.device, watch=look)
    return figures.noised(measure, tasks.of(job), noise_multiplier=charge[0])


def _round(request: TrainRequest, model: str) -> Round:
    job = request.job
    return Round(job=job.digest, name=job.name, run=request.run, number=request.round, model=model)


def _loaded(request: TrainRequest) -> nn.Module:
    """The job's network with the message's parameters."""
    network = assessment.network(request.job)
    try:
        arrays.into_network(request.model, network)
    except StructureError as error:
        raise Refused(RefusalCode.MALFORMED, f"the model is not of the job's network: {error}") from None
    return network
