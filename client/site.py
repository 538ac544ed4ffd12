"""Site: a hospital's home folder, its configuration and its secret.

HOME/
  site.toml          the hospital's configuration and policy; only the operator writes it
  keys/secret        32 bytes: names patients and splits them; never leaves
  keys/site.pem      the site's private key (P-384); keys/site.pub is what the coordinator gets
  keys/record.pem    the key that signs the record (Ed25519)
  registry.sqlite    the datasets: patients, images, labels, and what was left out
  jobs.sqlite        the jobs that were offered, and what the operator said of each
  ledger.sqlite      the privacy budget
  record.jsonl       what left, what was refused, what the operator decided (client.audit)
  witness/           how far the ledger and the record had got, outside of them
  cache/             preprocessed images
  replies/           what was answered, kept so that the same question gets the same bytes
  log/               the daemon's logs
"""

from __future__ import annotations

import hashlib
import hmac
import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from pydantic import Field, ValidationError

from shared.declared import SITE_NAME, Positive, Section, explain
from shared.errors import BadInput, InsituError
from shared.files import held, write_atomically


class Coordinator(Section):
    """Where the coordinator is, and by which certificate it is known.

    Attributes:
        address: host:port of its fleet API.
        ca: its CA certificate (PEM), beside site.toml or absolute.
        enrolment: host:port at which the site joined and changes its key; if empty, the port after `address`.
    """

    address: Annotated[str, Field(pattern=r"^[^\s:/]+:\d{1,5}$")]
    ca: str = "ca.pem"
    enrolment: Annotated[str, Field(pattern=r"^([^\s:/]+:\d{1,5})?$")] = ""

    @property
    def enrols_at(self) -> str:
        """host:port of its enrolment service."""
        host, _, port = self.address.rpartition(":")
        return self.enrolment or f"{host}:{int(port) + 1}"


class Supernode(Section):
    """The SuperNode, where another user of this machine runs it; without this section the site's daemon does.

    Attributes:
        folder: the SuperNode's own; `insitu-client separate` makes it, and writes this section.
    """

    folder: Annotated[str, Field(pattern=r"^/")]


Hours = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")]
Task = Literal["segmentation", "classification"]


class Policy(Section):
    """What this hospital allows. Everything else is refused, whoever approves it.

    Attributes:
        tasks: that may be trained here.
        networks: names of the networks that may be trained here; `*` stands for anything.
        max_parameters: of a network.
        max_rounds: of one run.
        privacy_required: refuse jobs with `mode = "none"`.
        max_epsilon_per_job: refuse jobs that declare more.
        max_repeats: rounds of a run that may be charged again, beyond what its job declares: each crash before an
            answer was stored costs one.
        secure_aggregation_required: refuse jobs under which the coordinator sees this site's own update.
        min_sites: refuse jobs that would count a round of fewer sites.
        min_patients: training patients below which nothing is trained, and below which figures are withheld.
        hours: of the day, in local time, in which work may begin, as `22:00-06:00`; none for any time.
        max_minutes: of one message's work (a round's training and figures); what takes longer is given up.
        max_memory: of the process that trains, in GB of memory of its own; none for what the machine has.
        max_update_norm: L2 norm of what training changed in the model; a larger change does not leave.
        decimals: of the figures that leave.
        threads: of the processor that training may use; 0 for half of the processors.
        gpu_share: of a GPU's memory that training may use.
    """

    tasks: tuple[Task, ...] = ("segmentation", "classification")
    networks: tuple[str, ...] = ("*",)
    max_parameters: Annotated[int, Field(ge=1)] = 100_000_000
    max_rounds: Annotated[int, Field(ge=1)] = 1000
    privacy_required: bool = True
    max_epsilon_per_job: Positive = 10.0
    max_repeats: Annotated[int, Field(ge=0)] = 2
    secure_aggregation_required: bool = False
    min_sites: Annotated[int, Field(ge=1)] = 2
    min_patients: Annotated[int, Field(ge=1)] = 5
    hours: tuple[Hours, ...] = ()
    max_minutes: Positive = 720.0
    max_memory: Positive | None = None
    max_update_norm: Positive = 1000.0
    decimals: Annotated[int, Field(ge=0, le=6)] = 3
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    gpu_share: Annotated[float, Field(gt=0, le=1)] = 1.0


class Approval(Section):
    """A rule by which the operator says yes in advance: to every run of every job that fits all of it.

    It widens nothing: what the policy refuses stays refused. A rule that says nothing fits every job.

    Attributes:
        jobs: names of jobs; `*` stands for anything.
        tasks: of the job.
        max_epsilon: that the job may declare; a job without privacy does not fit a rule with this.
        max_rounds: of the job.
    """

    jobs: tuple[str, ...] = ("*",)
    tasks: tuple[Task, ...] = ("segmentation", "classification")
    max_epsilon: Positive | None = None
    max_rounds: Annotated[int, Field(ge=1)] | None = None


