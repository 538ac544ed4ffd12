"""What people declare in files: the kinds of values, their canonical form, the wording of mistakes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError(f'got {value!r}, expected a number and a unit, as "90s", "30m", "2h" or "1d"')
    try:
        return timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
    except OverflowError:
        raise ValueError(f"got {value!r}, which is longer than anybody waits") from None


def _plain_number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(lambda value: f"{_plain_number(value.total_seconds())}s", return_type=str),
    Field(gt=timedelta(0)),
]
SITE_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
Count = Annotated[int, Field(ge=1, le=2**31)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A table of such a file: nothing in it that is not known, and nothing of it changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def explain(error: ValidationError) -> str:
    """Say every mistake of a pydantic check as `[section] key: what`, one a line."""
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        where = [str(part) for part in item["loc"]]
        field = f"[{where[0]}] {'.'.join(where[1:])}" if len(where) > 1 else "".join(where)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "unknown key; remove it, or look for a misspelling"
        elif item["type"] == "missing":
            message = "is missing"
        elif not isinstance(item["input"], Mapping | list | tuple) and item["type"] != "value_error":
            message = f"got {str(item['input'])[:80]!r}: {message}"
        lines.append(f"{field}: {message}" if field else message)
    return "; ".join(lines)


def canonical(value: Any) -> Any:
    """Numbers that are equal become the same text; tuples become lists."""
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def is_plain(value: object) -> bool:
    """Whether TOML and JSON both say it, and mean the same."""
    if isinstance(value, list | tuple):
        return all(is_plain(item) for item in value)
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def without_none(value: Any) -> Any:
    """TOML has no word for nothing: what is none is left out."""
    if isinstance(value, Mapping):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_none(item) for item in value]
    return value
