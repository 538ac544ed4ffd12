"""A home for who joins without having made one.

It is made in a folder inside the home, and what is in there is moved up once it is whole, `site.toml` at last. Killed
at any point, the same again does the rest: a key is never sent before the home that has it is whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from client import credentials
from client.ledger.journal import sync
from client.site import Site, SiteConfig
from shared.errors import BadInput

_MAKING, _MADE = ".joining", ".joined"
_NOTHING = frozenset({_MAKING, ".lock"})


def check(home: Path) -> None:
    """Make sure that there is a home, or that one can be made.

    Raises:
        BadInput: if something else is there.
    """
    if home.exists() and not home.is_dir():
        raise BadInput("is no folder", file=home)
    whole = (home / "site.toml").exists() or (home / _MADE).exists()
    if not whole and home.exists() and any(one.name not in _NOTHING for one in home.iterdir()):
        raise BadInput("is in use, and no site's home: choose a folder that is empty or not there yet", file=home)


def opened(home: Path, name: str) -> Site:
    """The home that is there, or a new one with a key of its own; who holds the home may do this.

    Args:
        home: where.
        name: of the site, if it is a new one.
    """
    made = home / _MADE
    if not made.exists() and not (home / "site.toml").exists():
        making = home / _MAKING
        if making.exists():
            shutil.rmtree(making)  # by one that was killed: nobody has seen what is in there
        credentials.equip(Site.create(making, SiteConfig(name=name)))
        sync(making)
        making.rename(made)
        sync(home)
    if made.exists():
        for one in sorted(made.iterdir(), key=lambda one: one.name == "site.toml"):
            one.rename(home / one.name)
        home.chmod(0o700)
        sync(home)
        made.rmdir()
    return Site.open(home)
