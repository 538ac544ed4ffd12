"""Runs a SuperNode that is another user's: `insitu-client supernode`, which needs nothing of the site's home.

It keeps the SuperNode alive as the daemon does where both are one user's, and holds the socket at which the executor
finds it. All it has lies in a folder of its own (client.link), made by `insitu-client separate`.
"""

from __future__ import annotations

import os
import time
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from client import link, state
from client.site import Coordinator
from client.supervision import Supervised, keep, told_to_stop
from shared import identity
from shared.declared import SITE_NAME, explain
from shared.errors import BadInput
from shared.files import held


class CarrierConfig(BaseModel):
    """supernode.toml.

    Attributes:
        name: of the site.
        coordinator: whom the SuperNode speaks to; the CA certificate beside supernode.toml, or absolute.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=SITE_NAME)]
    coordinator: Coordinator


def configured(folder: Path) -> CarrierConfig:
    """What supernode.toml says.

    Raises:
        BadInput: if there is none, or it is wrong.
    """
    file = folder / "supernode.toml"
    try:
        return CarrierConfig.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise BadInput("no supernode.toml here; `insitu-client separate` makes such a folder", file=folder) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"not valid TOML: {error}", file=file) from None
    except ValidationError as error:
        raise BadInput(explain(error), file=file) from None


def supernode(folder: Path, coordinator: Coordinator, *, address: str, descriptor: int, secret: bytes) -> Supervised:
    """The SuperNode's process.

    Args:
        folder: where it finds its key and the CA certificate, and leaves its state and its log: its own, or the home.
        coordinator: whom it speaks to.
        address: where the executor finds it.
        descriptor: of the socket that listens there.
        secret: what the executor has to know.

    Raises:
        BadInput: if the key or the certificate cannot be used.
    """
    ca, key = folder / coordinator.ca, folder / "keys" / "site.pem"
    identity.read_certificate(ca)
    identity.read_private(key)
    return Supervised(
        name="the SuperNode",
        module="client.flower.supernode",
        instructions={
            "home": str(folder.resolve()),
            "address": address,
            "secret": secret.hex(),
            "descriptor": descriptor,
            "coordinator": coordinator.address,
            "ca": str(ca.resolve()),
            "key": str(key.resolve()),
        },
        log=folder / "log" / "supernode.log",
        environment={**environment(folder), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        descriptors=(descriptor,),
    )


def environment(folder: Path) -> dict[str, str]:
    """Of every process of the site: Flower keeps files of its own in the user's home if it is not told otherwise."""
    return {"FLWR_HOME": str((folder / "state").resolve()), "MALLOC_ARENA_MAX": "2"}


def run(folder: Path) -> None:
    """Run the SuperNode in the foreground until SIGTERM or SIGINT.

    Raises:
        BadInput: if the folder is not this user's, is held by another process, or lacks something.
    """
    config = configured(folder)
    if os.geteuid() != folder.stat().st_uid:
        raise BadInput("belongs to another user, as which the SuperNode has to run", file=folder)
    link.check(folder.resolve())
    os.umask(0o027)  # what the SuperNode says of itself, the site's user may read, who is in this one's group
    stopping = told_to_stop()
    with held(folder, "SuperNode"), link.listening(folder) as listening:
        for part in ("daemon", "supernode"):
            state.forget(folder, part)  # what one before this said
        process = supernode(
            folder,
            config.coordinator,
            address=str(link.path(folder)),
            descriptor=listening.fileno(),
            secret=link.secret(folder),
        )
        facts = {"pid": os.getpid(), "since": time.time(), "coordinator": config.coordinator.address}
        keep(
            (process,),
            lambda: state.write(folder, "daemon", {**facts, "supernode": process.facts()}),
            ready=f"{config.name}: carrying the coordinator's messages from {config.coordinator.address}",
            stopping=stopping,
        )
