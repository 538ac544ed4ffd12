"""The record as a data protection officer files it: one HTML page that needs nothing else, or a table (CSV).

The page has no script and loads nothing; its own content policy forbids it to. It prints. With the head on it, whoever
keeps the page can show later that no entry up to then was changed since.
"""

from __future__ import annotations

import csv
import io
import math
import time
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from client.audit import overview
from client.audit.counts import in_words
from client.audit.entries import Released
from client.audit.findings import Findings
from client.ledger import Ledger
from client.ledger.overview import overview as spending
from client.site import Site
from shared.accounting import CLAIM
from shared.console import when
from shared.errors import BadInput, Refused
from shared.files import write_atomically

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_DETAILS = ("policy", "content", "structure", "arrays", "link")


def write(file: Path, site: Site, findings: Findings) -> None:
    """Write the record as it was verified.

    Args:
        file: `.html` or `.csv`; replaced as a whole.
        site: whose record.
        findings: what is in it, and whether anything is wrong.

    Raises:
        BadInput: if the file is to be of another kind.
    """
    kinds = {".html": page, ".csv": table}
    if file.suffix.lower() not in kinds:
        raise BadInput(f"got {file.suffix or 'no ending'}, expected a file that ends with .html or .csv", file=file)
    write_atomically(file, kinds[file.suffix.lower()](site, findings).encode(), mode=0o600)


def page(site: Site, findings: Findings) -> str:
    """The record as HTML."""
    environment = Environment(
        loader=PackageLoader("client.audit"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"epsilon": _epsilon}
    return environment.get_template("record.html").render(
        site=site.name,
        findings=findings,
        exported=when(time.time()),
        totals=overview.totals(findings.entries),
        columns=overview.COLUMNS,
        rows=[overview.row(one) for one in findings.entries],
        links=[one.line.link for one in findings.entries],
        pending=list(in_words(findings.pending)),
        spent=_spent(site),
        claim=CLAIM,
    )


def table(site: Site, findings: Findings) -> str:
    """The record as CSV, which a spreadsheet takes for text and numbers and never for a formula."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*overview.COLUMNS, *_DETAILS])
    for one in findings.entries:
        row = overview.row(one)
        entry = one.entry
        details: dict[str, Any] = {"policy": entry.policy, "link": one.line.link}
        if isinstance(entry, Released):
            details |= {"content": entry.content, "structure": entry.structure, "arrays": entry.arrays}
        writer.writerow([_cell(row[key]) for key in overview.COLUMNS] + [_cell(details.get(key)) for key in _DETAILS])
    return text.getvalue()


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _spent(site: Site) -> dict[str, Any] | None:
    """What the ledger says; None where it is not trusted."""
    try:
        return spending(Ledger(site))
    except Refused:
        return None


def _epsilon(value: float | None) -> str:
    """ε rounded up, so that the page never claims more privacy than there was."""
    return (
        "–" if value is None else f"{math.ceil(value * 100 - 1e-9) / 100:.2f}" if math.isfinite(value) else "no bound"
    )
