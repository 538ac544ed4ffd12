"""Exact figures of a model at every virtual hospital, for tables and reports.

They are computed outside the sites' door, where no privacy is spent and none is protected: only a simulation may do
that, and a real coordinator never sees them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean

from client.data.loading import Cohort
from client.data.records import SPLITS, Split
from client.device import choose
from client.evaluation import evaluate
from client.site import Site
from shared import networks
from shared.arrays import Arrays, into_network
from shared.job import Job
from simulations.hospitals import DATASET

Figures = dict[str, float]


def exact(
    job: Job, model: Arrays, sites: Mapping[str, Site], *, split: Split, full: bool = False
) -> dict[str, Figures]:
    """The figures of this model at each site.

    Args:
        job: what the model is for.
        model: of the job's network.
        sites: the virtual hospitals.
        split: `validation` or `test`.
        full: also those that take long to compute (Hausdorff distance, lesions).
    """
    network = networks.build(job)
    into_network(model, network)
    return {
        name: evaluate(network, Cohort(site, DATASET, job, split), job, device=choose(site.config), full=full)
        for name, site in sites.items()
    }


def mean(figures: Iterable[Figures]) -> Figures:
    """The mean over sites of every figure that all of them have; numbers of patients are added up."""
    rows = list(figures)
    names = [name for name in rows[0] if all(name in row for row in rows)] if rows else []
    return {
        name: sum(row[name] for row in rows) if name == "patients" else fmean(row[name] for row in rows)
        for name in names
    }


def worst(figures: Iterable[Figures], main: str) -> Figures:
    """The main figure at the site where it is lowest."""
    values = [row[main] for row in figures if main in row]
    return {main: min(values)} if values else {}


def patients(job: Job, site: Site) -> dict[str, int]:
    """How many patients each split of the site's data has."""
    return {split: len(Cohort(site, DATASET, job, split)) for split in SPLITS}
