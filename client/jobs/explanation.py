"""A job in plain words, for who has to say yes or no: what is trained, on whom, what it costs, what leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from client import assessment, policy
from client.jobs.inbox import Entry
from client.opened import Opened
from shared import accounting, tasks
from shared.errors import Refused
from shared.job import Job


def explain(here: Opened, entry: Entry) -> dict[str, Any]:
    """What there is to know of a job.

    Args:
        here: the site.
        entry: of its inbox.

    Returns:
        job, digest, task, classes, network, rounds, steps (a round; None where it depends on the data), state, runs
        (each with who said yes), offered, reason; refusal: None, or code and detail of what the policy or the data say;
        rule: of site.toml that says yes in advance, or None; and where nothing is refused
        dataset, patients (by split), parameters, leaves (bytes of a round's model, figures and how often), privacy
        (None, or epsilon, delta, noise_multiplier, sample_rate, of_dataset: spent, after and budget in ε).

    Raises:
        Refused: `ledger`, if it cannot be trusted.
    """
    job = entry.job
    facts: dict[str, Any] = {
        "job": job.name,
        "digest": job.digest,
        "state": entry.state,
        "offered": entry.offered,
        "runs": entry.runs,
        "allowed": entry.allowed,
        "reason": entry.reason,
        "by": entry.by,
        "rule": policy.approving(here.site.config.approve, job),
        "task": job.task,
        "classes": list(job.classes),
        "network": job.network.name,
        "rounds": job.federation.rounds,
        "steps": job.steps_per_round,
        "min_sites": job.federation.min_sites,
        "refusal": None,
    }
    try:
        found = assessment.assess(here, job)
    except Refused as refused:
        return {**facts, "refusal": {"code": str(refused.code), "detail": refused.detail}}
    facts |= {
        "dataset": found.dataset,
        "patients": {split: len(here.cohort(job, split)) for split in ("train", "validation", "test")},
        "parameters": found.parameters,
        "leaves": _leaves(job, found.parameters, here),
        "privacy": _privacy(here, job, found),
    }
    try:
        assessment.affordable(here, job)
    except Refused as refused:
        facts["refusal"] = {"code": str(refused.code), "detail": refused.detail}
    return facts


def _leaves(job: Job, parameters: int, here: Opened) -> dict[str, Any]:
    return {
        "bytes_a_round": 4 * parameters,
        "models": job.federation.rounds,
        "figure": tasks.of(job).main,
        "figures_of_validation_patients": job.evaluations,
        "figures_of_test_patients": int(job.federation.evaluate_at_end),
        "training_patients": job.federation.weights == "patients",
        "decimals": here.site.config.policy.decimals,
        "noised": job.private,
    }


def _privacy(here: Opened, job: Job, found: assessment.Assessment) -> dict[str, Any] | None:
    if not job.private:
        return None
    rules = here.ledger.rules(found.dataset)
    spent = here.ledger.history(found.dataset)
    whole = [] if found.charge is None else [(*found.charge[:2], found.charge[2] * job.federation.rounds)]
    return {
        "epsilon": job.privacy.epsilon,
        "delta": job.privacy.delta,
        "noise_multiplier": found.charge[0] if found.charge else None,
        "sample_rate": job.privacy.sample_rate,
        "dataset_spent": accounting.epsilon(spent, delta=rules.delta),
        "dataset_after": accounting.epsilon([*spent, *whole], delta=rules.delta),
        "dataset_budget": rules.epsilon,
        "dataset_delta": rules.delta,
    }


def sentences(facts: dict[str, Any]) -> Iterator[str]:
    """The same as sentences."""
    classes = ", ".join(facts["classes"])
    steps = "as many steps as its data need" if facts["steps"] is None else f"{facts['steps']} steps"
    yield f"{facts['job']} ({facts['digest'][:12]}): {_state(facts)}."
    yield (
        f"What is trained: {facts['network']} for {facts['task']} into {classes}; {facts['rounds']} rounds of {steps}; "
        f"a round counts with {facts['min_sites']} sites."
    )
    refusal = facts["refusal"]
    if "dataset" not in facts:
        yield f"It is refused here ({refusal['code']}): {refusal['detail']}."
        return
    patients, leaves = facts["patients"], facts["leaves"]
    yield (
        f"On whom: dataset {facts['dataset']}; {patients['train']} patients train, {patients['validation']} validate, "
        f"{patients['test']} test."
    )
    yield from _of_leaving(facts, leaves)
    yield from _of_privacy(facts)
    if refusal:
        yield f"It is refused for now ({refusal['code']}): {refusal['detail']}."


def _state(facts: dict[str, Any]) -> str:
    runs = len(facts["runs"])
    took = f"; {runs} {'run has' if runs == 1 else 'runs have'} taken part" if runs else ""
    said = f" ({facts['reason']})" if facts["reason"] else ""
    rule = f"; rule {facts['rule']} of site.toml says yes to it" if facts["rule"] else ""
    word = {
        "pending": "waits for your word",
        "approved": f"approved by {facts['by']}{said}",
        "revoked": f"you said no{said}",
        "refused": "refused by the policy, before it came to you",
    }[facts["state"]]
    return word + took + rule


def _of_leaving(facts: dict[str, Any], leaves: dict[str, Any]) -> Iterator[str]:
    yield (
        f"What leaves: after each round the model's {facts['parameters']:,} parameters as training here changed them "
        f"({_size(leaves['bytes_a_round'])}), {_times(leaves['models'])} in a run; no image, no name, no text."
    )
    noised = "noised, " if leaves["noised"] else ""
    how_often = [
        f"{_times(leaves[key])} of the {split} patients"
        for key, split in (
            ("figures_of_validation_patients", "validation"),
            ("figures_of_test_patients", "test"),
        )
        if leaves[key]
    ]
    if how_often:
        yield (
            f"Figures of how good the model is ({leaves['figure']} and the like), {noised}to {leaves['decimals']} "
            f"decimals, {' and '.join(how_often)}, and how many patients they are of."
        )
    else:
        yield "No figures leave."
    if leaves["training_patients"]:
        yield f"The number of training patients ({facts['patients']['train']}) leaves with each round."


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _of_privacy(facts: dict[str, Any]) -> Iterator[str]:
    privacy = facts["privacy"]
    if privacy is None:
        yield "Privacy: none. What leaves may be traced back to single patients."
        return
    yield f"Privacy: ε = {privacy['epsilon']:g} at δ = {privacy['delta']:g} for each patient over the whole job."
    yield (
        f"Budget: the dataset has spent ε = {privacy['dataset_spent']:.3f} of {privacy['dataset_budget']:g} "
        f"(δ = {privacy['dataset_delta']:g}); one run of this job brings it to {privacy['dataset_after']:.3f}."
    )
    yield accounting.CLAIM
