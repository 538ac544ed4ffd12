"""The coordinator's home folder and its configuration.

HOME/
  server.toml         host, ports; the operator may change it
  ca.pem              what every site gets, to know the coordinator by
  server.pem          the server's certificate, signed by it
  keys/               ca.key, server.key: readable by their owner only
  store.sqlite        sites, invitations, runs, rounds (server.store, server.enrolment.register)
  superlink.sqlite    Flower's own memory: nodes, messages under way
  runs/<run>/         the models of a run
  log/                one log a run
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.store import Store
from shared import identity
from shared.declared import explain
from shared.errors import BadInput
from shared.files import held, is_held, write_atomically

DEFAULT_PORT = 8443
_RUNNING = "coordinator.json"


class ServerConfig(BaseModel):
    """server.toml.

    Attributes:
        host: the name or address by which the sites reach the coordinator; it is in the certificate.
        listen: the address of this machine to listen on.
        port: for the sites; 0 takes any free one.
        enrolment_port: at which sites join (`insitu-server invite`); by default the one after `port`.
        loopback_port: for the runs' own processes, on this machine only; 0 takes any free one.
        health_port: of gRPC's health service, on this machine only; 0 takes any free one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: Annotated[str, Field(min_length=1, max_length=253)]
    listen: str = "0.0.0.0"  # noqa: S104 -- the sites come from outside; what they find is the fleet interface only
    port: Annotated[int, Field(ge=0, le=65535)] = DEFAULT_PORT
    enrolment_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    loopback_port: Annotated[int, Field(ge=0, le=65535)] = 0
    health_port: Annotated[int, Field(ge=0, le=65535)] = 0

    @property
    def enrols_at(self) -> int:
        """The port at which sites join; 0 for any free one."""
        if self.enrolment_port is not None:
            return self.enrolment_port
        return self.port % 65535 + 1 if self.port else 0


class Home:
    """One coordinator on this machine.

    Attributes:
        path: the folder everything is in.
        config: what server.toml says.
    """

    def __init__(self, path: Path, config: ServerConfig) -> None:
        self.path = Path(path)
        self.config = config

    @property
    def store(self) -> Store:
        """Sites, runs and rounds."""
        return Store(self.path / "store.sqlite")

    @property
    def database(self) -> Path:
        """Flower's own memory."""
        return self.path / "superlink.sqlite"

    @property
    def ca(self) -> Path:
        """The certificate that every site gets."""
        return self.path / "ca.pem"

    @property
    def certificate(self) -> Path:
        """The server's certificate."""
        return self.path / "server.pem"

    @property
    def key(self) -> Path:
        """The server's private key."""
        return self.path / "keys" / "server.key"

    def log(self, name: str) -> Path:
        """A log file."""
        return self.path / "log" / f"{name}.log"

    @classmethod
    def create(cls, path: Path, config: ServerConfig) -> Home:
        """Make a new home, with a CA of its own and a certificate signed by it.

        Raises:
            BadInput: if the folder is already in use, or the host is no host.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise BadInput("is already in use; choose a folder that is empty or not there yet", file=path)
        authority = identity.new_authority(config.host)
        server = identity.new_server_certificate(authority, config.host)
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
        for folder in ("keys", "runs", "log"):
            (path / folder).mkdir(mode=0o700)
        home = cls(path, config)
        identity.write_private(path / "keys" / "ca.key", authority.key_pem)
        identity.write_private(home.key, server.key_pem)
        write_atomically(home.ca, authority.certificate_pem)
        write_atomically(home.certificate, server.certificate_pem)
        text = tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
        write_atomically(path / "server.toml", text.encode(), mode=0o600)
        return home

    @classmethod
    def open(cls, path: Path) -> Home:
        """Open a home.

        Raises:
            BadInput: if there is none, or its server.toml is wrong.
        """
        file = Path(path) / "server.toml"
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BadInput(
                "no server.toml here; make a home with `insitu-server init --home H --host NAME`", file=path
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"not valid TOML: {error}", file=file) from None
        try:
            return cls(Path(path), ServerConfig.model_validate(data))
        except ValidationError as error:
            raise BadInput(explain(error), file=file) from None

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the home for one coordinator.

        Raises:
            BadInput: if another process holds it.
        """
        with held(self.path, "coordinator"):
            (self.path / _RUNNING).unlink(missing_ok=True)  # of one that was killed
            try:
                yield
            finally:
                (self.path / _RUNNING).unlink(missing_ok=True)

    def announce(self, facts: dict[str, Any]) -> None:
        """Say how the coordinator that holds the home can be reached."""
        write_atomically(self.path / _RUNNING, json.dumps(facts).encode(), mode=0o600)

    def running(self) -> dict[str, Any] | None:
        """What the coordinator that holds the home announced, nothing if it is only starting; None where none does."""
        if not is_held(self.path):
            return None
        try:
            return dict(json.loads((self.path / _RUNNING).read_bytes()))
        except (FileNotFoundError, ValueError):
            return {}
