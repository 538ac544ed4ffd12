"""Job: one federated training, declared. TOML in and out, with a digest that means the same thing everywhere.

Two files that mean the same have the same digest: defaults are filled in, numbers are typed, durations are
seconds, and the canonical form is JSON with sorted keys.

>>> text = '''
... name = "lesions"
... task = "segmentation"
... classes = ["background", "lesion"]
... [images]
... size = [96, 128]
... [network]
... name = "UNet"
... [privacy]
... mode = "none"
... '''
>>> job = Job.from_toml(text)
>>> Job.from_toml(job.to_toml()).digest == job.digest
True
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from shared.declared import Count, Duration, Positive, Section, canonical, explain, is_plain, without_none
from shared.errors import BadInput


class Images(Section):
    """How an image reaches the network; the same in training, evaluation and prediction.

    Attributes:
        channels: of the image as it is read (1 grey, 3 colour).
        size: in voxels after preprocessing: rows, columns (2D), or along the patient's right, front and head (3D).
        intensity: `zscore` (mean 0, deviation 1 over the image), `unit` (0 to 1 between minimum and maximum),
            `percentile` (0 to 1 between the 1st and 99th percentile, clipped), `window` (the same over `window`).
        window: centre and width, in the image's own units (Hounsfield in CT); choosing it chooses `window`.
        spacing: millimetres per voxel to resample to, in the order of `size`; without it the image is stretched.
    """

    channels: Annotated[int, Field(ge=1, le=16)] = 1
    size: Annotated[tuple[Annotated[int, Field(ge=4, le=2048)], ...], Field(min_length=2, max_length=3)]
    intensity: Literal["zscore", "unit", "percentile", "window"] = "zscore"
    window: tuple[float, Positive] | None = None
    spacing: tuple[Positive, ...] | None = None

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return len(self.size)

    @model_validator(mode="before")
    @classmethod
    def _window_chooses_itself(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("window") is not None and "intensity" not in data:
            return {**data, "intensity": "window"}
        return data

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.intensity == "window") != (self.window is not None):
            raise ValueError('`window = [centre, width]` goes with intensity = "window", and only with it')
        if self.spacing is not None and len(self.spacing) != len(self.size):
            raise ValueError(f"spacing has {len(self.spacing)} numbers, expected {len(self.size)}, as many as size")
        return self


class Network(BaseModel):
    """A MONAI network by name; every further key is an option of that network (see `shared.networks`).

    Attributes:
        name: see `insitu-sim networks`.
        atlas: voxels between the knots of a map of where each class tends to be, learnt beside the network and added
            to its logits (segmentation only); none for no map. For images that are framed alike.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    atlas: Annotated[int, Field(ge=1, le=2048)] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The further keys."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _one_spelling(self) -> Self:
        for key, value in (self.model_extra or {}).items():
            if not is_plain(value):
                raise ValueError(f"{key}: expected a finite number, a text, true or false, or a list of them")
            self.__pydantic_extra__[key] = canonical(value)  # type: ignore[index]
        return self


class Training(Section):
    """What a site does in one round.

    Attributes:
        local_steps: optimiser steps a round; 0 trains nothing (for measuring the federation itself).
        local_epochs: instead of `local_steps`: passes over the site's training patients. Under privacy this is
            `local_epochs / sample_rate` steps, a public number; without, it depends on the number of patients.
        batch_size: patients drawn for one step without privacy. Under privacy the sample rate decides who is drawn, and
            this is the public number by which the sum of their gradients is divided: best near rate × patients.
        images_per_patient: images drawn of each drawn patient, averaged into one gradient.
        loss: `dice_ce`, `dice` or `ce` (segmentation); `ce` (classification); by default the first that fits.
        class_weights: one weight a class for the cross-entropy; equal by default.
        augmentation: `none`, or `light` (flips, small intensity shifts) of each drawn image.
        views: how often each drawn image is augmented anew; all views of a patient's images are averaged into one
            gradient (De et al. 2022, arXiv:2204.13650: augmentation multiplicity). It costs time, and no privacy.
        precision: of the forward and backward pass in training: `float32`, or `bfloat16` (autocast), quicker where the
            machine has it. Parameters, clipping, sums, noise and evaluation are in float32 or better in any case.
        start_from: `scratch`, or `phantoms`: the coordinator trains the initial model on pictures that a generator
            draws from the seed (segmentation only). No patient is in them, and they cost no privacy.
        seed: of the initial weights, and without privacy of the order of patients. It never reaches the noise.
    """

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Positive = 0.003
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    local_steps: Annotated[int, Field(ge=0, le=10**6)] | None = None
    local_epochs: Positive | None = None
    batch_size: Count = 8
    images_per_patient: Count = 1
    loss: Literal["dice_ce", "dice", "ce"] | None = None
    class_weights: tuple[Positive, ...] | None = None
    augmentation: Literal["none", "light"] = "none"
    views: Annotated[int, Field(ge=1, le=64)] = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    start_from: Literal["scratch", "phantoms"] = "scratch"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("local_steps") is None and data.get("local_epochs") is None:
            return {**data, "local_steps": 25}
        return data

    @model_validator(mode="after")
    def _only_one_length(self) -> Self:
        if self.local_steps is not None and self.local_epochs is not None:
            raise ValueError("give local_steps or local_epochs, not both")
        return self

    @model_validator(mode="after")
    def _views_differ(self) -> Self:
        if self.views > 1 and self.augmentation == "none":
            raise ValueError(f'views = {self.views} needs an augmentation, such as "light": they would all be the same')
        return self


