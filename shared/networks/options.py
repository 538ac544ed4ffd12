"""The options of a network: what a job gives, checked against MONAI's signature, over the catalogue's defaults."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shared.errors import BadInput
from shared.networks.catalogue import Entry, Options

if TYPE_CHECKING:
    from torch import nn


def complete(entry: Entry, given: Mapping[str, Any], dimensions: int) -> Options:
    """All options: those given, over the defaults.

    Raises:
        BadInput: for a key that MONAI does not know or the job may not give, or a value of another kind than expected.
    """
    from shared.networks import bounds

    for key, value in given.items():  # first of all: what is left out follows from the lists that are given
        if (why := bounds.plain(value)) is not None:
            raise BadInput(f"[network] {key[:80]}: {why}")
    defaults = entry.defaults(given, dimensions)
    known = _known(entry)
    for key, value in given.items():
        if key in (decided := entry.decided()):
            raise BadInput(f"[network] {key}: cannot be given: {decided[key]}")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f", did you mean {near[0]}" if near else ""
            raise BadInput(f"[network] {key}: unknown to {entry.name}{hint}; it takes: {', '.join(known)}")
        _expect_kind(key, value, defaults.get(key, known[key]))
    return {**defaults, **given}


def constructor(entry: Entry) -> type[nn.Module]:
    """The class behind the name; imports MONAI."""
    module, _, name = entry.kind.partition(":")
    kind: type[nn.Module] = getattr(importlib.import_module(module), name)
    return kind


def _known(entry: Entry) -> dict[str, Any]:
    """The keys that a job may give → MONAI's default (or None)."""
    keys: dict[str, Any] = {}
    for owner in reversed(inspect.getmro(constructor(entry))):  # a subclass may hand the rest on to its base
        if not owner.__module__.startswith(("monai.", "shared.")):
            continue
        for parameter in inspect.signature(owner).parameters.values():
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                empty = parameter.default is inspect.Parameter.empty
                keys[parameter.name] = None if empty else parameter.default
    return {key: default for key, default in keys.items() if key not in entry.decided()}


def _expect_kind(key: str, value: object, default: object) -> None:
    """What TOML says has to be of the kind the default has: MONAI takes the text "no" for true."""
    if isinstance(default, bool) and not isinstance(value, bool):
        raise BadInput(f"[network] {key}: got {_show(value)}, expected true or false")
    if isinstance(default, int | float) and not isinstance(default, bool) and isinstance(value, bool | str):
        raise BadInput(f"[network] {key}: got {_show(value)}, expected a number, such as {default}")
    if isinstance(default, list) and not isinstance(value, list | tuple):
        raise BadInput(f"[network] {key}: got {_show(value)}, expected a list, such as {default}")


def _show(value: object) -> str:
    return repr(value)[:80]
