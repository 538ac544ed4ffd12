"""What the libraries say while they read a scan is kept to themselves: they quote header values."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Their logs end up in a terminal or a file wherever nobody has said otherwise.
for _library in ("pydicom", "highdicom", "nibabel", "pylibjpeg", "openjpeg", "libjpeg"):
    logging.getLogger(_library).setLevel(logging.CRITICAL + 1)


@contextmanager
def quiet() -> Iterator[None]:
    """No warning is shown while this is open."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
