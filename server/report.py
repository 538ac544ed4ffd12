"""The report of a run: one HTML file that needs nothing else, made from the run's summary.

No script, no font, no picture from anywhere: the page opens without a network, prints, follows the reader's light or
dark setting, and its own content policy forbids it to load anything. All that is shown is in the summary; what the
summary lacks (a failed run, a figure that a hospital withholds) is shown as lacking.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from server.summary import Summary, number
from shared.accounting import CLAIM
from shared.files import write_atomically

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Overlay:
    """A picture of an example: a test image with the truth and the prediction drawn over it.

    For phantoms and research data only; a hospital's own patients never appear in a report of the coordinator.
    """

    site: str
    title: str
    png: bytes


def write(path: Path, summary: Mapping[str, Any], overlays: Sequence[Overlay] = ()) -> None:
    """Write the report.

    Args:
        path: the HTML file; replaced as a whole.
        summary: what `summary.json` holds; any part may be lacking, and `status` and `message` of a run that did not
            complete may be beside the rest.
        overlays: examples from phantoms or research data.
    """
    write_atomically(Path(path), render(summary, overlays).encode())


def render(summary: Mapping[str, Any], overlays: Sequence[Overlay] = ()) -> str:
    """The report as HTML; see `write`."""
    environment = Environment(
        loader=PackageLoader("server"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": _rounded,
        "count_of": _count,
        "small": _small,
        "epsilon": _epsilon,
        "seconds": _seconds,
        "ranges": _ranges,
    }
    pictures = [(item, base64.b64encode(item.png).decode()) for item in overlays]
    return environment.get_template("report.html").render(
        summary=Summary(summary), claim=CLAIM, splits=SPLITS, pictures=pictures
    )


def _rounded(value: object, digits: int = 3) -> str:
    known = number(value)
    return "–" if known is None else f"{known:.{digits}f}"


def _count(value: object) -> str:
    known = number(value)
    return "–" if known is None else f"{known:.0f}"


def _small(value: object) -> str:
    """A rate or a δ, as short as it is exact."""
    known = number(value)
    return "–" if known is None else f"{known:g}"


def _epsilon(value: object) -> str:
    """ε rounded up, so that the page never claims more privacy than there was."""
    known = number(value)
    return "–" if known is None else f"{math.ceil(known * 100 - 1e-9) / 100:.2f}"


def _seconds(value: object) -> str:
    known = number(value)
    if known is None:
        return "–"
    if known < 120:
        return f"{known:.1f} s"
    minutes, rest = divmod(round(known), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 120 else f"{minutes} min {rest} s"


def _ranges(numbers: Sequence[int]) -> str:
    """Rising whole numbers in short.

    >>> _ranges([1, 2, 3, 7])
    '1 to 3, 7'
    """
    runs: list[list[int]] = []
    for item in numbers:
        if runs and item == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], item]
        else:
            runs.append([item])
    return ", ".join(" to ".join(map(str, run)) for run in runs)
