"""The messages that cross the wire, each a frozen dataclass ↔ a Flower RecordDict.

Requests go from the coordinator to a site, replies back. What is not in a schema here cannot be said:
`unpack` takes exactly the fields of its type and refuses anything else as malformed.

| request           | Flower message type | replies                    |
| ----------------- | ------------------- | -------------------------- |
| `Offer`           | `query.offer`       | `Accepted`, `Refusal`      |
| `TrainRequest`    | `train`             | `Update`, `Refusal`        |
| `EvaluateRequest` | `evaluate`          | `Figures`, `Refusal`       |
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar, Self, TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from shared import arrays, npy
from shared.arrays import Arrays
from shared.errors import BadInput, RefusalCode, Refused
from shared.job import Job

PROTOCOL = 2

# The only numbers that may leave a site. `dice.2` is `dice` of the job's class with index 2.
NUMBERS = frozenset(
    {
        "loss",
        "patients",
        "training_patients",
        "dice",
        "hausdorff95",
        "lesion_f1",
        "auroc",
        "balanced_accuracy",
        "calibration_error",
    }
)
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NUMBER = re.compile(r"([a-z0-9_]+?)(?:\.(\d{1,3}))?")


def is_listed(name: str) -> bool:
    """Whether a number of this name may leave a site at all."""
    match = _NUMBER.fullmatch(name)
    return match is not None and match[1] in NUMBERS


def _malformed(why: str) -> Refused:
    return Refused(RefusalCode.MALFORMED, why)


@dataclass(frozen=True, kw_only=True)
class _Wire:
    """Fields of four kinds, each in a record of its own: texts and integers, numbers, arrays."""

    flower_type: ClassVar[str]
    _texts: ClassVar[tuple[str, ...]] = ()
    _integers: ClassVar[tuple[str, ...]] = ()
    _numbers: ClassVar[bool] = False
    _arrays: ClassVar[bool] = False

    def pack(self) -> RecordDict:
        """The Flower records of this message."""
        config = ConfigRecord({"protocol": PROTOCOL, "kind": type(self).__name__})
        for name in self._texts:
            config[name] = str(getattr(self, name))
        for name in self._integers:
            config[name] = int(getattr(self, name))
        records = RecordDict({"config": config})
        if self._numbers:
            records["numbers"] = MetricRecord({name: float(value) for name, value in self.numbers.items()})  # type: ignore[attr-defined]
        if self._arrays:
            records["model"] = ArrayRecord({name: npy.pack(array) for name, array in self.model.items()})  # type: ignore[attr-defined]
        return records

    @classmethod
    def unpack(cls, records: RecordDict) -> Self:
        """Parse, taking exactly the fields of this type.

        Raises:
            Refused: `protocol` for another version of the protocol, `malformed` for anything else.
        """
        expected = {"config"} | ({"numbers"} if cls._numbers else set()) | ({"model"} if cls._arrays else set())
        if not isinstance(records, RecordDict) or set(records) != expected:
            raise _malformed("records are missing or not expected")
        config = records["config"]
        if not isinstance(config, ConfigRecord):
            raise _malformed("config is not a config record")
        if config.get("protocol") != PROTOCOL:
            raise Refused(RefusalCode.PROTOCOL, f"this site speaks protocol {PROTOCOL}")
        if set(config) != {"protocol", "kind", *cls._texts, *cls._integers} or config["kind"] != cls.__name__:
            raise _malformed("fields are missing or not expected")
        values: dict[str, object] = {}
        for name in cls._texts:
            if not isinstance(config[name], str):
                raise _malformed(f"{name} is not a text")
            values[name] = config[name]
        for name in cls._integers:
            value = config[name]
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise _malformed(f"{name} is not a whole number from 0")
            values[name] = value
        if cls._numbers:
            values["numbers"] = _read_numbers(records["numbers"])
        if cls._arrays:
            values["model"] = _read_arrays(records["model"])
        return cls(**cls._parsed(values))

    @classmethod
    def _parsed(cls, values: dict[str, object]) -> dict[str, object]:
        return values


@lru_cache(maxsize=16)
def _job(text: str) -> Job:
    """The job of a message; the same one comes with every round."""
    try:
        return Job.from_dict(json.loads(text))
    except (BadInput, ValueError, RecursionError):
        raise _malformed("the job does not parse") from None


def _read_numbers(record: object) -> dict[str, float]:
    if not isinstance(record, MetricRecord):
        raise _malformed("numbers is not a metric record")
    numbers: dict[str, float] = {}
    for name, value in record.items():
        if not is_listed(name) or isinstance(value, list | bool) or not math.isfinite(value):
            raise _malformed("a number is not on the list, or not finite")
        numbers[name] = float(value)
    return numbers


def _read_arrays(record: object) -> Arrays:
    if not isinstance(record, ArrayRecord):
        raise _malformed("model is not an array record")
    model: Arrays = {}
    for name, array in record.items():
        try:
            value = npy.unpack(array)
        except ValueError:
            raise _malformed("an array cannot be decoded") from None
        if not np.issubdtype(value.dtype, np.floating) or not np.isfinite(value).all():
            raise _malformed("an array is not of finite floating-point numbers")
        model[name] = value
    return model


@dataclass(frozen=True, kw_only=True)
class _WithJob(_Wire):
    """A request about a job: the job travels whole, with the digest that names it.

    Attributes:
        job: what is trained.
        run: the coordinator's name of this run of the job: 1 to 128 letters, digits, dots, dashes and underscores.
    """

    job: Job
    run: str
    _texts: ClassVar[tuple[str, ...]] = ("job", "digest", "run")

    @property
    def digest(self) -> str:
        """Of the job."""
        return self.job.digest

    def pack(self) -> RecordDict:
        records = super().pack()
        records.config_records["config"]["job"] = self.job.canonical()
        return records

    @classmethod
    def _parsed(cls, values: dict[str, object]) -> dict[str, object]:
        digest = values.pop("digest")
        job = _job(str(values["job"]))
        if job.digest != digest:
            raise _malformed("the job does not have the digest it is sent under")
        if not _RUN.fullmatch(str(values["run"])):
            raise _malformed("run is no name of a run")
        if not 1 <= int(str(values.get("round", 1))) <= job.federation.rounds:
            raise _malformed("round is none of this job's")
        return {**values, "job": job}


@dataclass(frozen=True, kw_only=True)
class Offer(_WithJob):
    """Would this site take part in this run of this job?"""

    flower_type: ClassVar[str] = "query.offer"


@dataclass(frozen=True, kw_only=True)
class TrainRequest(_WithJob):
    """Train this round from this model; asked for the same again, a site answers the same.

    Attributes:
        round: of the run, from 1.
        model: the global model.
    """

    flower_type: ClassVar[str] = "train"
    _integers: ClassVar[tuple[str, ...]] = ("round",)
    _arrays: ClassVar[bool] = True
    round: int
    model: Arrays = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(TrainRequest):
    """Say the figures of this model on the site's test patients."""

    flower_type: ClassVar[str] = "evaluate"


