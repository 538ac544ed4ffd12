"""Runs a whole federation in one process tree, for `test_silence.py` to watch: `python silent.py FOLDER [loud]`.

With `loud` it also does what must not happen, so that the watcher is seen to see it.
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
from shared.job import Job


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


def main() -> None:
    folder = Path(sys.argv[1])
    loopback_up()
    if "loud" in sys.argv:
        be_loud()
        return

    def prepare(site) -> None:
        manifest = pictures.write(folder / "data" / site.name, patients=30, brightness=80, seed=0)
        Registry(site).add("data", manifest)

    with federation(folder / "federation", sites=2, policy=Policy(threads=1), prepare=prepare) as fed:
        row = fed.wait(fed.submit(Job.from_toml(JOB)), 400)
        print(row.status, row.message)
        if row.status != "completed":
            print(fed.logs())
            sys.exit(1)


if __name__ == "__main__":
    main()
