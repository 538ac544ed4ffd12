"""`summary.json`, read for people: what came of a run, where any part may be lacking."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from server import charts
from shared.errors import BadInput, RefusalCode
from shared.job import Job

MEAN = "mean of hospitals"
MEANINGS: Mapping[str, str] = {
    RefusalCode.MALFORMED: "the message was not one that the hospital's software knows",
    RefusalCode.PROTOCOL: "the hospital speaks another version of the protocol",
    RefusalCode.PENDING: "the hospital's operator had not decided yet",
    RefusalCode.REVOKED: "the hospital's operator said no, or no longer",
    RefusalCode.INBOX_FULL: "too many jobs waited for the hospital's operator",
    RefusalCode.NETWORK: "the hospital's policy does not allow this network",
    RefusalCode.PARAMETERS: "the network has more parameters than the hospital's policy allows",
    RefusalCode.ROUNDS: "the job has more rounds than the hospital's policy allows",
    RefusalCode.HOURS: "the hospital's policy allows no work at this time of the day",
    RefusalCode.TIME: "the work took longer than the hospital's policy allows",
    RefusalCode.MEMORY: "the work needed more memory than the hospital has, or its policy allows",
    RefusalCode.RECORD: "the hospital's record of what leaves could not be written or trusted",
    RefusalCode.TASK: "the hospital's policy does not allow this task",
    RefusalCode.PRIVACY_REQUIRED: "the hospital's policy requires privacy and the job has none",
    RefusalCode.EPSILON_LIMIT: "the job's ε is above what the hospital allows one job",
    RefusalCode.SECURE_AGGREGATION: "secure aggregation was asked for or required, and is not to be had",
    RefusalCode.MIN_SITES: "the job counts rounds of fewer hospitals than this one's policy allows",
    RefusalCode.NO_DATASET: "no dataset of the hospital is open to this job, or none fits it",
    RefusalCode.AMBIGUOUS_DATASET: "more than one dataset of the hospital fits the job",
    RefusalCode.LABELS: "the dataset's labels disagree with the job's classes",
    RefusalCode.FEW_PATIENTS: "fewer patients than the hospital's minimum",
    RefusalCode.OVER_BUDGET: "the round would have exceeded the dataset's privacy budget",
    RefusalCode.LEDGER: "the hospital's privacy ledger could not be written or trusted",
    RefusalCode.EGRESS: "the reply did not pass the hospital's one door out",
    RefusalCode.FAILED: "the hospital's software failed; its own log says why",
    "late": "no reply before the round's deadline",
    "unavailable": "the hospital was not connected",
    "rejected": "the coordinator did not accept the update's structure or values",
}


_TITLES = {
    "pooled-total": "pooled, all steps",
    "federated": "federated, no privacy",
    "federated-private": "federated, with privacy",
}


@dataclass(frozen=True)
class Cell:
    """One hospital in one round: `contributed`, `missing` with a code, or `absent` (it was not asked)."""

    state: str
    code: str = ""


@dataclass(frozen=True)
class Arm:
    """One arm of a comparison: the main figure at each hospital, their mean and the worst."""

    title: str
    sites: Mapping[str, float]
    mean: float | None
    worst: float | None


@dataclass(frozen=True)
class Summary:
    """What `summary.json` says, read for people. Every part may be lacking."""

    data: Mapping[str, Any]

    @cached_property
    def job(self) -> Job | None:
        """The job, or None where this version cannot read it."""
        try:
            return Job.from_dict(self.data.get("job"))
        except BadInput:
            return None

    @property
    def name(self) -> str:
        """The job's name."""
        return str(self.part("job").get("name", "unnamed job"))

    @property
    def main(self) -> str:
        """The main figure: `dice` or `auroc`."""
        return "auroc" if self.part("job").get("task") == "classification" else "dice"

    @property
    def private(self) -> bool:
        """Whether the job protects patients by differential privacy."""
        return bool((self.part("job").get("privacy") or {}).get("mode", "patient") != "none")

    @property
    def largest_epsilon(self) -> float | None:
        """The most that any hospital spent on this run."""
        spent = [number(self.site(name), "privacy", "epsilon") for name in self.sites]
        return max((value for value in spent if value is not None), default=None)

    @property
    def job_text(self) -> str:
        """The job in TOML, or as it was given where this version cannot read it."""
        if self.job is not None:
            return self.job.to_toml()
        return json.dumps(self.data.get("job", {}), indent=2, ensure_ascii=False)

    def part(self, key: str) -> Mapping[str, Any]:
        """A table of the summary; empty where it is lacking or null."""
        return self.data.get(key) or {}

    @property
    def rounds(self) -> Sequence[Mapping[str, Any]]:
        """The rounds that were finished."""
        return self.data.get("rounds") or ()

    @cached_property
    def sites(self) -> list[str]:
        """Every hospital that appears anywhere in the run, those with results first."""
        names = dict.fromkeys(self.part("sites"))
        for row in self.rounds:
            names.update(dict.fromkeys([*row.get("contributed", ()), *row.get("missing", {}), *row.get("sites", {})]))
        return list(names)

    def site(self, name: str, *keys: str) -> Any:
        """One value of one hospital, or None."""
        value: Any = self.part("sites").get(name)
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def alone(self, name: str) -> float | None:
        """The main figure, at this hospital, of the model it would have trained alone."""
        return number(self.part("arms").get(f"alone:{name}"), "sites", name, self.main)

    def mean_of(self, when: str) -> float | None:
        """Mean over the hospitals of the main figure `before` or `after`, where all of them have it."""
        return _mean([number(self.site(name), when, self.main) for name in self.part("sites")])

    @property
    def mean_alone(self) -> float | None:
        """Mean over the hospitals of what each would have alone, where that is known of all of them."""
        return _mean([self.alone(name) for name in self.part("sites")])

    @property
    def expected_rounds(self) -> int | None:
        """The job's number of rounds."""
        return self.job.federation.rounds if self.job else None

    @property
    def incomplete(self) -> bool:
        """Whether the run did not get to its end: said by its status, by missing rounds or by missing results."""
        too_few = self.expected_rounds is not None and len(self.rounds) < self.expected_rounds
        return self.data.get("status", "completed") != "completed" or too_few or not self.part("sites")

    @property
    def has_figures(self) -> bool:
        """Whether any figure about patients is in the summary."""
        after = any(self.site(name, "after") for name in self.sites)
        return after or any(row.get("sites") for row in self.rounds)

    def figures(self) -> list[str]:
        """The names of all figures after training."""
        names = {key for name in self.sites for key in (self.site(name, "after") or {})}
        return sorted(names, key=lambda key: (key.split(".")[0] != self.main, key))

    def spoken(self, figure: str) -> str:
        """`dice.2` as `dice, liver`."""
        base, _, index = figure.partition(".")
        classes = self.part("job").get("classes") or ()
        if index.isdigit() and int(index) < len(classes):
            return f"{base.replace('_', ' ')}, {classes[int(index)]}"
        return figure.replace("_", " ")

    def curves(self) -> charts.Lines | None:
        """The main figure over the rounds, a line a hospital and one for their mean."""
        series: dict[str, dict[int, float]] = {name: {} for name in self.sites}
        for row in self.rounds:
            for name in row.get("sites", {}):
                value = number(row["sites"], name, self.main)
                if value is not None:
                    series[name][int(row["round"])] = value
        series = {name: values for name, values in series.items() if values}
        rounds = sorted({at for values in series.values() for at in values})
        present = {at: [values[at] for values in series.values() if at in values] for at in rounds}
        if len(series) > 1:
            series[MEAN] = {at: sum(values) / len(values) for at, values in present.items()}
        return charts.lines(series, emphasised=MEAN if len(series) > 1 else None)

    def participation(self) -> list[tuple[str, list[Cell]]]:
        """For each hospital, what became of it in each round."""
        return [(name, [_cell(row, name) for row in self.rounds]) for name in self.sites]

    def gaps(self) -> list[tuple[str, str, list[int]]]:
        """Hospital, code, and the rounds in which it was missing for that reason."""
        found: dict[tuple[str, str], list[int]] = {}
        for row in self.rounds:
            for name, code in row.get("missing", {}).items():
                found.setdefault((name, str(code)), []).append(int(row["round"]))
        return [(name, code, rounds) for (name, code), rounds in found.items()]

    @staticmethod
    def meaning(code: str) -> str:
        """What a code says."""
        return MEANINGS.get(code, "a code that this version does not know")

    @cached_property
    def arms(self) -> list[Arm]:
        """The arms of a comparison, in the order of the summary."""
        rows = []
        for key, arm in self.part("arms").items():
            values = {name: number(arm, "sites", name, self.main) for name in self.sites}
            known = {name: value for name, value in values.items() if value is not None}
            worst = number(arm, "worst", self.main)
            if worst is None and len(known) == len(self.sites):
                worst = min(known.values(), default=None)
            rows.append(Arm(_title(key), known, number(arm, "mean", self.main), worst))
        return rows

    def best(self, column: str) -> float | None:
        """The highest number of a column of the arms: a hospital, or `mean` or `worst` of them."""
        if column in ("mean", "worst"):
            values = [getattr(arm, column) for arm in self.arms]
        else:
            values = [arm.sites.get(column) for arm in self.arms]
        return max((value for value in values if value is not None), default=None)

    def arms_chart(self) -> charts.Dots | None:
        """The arms as dots, one a hospital, and their means."""
        means = {arm.title: arm.mean for arm in self.arms if arm.mean is not None}
        return charts.dots({arm.title: arm.sites for arm in self.arms}, means=means, members=self.sites)


def number(value: Any, *keys: str) -> float | None:
    """The finite number under these keys, or None."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _cell(row: Mapping[str, Any], name: str) -> Cell:
    if name in row.get("contributed", ()):
        return Cell("contributed")
    if name in row.get("missing", {}):
        return Cell("missing", str(row["missing"][name]))
    return Cell("absent")


def _title(arm: str) -> str:
    if arm.startswith("alone:"):
        return f"{arm.removeprefix('alone:')} alone"
    return _TITLES.get(arm, arm)
