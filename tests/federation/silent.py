"""Trains in one process tree, for `test_silence.py` to watch: `python silent.py FOLDER federation|ray|loud`.

`federation` is a real coordinator with real daemons, `ray` the simulation on Flower's Ray engine; `loud` does what must
not happen, so that the watcher is seen to see it.
"""

import contextlib
import fcntl
import socket
import struct
import sys
from pathlib import Path

import pictures
from harness import federation

from client.data.registry import Registry
from client.site import Policy
from shared import console
from shared.job import Job
from simulations import hospitals
from simulations.engine import simulate


def loopback_up() -> None:
    """In a network of its own even loopback is down at first; elsewhere this changes nothing."""
    get_flags, set_flags, up = 0x8913, 0x8914, 0x1
    with socket.socket() as any_socket:
        request = struct.pack("16sh", b"lo", 0)
        flags = struct.unpack("16sh", fcntl.ioctl(any_socket, get_flags, request))[1]
        if not flags & up:
            fcntl.ioctl(any_socket, set_flags, struct.pack("16sh", b"lo", flags | up))


def be_loud() -> None:
    """A connection, a datagram and the question for a name, all to the outside."""
    with socket.socket() as tcp:
        tcp.settimeout(0.2)
        tcp.connect_ex(("192.0.2.1", 443))
    with socket.socket(type=socket.SOCK_DGRAM) as udp, contextlib.suppress(OSError):
        udp.sendto(b"x", ("192.0.2.2", 9))
    with contextlib.suppress(OSError):
        socket.getaddrinfo("telemetry.example.org", 443)


JOB = """
name = "silence"
task = "segmentation"
classes = ["background", "lesion"]
[images]
size = [16, 16]
[network]
name = "UNet"
channels = [4, 8]
strides = [2]
[training]
local_steps = 2
[privacy]
sample_rate = 0.5
[federation]
rounds = 2
min_sites = 2
"""


def on_ray(folder: Path) -> None:
    for number, name in enumerate(("north", "south")):
        pictures.write(folder / "data" / name, patients=30, brightness=80, seed=number)
    with console.progress() as progress:
        sites = hospitals.admit(folder / "data", folder / "sites", progress=progress)
    finished = simulate(Job.from_toml(JOB), sites, folder / "coordinator", engine="ray")
    print(finished.store.run(finished.run).status)


def over_processes(folder: Path) -> None:
    def prepare(site) -> None:
        manifest = pictures.write(folder / "data" / site.name, patients=30, brightness=80, seed=0)
        Registry(site).add("data", manifest)

    with federation(folder / "federation", sites=2, policy=Policy(threads=1), prepare=prepare) as fed:
        row = fed.wait(fed.submit(Job.from_toml(JOB)), 400)
        print(row.status, row.message)
        if row.status != "completed":
            print(fed.logs())
            sys.exit(1)


def main() -> None:
    loopback_up()
    folder, what = Path(sys.argv[1]), sys.argv[2]
    if what == "loud":
        be_loud()
    elif what == "ray":
        on_ray(folder)
    else:
        over_processes(folder)


if __name__ == "__main__":
    main()
