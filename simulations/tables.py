"""The tables a simulation ends with, from its summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from shared.accounting import CLAIM

_MAIN = {"segmentation": "dice", "classification": "auroc"}


def show(summary: Mapping[str, Any], *, console: Console | None = None) -> None:
    """Print one row a hospital, then one row an arm, to stdout."""
    console = console or Console()
    main = _MAIN[summary["job"]["task"]]
    console.print(_hospitals(summary, main))
    if summary.get("arms"):
        console.print(_arms(summary["arms"], main, list(summary["sites"])))
    if summary["job"]["privacy"]["mode"] == "patient":
        console.print(f"[dim]{CLAIM}[/dim]")


def _hospitals(summary: Mapping[str, Any], main: str) -> Table:
    table = Table(title=f"{summary['job']['name']}: {len(summary['rounds'])} rounds in {summary['seconds']:.0f} s")
    arms = summary.get("arms", {})
    has_alone = any(name.startswith("alone:") for name in arms)
    for heading in ("hospital", "patients (train/val/test)", "ε spent", f"{main} before", "after"):
        table.add_column(heading, justify="left" if heading == "hospital" else "right")
    if has_alone:
        table.add_column("its own model alone", justify="right")
    for name, site in summary["sites"].items():
        privacy = site["privacy"]
        row = [
            name,
            "/".join(str(count) for count in site["patients"].values()),
            f"{privacy['epsilon']:.2f} (δ {privacy['delta']:g})" if privacy else "no privacy",
            _number(site["before"].get(main)),
            _number(site["after"].get(main)),
        ]
        if has_alone:
            row.append(_number(arms[f"alone:{name}"]["sites"][name].get(main)))
        table.add_row(*row)
    return table


def _arms(arms: Mapping[str, Any], main: str, sites: list[str]) -> Table:
    table = Table(title=f"{main} of each model at each hospital (test patients)")
    table.add_column("trained")
    for heading in (*sites, "mean", "worst"):
        table.add_column(heading, justify="right")
    for name, arm in arms.items():
        numbers = [arm["sites"][site].get(main) for site in sites]
        table.add_row(name, *map(_number, [*numbers, arm["mean"].get(main), arm["worst"].get(main)]))
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
