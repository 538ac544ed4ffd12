"""What the daemon and its two processes say of themselves, for `insitu-client status` and for each other.

Each writes a file of its own, HOME/state/<part>.json, whole or not at all; nothing in them is of a patient.

    daemon      pid, since, coordinator, and for each of its processes: pid, since, restarts, last_exit; or, where the
                SuperNode is another user's, the folder in which that one says the same (client.link)
    supernode   pid, contact (when the coordinator last answered), problem (why it does not)
    executor    pid, ready, working (the message being answered), last (the last one that was)
    unanswered  the token and the address of the message being answered, for the next executor if this one dies of it
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Literal

from client import link
from shared.files import is_held

Part = Literal["daemon", "supernode", "executor", "unanswered"]
# The coordinator is asked every second at the longest; a message being answered is a minute between heartbeats.
_CONTACT_SECONDS = 60.0


def write(home: Path, part: Part, facts: dict[str, Any]) -> None:
    """Say how this part stands, in place of what it said before."""
    folder = Path(home) / "state"
    folder.mkdir(mode=0o700, exist_ok=True)
    # Unlike `write_atomically` this does not wait for the disk: after a power cut no daemon runs anyway.
    draft = folder / f".{part}.{os.getpid()}"
    draft.write_text(json.dumps(facts), encoding="utf-8")
    draft.replace(folder / f"{part}.json")


def read(home: Path, part: Part) -> dict[str, Any]:
    """What this part last said; nothing where it never said anything."""
    try:
        return dict(json.loads((Path(home) / "state" / f"{part}.json").read_bytes()))
    except (FileNotFoundError, ValueError):
        return {}


def forget(home: Path, part: Part) -> None:
    """Say nothing any more."""
    (Path(home) / "state" / f"{part}.json").unlink(missing_ok=True)


def summary(home: Path) -> dict[str, Any]:
    """What `insitu-client status` shows of the site with this home."""
    running = is_held(Path(home))
    daemon, supernode, executor = (read(home, part) for part in ("daemon", "supernode", "executor"))
    facts: dict[str, Any] = {"running": running, "last": executor.get("last")}
    if not running:
        return facts
    silent = None
    if "link" in daemon:
        kept, supernode = link.standing(Path(daemon["link"]))
        silent = link.problem(Path(daemon["link"]))
        daemon |= {name: fact for name, fact in kept.items() if fact is not None}
    # What a process said before it was started anew says nothing about the one that runs now.
    started = daemon.get("supernode", {})
    if supernode.get("pid") != started.get("pid"):
        # Nothing but why the one before was not let in, which the next has to find out anew: it ends and comes back.
        supernode = {"problem": supernode.get("problem")}
    executor = executor if executor.get("pid") == daemon.get("executor", {}).get("pid") else {}
    contact = supernode.get("contact")
    working = executor.get("working")
    connected = contact is not None and (working is not None or time.time() - contact < _CONTACT_SECONDS)
    return {
        **facts,
        "pid": daemon.get("pid"),
        "since": daemon.get("since"),
        "coordinator": daemon.get("coordinator"),
        "connected": connected and (silent or supernode.get("problem")) is None,
        "contact": contact,
        "problem": silent or supernode.get("problem"),
        "ready": bool(executor.get("ready")),
        "working": working,
        "supernode": started,
        "executor": daemon.get("executor", {}),
    }
