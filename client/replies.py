"""What was answered, kept: the same question gets the same bytes, trains nothing and spends nothing.

    HOME/replies/<run>/<question>      a run's last few answers, each one file

A reply is whole before it leaves the site, and under privacy, where making it again would be charged again, it is on
the disk as well (fsync). Only the last answers of the last runs are kept: an older one is worked out anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from client.site import Site
from shared import arrays
from shared.arrays import StructureError
from shared.files import write_atomically
from shared.messages import EvaluateRequest, Figures, TrainRequest, Update

KEPT_ANSWERS = 4  # of one run: two rounds, each with a model and with figures
KEPT_RUNS = 16


class Replies:
    """The stored replies of one site."""

    def __init__(self, site: Site) -> None:
        self._folder = site.home / "replies"

    def find(self, request: TrainRequest, model: str) -> Update | Figures | None:
        """What was answered to this very request; None if nothing was, or it is kept no longer, or is damaged.

        Args:
            request: of either kind.
            model: the digest of its model.
        """
        file = self._file(request, model)
        try:
            return read(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, StructureError, ValueError, KeyError, TypeError):
            file.unlink(missing_ok=True)
            return None

    def keep(self, request: TrainRequest, model: str, reply: Update | Figures) -> None:
        """Write a reply, and forget the oldest ones."""
        file = self._file(request, model)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if request.job.private:
            write_atomically(file, _bytes(reply), mode=0o600)
        else:
            draft = file.with_name(f".{file.name}.{os.getpid()}")
            draft.write_bytes(_bytes(reply))
            draft.replace(file)
        for old in _oldest(file.parent.iterdir(), KEPT_ANSWERS):
            old.unlink(missing_ok=True)
        for old in _oldest(self._folder.iterdir(), KEPT_RUNS):
            shutil.rmtree(old, ignore_errors=True)

    def _file(self, request: TrainRequest, model: str) -> Path:
        run = hashlib.sha256(f"{request.digest}\0{request.run}".encode()).hexdigest()[:32]
        kind = "evaluate" if isinstance(request, EvaluateRequest) else "train"
        question = hashlib.sha256(f"{kind}\0{request.round}\0{model}".encode()).hexdigest()[:32]
        return self._folder / run / question


def _oldest(paths: Iterable[Path], kept: int) -> list[Path]:
    dated = []
    for path in paths:
        try:
            dated.append((path.stat().st_mtime_ns, path))
        except FileNotFoundError:
            continue
    return [path for _, path in sorted(dated, reverse=True)[kept:]]


def _bytes(reply: Update | Figures) -> bytes:
    """A safetensors file: the arrays bit for bit, everything else as text beside them."""
    fields = {"kind": type(reply).__name__, "numbers": json.dumps(reply.numbers)}
    if isinstance(reply, Update):
        return arrays.encode(reply.model, {**fields, "round": str(reply.round), "order": json.dumps(list(reply.model))})
    return arrays.encode({}, fields)


def read(data: bytes) -> Update | Figures:
    """The reply that a file holds.

    Raises:
        StructureError, ValueError, KeyError, TypeError: if it holds none.
    """
    fields = _metadata(data)
    numbers = {str(name): float(value) for name, value in json.loads(fields["numbers"]).items()}
    if fields["kind"] == Figures.__name__:
        return Figures(numbers=numbers)
    model = arrays.decode(data)
    ordered = {name: model[name] for name in json.loads(fields["order"])}
    return Update(round=int(fields["round"]), model=ordered, numbers=numbers)


def _metadata(data: bytes) -> dict[str, str]:
    """The texts of a safetensors file: eight bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    fields: dict[str, str] = header["__metadata__"]
    return fields
