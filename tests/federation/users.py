"""Commands as another user of this machine, where the tests run as root; as this one's where they do not."""

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from harness import HERE, Running, start

ROOT = HERE.parents[1]
AS_ROOT = os.geteuid() == 0
# Nothing of the checkout or of the environment may lie in root's home for these to work.
_PATH = [str(HERE), str(ROOT), *dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))]
_PROGRAM = """
import os, sys
if {drop}:
    os.setgroups({groups})
    os.setgid({uid})
    os.setuid({uid})
os.chdir("/")
sys.path[:0] = {path}
os.environ.update(PYTHONPATH=":".join({path}), PYTHONDONTWRITEBYTECODE="1")
if {drop}:
    os.environ.update(HOME="/nonexistent", LOGNAME="user-{uid}")  # a number alone has no name of its own
sys.argv = {argv}
{code}
"""


@dataclass(frozen=True)
class User:
    """A user nobody else on this machine is, with a group of the same number.

    Attributes:
        uid: of the user, where the tests run as root.
        groups: further ones that it is in.
    """

    uid: int
    groups: list[int] = field(default_factory=list)

    def _command(self, code: str, *argv: object) -> list[str]:
        program = _PROGRAM.format(
            drop=AS_ROOT,
            groups=[self.uid, *self.groups],
            uid=self.uid,
            path=_PATH,
            argv=["-", *map(str, argv)],
            code=code,
        )
        return [interpreter() if AS_ROOT else sys.executable, "-c", program]

    def run(self, code: str, *argv: object) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(self._command(code, *argv), capture_output=True, text=True, timeout=120)

    def client(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run `insitu-client` to its end."""
        return self.run("from client.cli import main; main()", *arguments)

    def start_client(self, *arguments: object, log: Path) -> Running:
        """Start `insitu-client`."""
        return start(self._command("from client.cli import main; main()", *arguments), log)

    def gets(self, *paths: Path) -> None:
        """Make these, and all that is in them, this user's."""
        for path in paths if AS_ROOT else ():
            for one in (path, *path.rglob("*")):
                os.chown(one, self.uid, self.uid, follow_symlinks=False)


@cache
def interpreter() -> str | None:
    """A Python of this version that any user may run; there is none where it lies in root's home only."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    program = f"import sys; sys.path[:0] = {_PATH}; import client.cli, client.flower.supernode"
    for candidate in (os.path.realpath(sys.executable), f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        try:
            subprocess.run(
                [candidate, "-c", program], user=65534, group=65534, extra_groups=[], cwd="/", env={}, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    return None