class DatasetRules(Section):
    """What may be done with one dataset.

    Attributes:
        jobs: names of the jobs it is open to; `*` stands for anything.
        epsilon, delta: its privacy budget, over all jobs for ever. The ledger holds it as it was when the dataset was
            first charged; a lower number here counts from the next message, a higher one only once it has been raised
            with `insitu-client budget raise`.
    """

    jobs: tuple[str, ...] = ("*",)
    epsilon: Positive = 10.0
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-4


class SiteConfig(Section):
    """site.toml.

    Attributes:
        name: of the site.
        device: where it computes.
        coordinator: whom it answers.
        supernode: where it is another user's.
        witness: the folder of the ledger's witness, in the home or absolute; on another disk it notices even that the
            home's disk was put back as a whole. By default `witness` in the home.
        durable: whether the record and the jobs wait for the disk (fsync). Only simulations turn it off, where what a
            power cut takes is nobody's.
        policy: of the site.
        approve: rules by which jobs need no yes of their own; without any each does.
        datasets: rules by dataset.
    """

    name: Annotated[str, Field(pattern=SITE_NAME)]
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    coordinator: Coordinator | None = None
    supernode: Supernode | None = None
    witness: Annotated[str, Field(min_length=1)] | None = None
    durable: bool = True
    policy: Policy = Policy()
    approve: tuple[Approval, ...] = ()
    datasets: dict[str, DatasetRules] = Field(default_factory=dict)


class Site:
    """One hospital on this machine.

    Attributes:
        home: the folder everything of the site is in.
        config: what site.toml says.
    """

    def __init__(self, home: Path, config: SiteConfig) -> None:
        self.home = Path(home)
        self.config = config

    @property
    def name(self) -> str:
        """The name the coordinator knows the site by."""
        return self.config.name

    @cached_property
    def secret(self) -> bytes:
        """32 bytes that name and split patients here; without them neither can be predicted."""
        try:
            return (self.home / "keys" / "secret").read_bytes()
        except FileNotFoundError:
            raise InsituError(f"{self.home}/keys/secret is gone; restore it from a back-up of the home") from None

    @property
    def witness(self) -> Path:
        """The folder of the ledger's witness."""
        return self.home / (self.config.witness or "witness")

    def pseudonym(self, patient_id: str) -> str:
        """The keyed name of a patient (32 hexadecimal digits) by which the registry and the logs know them."""
        return hmac.digest(self.secret, b"patient\0" + patient_id.encode(), "sha256").hex()[:32]

    def rules(self, dataset: str) -> DatasetRules:
        """What may be done with this dataset; the defaults where site.toml does not say."""
        return self.config.datasets.get(dataset, DatasetRules())

    @classmethod
    def create(cls, home: Path, config: SiteConfig, *, secret: bytes | None = None) -> Site:
        """Make a new home.

        Args:
            home: a folder that is not there yet, or empty.
            config: to be written as site.toml.
            secret: only for simulations, which have to be repeatable; otherwise from the operating system.

        Raises:
            BadInput: if the home, or the folder of its witness, is already in use.
        """
        from client import audit  # which import this module
        from client.ledger import witness

        home = Path(home)
        if home.exists() and (not home.is_dir() or any(home.iterdir())):
            raise BadInput("is already in use; choose a folder that is empty or not there yet", file=home)
        site = cls(home, config)
        witness.begin(site.witness)
        keys = home / "keys"
        keys.mkdir(parents=True, mode=0o700)
        for folder in ("cache", "replies", "log"):
            (home / folder).mkdir(mode=0o700)
        home.chmod(0o700)
        write_atomically(keys / "secret", secret or os.urandom(32), mode=0o600)
        audit.begin(site)
        site.write_config()
        return site

    @classmethod
    def open(cls, home: Path) -> Site:
        """Open a home.

        Raises:
            BadInput: if there is none, or its site.toml is wrong.
        """
        file = Path(home) / "site.toml"
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BadInput(
                "no site.toml here; make a home with `insitu-client init NAME --home S`", file=home
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"not valid TOML: {error}", file=file) from None
        except (RecursionError, ValueError):  # a thousand brackets, a number of a thousand digits
            raise BadInput("not valid TOML: nested too deeply, or a number too long", file=file) from None
        try:
            return cls(Path(home), SiteConfig.model_validate(data))
        except ValidationError as error:
            raise BadInput(explain(error), file=file) from None

    def write_config(self) -> None:
        """Write site.toml from `config`."""
        data = self.config.model_dump(mode="json", exclude_none=True)
        if not data["approve"]:
            del data["approve"]  # an empty list there would keep the operator from adding [[approve]] below
        write_atomically(self.home / "site.toml", tomli_w.dumps(data).encode(), mode=0o600)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the home for one daemon.

        Raises:
            BadInput: if another process holds it.
        """
        with held(self.home, "daemon"):
            yield


def stable_seed(*parts: object) -> int:
    """A 63-bit seed from names and numbers, the same on every machine. Never for noise."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:8]) >> 1
