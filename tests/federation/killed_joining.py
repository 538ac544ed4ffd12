"""`insitu-client join`, killed (SIGKILL) at the given step: python killed_joining.py TICKET HOME STEP

A step is anything that is on the disk afterwards, or has gone over the wire. Says how many steps it took where it
comes to the end.
"""

import os
import signal
import sys
from pathlib import Path

from client.enrolment import channel, joining
from shared import tickets

_STEPS = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.truncate", "shutil.rmtree"}


def main(ticket: str, home: str, step: str) -> None:
    left, taken = int(step), 0

    def stepped() -> None:
        nonlocal taken
        taken += 1
        if taken == left:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple) -> None:
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (event in _STEPS or opened) and home in str(arguments[0]):
            stepped()

    def between(name: str) -> None:
        call = getattr(channel.Service, name)

        def stepping(*given):
            stepped()
            answer = call(*given)
            stepped()
            return answer

        setattr(channel.Service, name, stepping)

    between("begin")
    between("join")
    sys.addaudithook(hook)
    joining.join(tickets.read(Path(ticket)), Path(home))
    print(taken)


if __name__ == "__main__":
    main(*sys.argv[1:])