@dataclass(frozen=True, kw_only=True)
class Accepted(_Wire):
    """The site takes part."""

    flower_type: ClassVar[str] = "query.offer"


@dataclass(frozen=True, kw_only=True)
class Update(_Wire):
    """The model after a site's training, and the figures of the incoming one on its validation patients.

    Attributes:
        round: of the request.
        model: names, shapes and dtypes of the incoming model.
        numbers: from `NUMBERS` only.
    """

    flower_type: ClassVar[str] = "train"
    _integers: ClassVar[tuple[str, ...]] = ("round",)
    _numbers: ClassVar[bool] = True
    _arrays: ClassVar[bool] = True
    round: int
    model: Arrays = field(repr=False)
    numbers: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Figures(_Wire):
    """Figures of a model on a site's test patients; empty where the site withholds them."""

    flower_type: ClassVar[str] = "evaluate"
    _numbers: ClassVar[bool] = True
    numbers: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Refusal(_Wire):
    """The site did not do it, and why, as a code."""

    code: RefusalCode
    _texts: ClassVar[tuple[str, ...]] = ("code",)

    @classmethod
    def _parsed(cls, values: dict[str, object]) -> dict[str, object]:
        try:
            return {"code": RefusalCode(str(values["code"]))}
        except ValueError:
            raise _malformed("the refusal code is not on the list") from None


def content_digest(reply: Update | Figures) -> str:
    """SHA-256 of what a reply says: of its model and of its numbers. Both sides can work it out, and compare."""
    model = arrays.digest(reply.model) if isinstance(reply, Update) else ""
    return hashlib.sha256(f"{model}\n{json.dumps(reply.numbers, sort_keys=True)}".encode()).hexdigest()


Reply = Accepted | Update | Figures | Refusal
_Expected = TypeVar("_Expected", Accepted, Update, Figures)


def read_reply(records: RecordDict, expected: type[_Expected]) -> _Expected | Refusal:
    """What a site answered: the expected reply, or a refusal.

    Raises:
        Refused: if it is neither.
    """
    config = records.get("config") if isinstance(records, RecordDict) else None
    if isinstance(config, ConfigRecord) and config.get("kind") == Refusal.__name__:
        return Refusal.unpack(records)
    return expected.unpack(records)
