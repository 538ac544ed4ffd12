"""Makes a folder for a SuperNode that another user runs, and moves the site's key into it: `insitu-client separate`.

At every point there is a key that works. It is copied, and on the disk, before site.toml says that the SuperNode is
another user's; only then does the home's copy go. Killed in between, the same command does the rest.
"""

from __future__ import annotations

import os
from pathlib import Path

import tomli_w

from client import link
from client.audit import Decided, Record
from client.carrier import CarrierConfig, configured
from client.ledger.journal import sync
from client.site import Coordinator, Site
from shared import identity
from shared.errors import BadInput
from shared.files import write_atomically

_FOLDERS = {"keys": 0o700, "log": 0o700, "state": 0o750}


def separate(site: Site, folder: Path) -> bool:
    """Let another user run the SuperNode; no daemon may run on the home.

    Args:
        site: whose.
        folder: of the SuperNode: empty or not there yet, outside the home.

    Returns:
        Whether anything was left to do.

    Raises:
        BadInput: if this is not the home's user, the folder is not fit for it, or there is no key to move.
    """
    folder = Path(folder).resolve()
    coordinator = _possible(site, folder)
    with site.claimed():
        key = site.home / "keys" / "site.pem"
        if site.config.supernode is not None and not key.exists():
            return False
        private = identity.read_private(key)
        if site.config.supernode is None:
            # First of all: the record's first entry is signed with the key.
            Record(site).append(Decided(what="separated", by="operator"))
        _fill(folder, CarrierConfig(name=site.name, coordinator=Coordinator(address=coordinator.address)))
        _put(folder / "ca.pem", identity.read_certificate(site.home / coordinator.ca), 0o640)
        if not (folder / "secret").exists():
            _put(folder / "secret", os.urandom(link.SECRET_BYTES), 0o640)
        _copy(private, folder / "keys" / "site.pem")
        if site.config.supernode is None:
            _configure(site, folder)
        key.unlink()
        sync(key.parent)
    return True


def _possible(site: Site, folder: Path) -> Coordinator:
    home, file = site.home.resolve(), site.home / "site.toml"
    if os.geteuid() != home.stat().st_uid:
        raise BadInput("belongs to another user, as which this has to run", file=site.home)
    if folder.is_relative_to(home) or home.is_relative_to(folder):
        raise BadInput(f"must be neither in the home nor around it ({home})", file=folder)
    link.path(folder)
    if site.config.coordinator is None:
        raise BadInput("[coordinator] is missing: give its address and its CA", file=file)
    chosen = site.config.supernode
    if chosen is not None and Path(chosen.folder) != folder:
        raise BadInput(f"[supernode] names another folder already: {chosen.folder}", file=file)
    return site.config.coordinator


def _fill(folder: Path, config: CarrierConfig) -> None:
    """Make the folder, or know that it was begun for this site."""
    if not folder.exists():
        folder.mkdir()
        sync(folder.parent)
    # Drafts of a file that a crash left behind do not count.
    if any(not one.name.startswith(".") for one in folder.iterdir()):
        if not (folder / "supernode.toml").exists() or configured(folder) != config:
            raise BadInput("is already in use; choose a folder that is empty or not there yet", file=folder)
    else:
        folder.chmod(0o750)
        _put(folder / "supernode.toml", tomli_w.dumps(config.model_dump(mode="json")).encode(), 0o640)
    for name, mode in _FOLDERS.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(mode)
    sync(folder)


def _copy(private: identity.PrivateKey, file: Path) -> None:
    if file.exists() and identity.read_private(file).public_key() != private.public_key():
        raise BadInput("is another key, which would be lost; choose another folder", file=file)
    identity.write_private(file, identity.private_pem(private))


def _configure(site: Site, folder: Path) -> None:
    """Add the section to site.toml, whose every other line, and comment, is the operator's."""
    file = site.home / "site.toml"
    section = tomli_w.dumps({"supernode": {"folder": str(folder)}})
    write_atomically(file, file.read_bytes().rstrip() + b"\n\n" + section.encode(), mode=0o600)


def _put(file: Path, content: bytes, mode: int) -> None:
    write_atomically(file, content, mode=mode)
    file.chmod(mode)  # whatever the umask says
