"""Which dataset a job trains on: one that is open to it by the site's rules, and fits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from client.data.labels import class_index, outside
from client.policy import fits
from client.site import Site
from shared.errors import RefusalCode, Refused
from shared.job import Job


@dataclass(frozen=True)
class Candidate:
    """A registered dataset: its name, its mapping of labels, its profile."""

    name: str
    mapping: Mapping[str, str]
    profile: Mapping[str, Any]


def select(job: Job, candidates: Sequence[Candidate], site: Site) -> str:
    """The name of the one dataset that is open and fits.

    Raises:
        Refused: `no_dataset` where none does, `labels` where only the labels disagree, `ambiguous_dataset` where
            several do. The reasons are in the detail, which stays at the site.
    """
    fitting: list[str] = []
    whys: list[Refused] = []
    for candidate in candidates:
        if not fits(job.name, site.rules(candidate.name).jobs):
            why = f"{candidate.name}: site.toml does not open it to this job"
            whys.append(Refused(RefusalCode.NO_DATASET, why))
            continue
        try:
            check(job, candidate)
        except Refused as refused:
            whys.append(refused)
        else:
            fitting.append(candidate.name)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(fitting)
        raise Refused(
            RefusalCode.AMBIGUOUS_DATASET, f"{names} all fit; open only one of them to {job.name} in site.toml"
        )
    codes = {why.code for why in whys}
    code = RefusalCode.LABELS if RefusalCode.LABELS in codes else RefusalCode.NO_DATASET
    raise Refused(
        code, "; ".join(why.detail for why in whys) or "no dataset is registered; use `insitu-client data add`"
    )


def check(job: Job, candidate: Candidate) -> None:
    """That a dataset fits a job.

    Raises:
        Refused: `no_dataset` or `labels`, with the reason in the detail.
    """
    facts = candidate.profile[job.task]
    _check_images(job, candidate, facts)
    if job.task == "classification":
        _check_class_names(job, candidate)
    else:
        _check_segments(job, candidate, facts)


def _check_images(job: Job, candidate: Candidate, facts: Mapping[str, Any]) -> None:
    def refuse(why: str) -> Refused:
        return Refused(RefusalCode.NO_DATASET, f"{candidate.name}: {why}")

    if not facts["images"]:
        wanted = "a mask" if job.task == "segmentation" else "a label"
        raise refuse(f"none of its images has {wanted}, which {job.task} needs")
    if split := candidate.profile["patients_in_two_splits"]:
        raise refuse(f"{split} patients are in two splits; see `insitu-client data check {candidate.name}`")
    for what, wanted_number in (("dimensions", job.images.dimensions), ("channels", job.images.channels)):
        others = {number: count for number, count in facts[what].items() if number != str(wanted_number)}
        if others:
            number, count = next(iter(others.items()))
            raise refuse(f"{count} of its {facts['images']} images have {number} {what}, the job wants {wanted_number}")
    if job.images.spacing is not None and facts["without_spacing"]:
        raise refuse(f"{facts['without_spacing']} images do not say their spacing, which the job resamples by")


def _check_class_names(job: Job, candidate: Candidate) -> None:
    names = candidate.profile["labels"]["label"]
    if strange := [name for name in names if class_index(name, job.classes, candidate.mapping) is None]:
        raise Refused(
            RefusalCode.LABELS,
            f"{candidate.name}: a label of {names[strange[0]]['images']} images is none of the classes "
            f"{', '.join(job.classes)}; `insitu-client data show {candidate.name}` lists the labels: map it with --map",
        )


def _check_segments(job: Job, candidate: Candidate, facts: Mapping[str, Any]) -> None:
    values = [int(value) for value in facts["indices"]]
    if wrong := outside(values, len(job.classes)):
        raise Refused(
            RefusalCode.LABELS,
            f"{candidate.name}: a mask has the value {wrong[0]}; expected class indices "
            f"from 0 to {len(job.classes) - 1} ({', '.join(job.classes)})",
        )
    if facts["index_masks"]:
        return
    names = candidate.profile["labels"]["segment"]
    met = {class_index(name, job.classes, candidate.mapping) for name in names}
    if absent := [name for index, name in enumerate(job.classes) if index and index not in met]:
        raise Refused(
            RefusalCode.LABELS,
            f"{candidate.name}: no segment is labelled {absent[0]!r}; `insitu-client data show {candidate.name}` lists "
            f"the labels there are: map one with --map",
        )
