"""The tables a simulation ends with, from its summary."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from shared import console
from shared.accounting import CLAIM

MAIN = {"segmentation": "dice", "classification": "auroc"}
_WIDTH = 110


def show(summary: Mapping[str, Any]) -> None:
    """Print one row a hospital, then one row an arm; under privacy, what ε says."""
    main = MAIN[summary["job"]["task"]]
    title = f"{summary['job']['name']}: {len(summary['rounds'])} rounds, {summary['seconds']:.0f} s in all"
    console.listing(_hospitals(summary, main), title=title)
    if summary.get("arms"):
        title = f"{main} of each model at each hospital's test patients"
        console.listing(_arms(summary["arms"], main, list(summary["sites"])), title=title)
    if summary["job"]["privacy"]["mode"] == "patient":
        console.say(textwrap.fill(CLAIM, _WIDTH))


def _hospitals(summary: Mapping[str, Any], main: str) -> list[dict[str, object]]:
    arms = summary.get("arms", {})
    rows = []
    for name, site in summary["sites"].items():
        privacy = site["privacy"]
        row = {
            "hospital": name,
            "patients (train, validation, test)": list(site["patients"].values()),
            "files left out": site["files"]["left_out"],
            "ε spent": f"{privacy['epsilon']:.2f} (δ = {privacy['delta']:g})" if privacy else "no privacy",
            f"{main} before": site["before"].get(main),
            "after": site["after"].get(main),
        }
        if f"alone:{name}" in arms:
            row["its own model alone, at home"] = arms[f"alone:{name}"]["sites"][name].get(main)
        rows.append(row)
    return rows


def _arms(arms: Mapping[str, Any], main: str, sites: list[str]) -> list[dict[str, object]]:
    return [
        {"trained": name}
        | {site: arm["sites"][site].get(main) for site in sites}
        | {"mean": arm["mean"].get(main), "worst": arm["worst"].get(main)}
        for name, arm in arms.items()
    ]
