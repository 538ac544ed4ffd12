"""`insitu-client budget`: what every dataset has spent, and the two decisions that are the operator's."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from client.ledger.ledger import Ledger
from client.site import Site
from shared import console
from shared.accounting import CLAIM
from shared.console import Home, Json
from shared.errors import BadInput, Refused

if TYPE_CHECKING:
    from client.ledger.acceptance import Findings

app = console.app("The privacy budget: what is spent, and the decisions that are the operator's.")

_REASON = typer.Option(help="Who decided it, and why; the ledger keeps it.", metavar="TEXT")
_WIDTH = 110


@app.callback(invoke_without_command=True, no_args_is_help=False)
def show(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option("--home", envvar="INSITU_HOME", help="The home folder.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """What every dataset and job has spent, what is left, and what one more round would cost."""
    if context.invoked_subcommand is not None:
        return
    if home is None:
        raise typer.BadParameter("missing; say which home, or set INSITU_HOME", param_hint="--home")
    from client.ledger.overview import overview

    site = Site.open(home)
    facts = overview(Ledger(site), _registered(site))
    if as_json:
        console.dump(facts)
        return
    _show(facts)


@app.command("raise")
def raise_(
    dataset: Annotated[str, typer.Argument(help="The name of the dataset.")],
    home: Home,
    epsilon: Annotated[float, typer.Option(help="Its ε from now on, over all jobs for ever.")],
    reason: Annotated[str, _REASON],
    delta: Annotated[float | None, typer.Option(help="Its δ from now on; as it is, if not given.")] = None,
) -> None:
    """Raise a dataset's budget; site.toml alone can only lower it."""
    ledger = Ledger(Site.open(home))
    raised = ledger.raise_budget(dataset, epsilon=epsilon, delta=delta, reason=_said(reason))
    in_force = ledger.rules(dataset)
    console.say(f"{dataset}: the budget is ε = {raised.epsilon:g}, δ = {raised.delta:g} from now on, and recorded")
    if (in_force.epsilon, in_force.delta) != (raised.epsilon, raised.delta):
        console.say(
            f"but {ledger.site.home}/site.toml lowers it to ε = {in_force.epsilon:g}, δ = {in_force.delta:g}: change "
            f"[datasets.{dataset}] there, too"
        )
    _claim()


@app.command()
def accept(
    home: Home,
    reason: Annotated[str | None, _REASON] = None,
    spent_at_least: Annotated[
        list[str] | None,
        typer.Option(help="The ε that a dataset is to count as having spent at least.", metavar="DATASET=ε"),
    ] = None,
) -> None:
    """Go on with a ledger that is not trusted: without --reason only what is known is shown; exits with 3 then."""
    site = Site.open(home)
    at_least = parse_presumed(spent_at_least or [])
    from client.ledger import acceptance

    with site.claimed():
        ledger = Ledger(site)
        findings = acceptance.examine(ledger)
        if findings.trouble is None:
            console.say(f"{ledger.file} agrees with its witness: there is nothing to accept")
            return
        datasets = [*site.config.datasets, *_registered(site)]
        if reason is None:
            _show_findings(ledger, findings, datasets)
            raise typer.Exit(Refused.exit_code)
        acceptance.accept(ledger, findings, reason=_said(reason), at_least=at_least, datasets=datasets)
    console.say(f"accepted, and recorded in {ledger.file}; `insitu-client budget` shows what counts from now on")


def parse_presumed(pairs: list[str]) -> dict[str, float]:
    """`dataset=ε` pairs.

    Raises:
        BadInput: if one is not.

    >>> parse_presumed(["liver=4.2"])
    {'liver': 4.2}
    """
    presumed = {}
    for pair in pairs:
        dataset, _, number = pair.rpartition("=")
        try:
            presumed[dataset] = float(number)
        except ValueError:
            presumed[dataset] = -1.0
        if not dataset or not 0 <= presumed[dataset] < float("inf"):
            raise BadInput(f"--spent-at-least: got {pair!r}, expected DATASET=ε, as in --spent-at-least liver=4.2")
    return presumed


def _said(reason: str) -> str:
    if not reason.strip():
        raise BadInput("--reason: say who decided it, and why; the ledger keeps it")
    return reason.strip()


def _registered(site: Site) -> list[str]:
    """The names of the datasets that are registered."""
    if not (site.home / "registry.sqlite").exists():
        return []
    from client.data.registry import Registry

    return [str(row["name"]) for row in Registry(site).list()]


def _show(facts: dict[str, Any]) -> None:
    columns = {"dataset": "dataset", "split": "patients", "epsilon": "budget ε", "delta": "δ"}
    columns |= {"spent": "spent", "reserved": "reserved", "left": "left"}
    rows = [{**row, "delta": f"{row['delta']:g}"} for row in facts["datasets"]]
    console.listing(rows, columns, title="in ε, over all jobs", empty="no dataset yet")
    if facts["jobs"]:
        columns = {"dataset": "dataset", "split": "patients", "job": "job", "digest": "digest", "rounds": "rounds"}
        columns |= {
            "charges": "charged",
            "epsilon": "ε by itself",
            "after": "all, after one more round",
            "last": "last",
        }
        rows = [{**row, "digest": row["digest"] and row["digest"][:12], "after": _after(row)} for row in facts["jobs"]]
        console.listing(rows, columns)
    if facts["decisions"]:
        console.listing(facts["decisions"], {"time": "decided", "what": "what", "reason": "why"})
    for note in facts["ignored"]:
        console.say(note)
    _claim()


def _after(row: dict[str, Any]) -> str | None:
    return None if row["after"] is None else f"{'at most ' if row['at_most'] else ''}{row['after']:.3f}"


def _show_findings(ledger: Ledger, findings: Findings, datasets: list[str]) -> None:
    from shared import accounting

    console.say(f"{ledger.file} is not trusted: {findings.trouble}")
    known = findings.known()
    rows = []
    for dataset in sorted({*known.datasets, *datasets}):
        rules = ledger.in_force(known, dataset)
        for split in sorted(known.datasets.get(dataset, {"train"})):
            spent = [
                None if books is None else accounting.epsilon(books.history(dataset, split), delta=rules.delta)
                for books in (findings.ledger, findings.witnessed, known)
            ]
            counts = spent[2] if findings.complete else max(spent[2] or 0.0, rules.epsilon)
            row = {"dataset": dataset, "split": split, "budget": rules.epsilon}
            rows.append({**row, "ledger": spent[0], "witness": spent[1], "counts": counts})
    columns = {"dataset": "dataset", "split": "patients", "budget": "budget ε"}
    columns |= {"ledger": "spent, says the ledger", "witness": "says the witness", "counts": "would count as spent"}
    console.listing(rows, columns, empty="no dataset is known")
    if findings.complete:
        console.say("The witness is the one that was written last: nothing that was spent is missing from its sums.")
    else:
        console.say(
            "What was spent after that is not known here. A dataset counts as spent in full, unless you say how much: "
            "--spent-at-least DATASET=ε"
        )
    console.say(
        "If the newest ledger, or the home it is in, still is somewhere, use that, and nothing has to be decided. "
        f"Otherwise: insitu-client budget accept --home {shlex.quote(str(ledger.site.home))} --reason TEXT"
    )
    _claim()


def _claim() -> None:
    console.say(textwrap.fill(CLAIM, _WIDTH))