class Privacy(Section):
    """Differential privacy of a patient: add/remove adjacency, Poisson sampling of patients at each site.

    Attributes:
        mode: `patient`, or `none`, which has to be said aloud and which a site may refuse.
        epsilon, delta: the guarantee of the whole job at each site.
        sample_rate: the public probability with which a patient is drawn into a step.
        clipping_norm: bound on one patient's gradient (L2).
        secure_aggregation: hide each single update from the coordinator as well.
    """

    mode: Literal["patient", "none"] = "patient"
    epsilon: Positive | None = None
    delta: Annotated[float, Field(gt=0, lt=1)] | None = None
    sample_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    clipping_norm: Positive | None = None
    secure_aggregation: bool = False

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_mode(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("mode", "patient") == "patient":
            return {"epsilon": 8.0, "delta": 1e-5, "sample_rate": 0.05, "clipping_norm": 1.0, **data}
        return data

    @model_validator(mode="after")
    def _nothing_half_private(self) -> Self:
        numbers = ("epsilon", "delta", "sample_rate", "clipping_norm")
        given = [name for name in numbers if getattr(self, name) is not None]
        if self.mode == "none" and given:
            raise ValueError(f'mode = "none" and {", ".join(given)} contradict each other: remove one or the other')
        if self.mode == "patient" and len(given) != len(numbers):
            raise ValueError(f"expected numbers for {', '.join(name for name in numbers if name not in given)}")
        return self


class Federation(Section):
    """How the sites' updates become one model.

    Attributes:
        algorithm: see `insitu-sim algorithms`.
        momentum: of the coordinator's step, with `fedavgm` and only with it; .9 by default.
        weights: `equal`, or `patients` (by the number of training patients, which a private job may not reveal).
        min_sites: the quorum; a round with fewer updates does not count.
        quorum_deadline: how long a run waits for its quorum: for sites to be there and for their operators to say yes,
            and in a round for those that had trouble to come back.
        round_deadline: after which a round goes on without the late sites, if it has its quorum.
        evaluate_every: rounds between the sites' figures of the incoming model on their validation patients; 0 for
            none. By default 1, and 0 under privacy: each release is charged to those patients, and the more releases
            there are, the more noise is in each.
        evaluate_at_end: whether the sites say figures of the final model on their test patients; under privacy noised.
    """

    algorithm: str = "fedavg"
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    rounds: Annotated[int, Field(ge=1, le=100_000)] = 30
    min_sites: Count = 1
    quorum_deadline: Duration = timedelta(days=7)
    round_deadline: Duration = timedelta(hours=2)
    weights: Literal["equal", "patients"] = "equal"
    evaluate_every: Annotated[int, Field(ge=0)] | None = None
    evaluate_at_end: bool = True


class Job(Section):
    """One federated training, as the coordinator submits it and each site approves it, under its digest."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    task: Literal["segmentation", "classification"]
    classes: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(min_length=2, max_length=256)
    ]
    images: Images
    network: Network
    training: Training = Training()
    privacy: Privacy
    federation: Federation = Federation()

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len({name.casefold() for name in classes}) != len(classes):
            raise ValueError("two classes have the same name (capitals do not count)")
        if not all(name.isprintable() for name in classes):
            raise ValueError("the name of a class has signs that cannot be printed")
        return classes

    @model_validator(mode="before")
    @classmethod
    def _privacy_is_said_aloud(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "privacy" not in data:
            raise ValueError('there is no [privacy] section: give epsilon and delta there, or say mode = "none" aloud')
        return data

    @model_validator(mode="after")
    def _figures_of_the_mode(self) -> Self:
        if self.federation.evaluate_every is None:
            every = 0 if self.private else 1
            object.__setattr__(self, "federation", self.federation.model_copy(update={"evaluate_every": every}))
        return self

    @model_validator(mode="after")
    def _agree(self) -> Self:
        weights = self.training.class_weights
        if weights is not None and len(weights) != len(self.classes):
            raise ValueError(f"[training] class_weights has {len(weights)} numbers, expected {len(self.classes)}")
        if self.task == "classification" and self.training.loss not in (None, "ce"):
            raise ValueError(f'[training] loss = "{self.training.loss}" is for segmentation; classification has "ce"')
        if self.task == "classification" and self.training.start_from == "phantoms":
            raise ValueError(
                '[training] start_from = "phantoms" is for segmentation; classification starts from "scratch"'
            )
        if self.task == "classification" and self.network.atlas is not None:
            raise ValueError("[network] atlas is for segmentation")
        if self.federation.momentum is not None and self.federation.algorithm != "fedavgm":
            raise ValueError('[federation] momentum goes with algorithm = "fedavgm", and only with it')
        if self.private and self.federation.weights == "patients":
            raise ValueError('[federation] weights = "patients" would reveal counts; a private job has "equal"')
        return self

    @property
    def private(self) -> bool:
        """Whether each patient is protected by differential privacy."""
        return self.privacy.mode == "patient"

    @property
    def steps_per_round(self) -> int | None:
        """Optimiser steps a round, where they are the same at every site; None for epochs without privacy."""
        if self.training.local_steps is not None:
            return self.training.local_steps
        if self.private:
            return max(1, round(self.training.local_epochs / self.privacy.sample_rate))  # type: ignore[operator]
        return None

    @property
    def evaluations(self) -> int:
        """How many times the sites say figures of their validation patients."""
        every = self.federation.evaluate_every
        return math.ceil(self.federation.rounds / every) if every else 0

    def canonical(self) -> str:
        """The canonical JSON text: defaults filled in, keys sorted, no spaces, 8.0 written as 8."""
        return json.dumps(canonical(self.model_dump(mode="json")), sort_keys=True, separators=(",", ":"))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical form, in hexadecimal: what a site approves."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def to_toml(self) -> str:
        """The job as TOML, everything spelled out."""
        return tomli_w.dumps(without_none(self.model_dump(mode="json")))

    def varied(self, **sections: Mapping[str, Any]) -> Job:
        """This job with some keys of some sections replaced (None removes one), validated again.

        >>> job.varied(federation={"rounds": 2}).federation.rounds  # doctest: +SKIP
        2
        """
        data = self.model_dump(mode="json", exclude_none=True)
        for section, keys in sections.items():
            merged = {**data.get(section, {}), **keys}
            data[section] = {key: value for key, value in merged.items() if value is not None}
        return Job.model_validate(data)

    def without_privacy(self) -> Job:
        """The same job with `mode = "none"`."""
        return Job.model_validate({**self.model_dump(mode="json", exclude_none=True), "privacy": {"mode": "none"}})

    @classmethod
    def from_toml(cls, text: str, *, file: object = "job") -> Job:
        """Parse and check.

        Raises:
            BadInput: naming the file, the field, what was got and what was expected.
        """
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise BadInput(f"not valid TOML: {error}", file=file) from None
        except (RecursionError, ValueError):  # a thousand brackets, a number of a thousand digits
            raise BadInput("not valid TOML: nested too deeply, or a number too long", file=file) from None
        return cls.from_dict(data, file=file)

    @classmethod
    def from_dict(cls, data: object, *, file: object = "job") -> Job:
        """Check a parsed job.

        Raises:
            BadInput: as `from_toml`.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise BadInput(explain(error), file=file) from None
        except RecursionError:
            raise BadInput("nested too deeply", file=file) from None

    @classmethod
    def load(cls, path: Path) -> Job:
        """Read a job file.

        Raises:
            BadInput: if it is missing, unreadable, or wrong.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise BadInput("no such file; expected a job in TOML", file=path) from None
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"cannot be read as UTF-8 text ({type(error).__name__})", file=path) from None
        return cls.from_toml(text, file=path)
