"""How many images a pass may hold: by what memory there is, and fewer where that was too many."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path

import torch

from shared.errors import RefusalCode, Refused

_MOST_IMAGES = 1024
_MOST_BYTES = 2**30  # on a processor, whose caches are smaller by far: more at a time is not faster there
_UNKNOWN = 2**32  # what a machine is taken to have that does not say
_MACHINE = Path("/proc/meminfo")
_PROCESS = Path("/proc/self/status")
_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


class Room:
    """For how many images there is room in one pass.

    Args:
        device: where they are computed.
        bytes_an_image: what each takes, about.

    Attributes:
        images: so many, from 1.
    """

    def __init__(self, device: torch.device, bytes_an_image: int) -> None:
        free = available(device)
        budget = free // 2 if device.type == "cuda" else min(free // 4, _MOST_BYTES)
        self.images = max(1, min(budget // max(1, bytes_an_image), _MOST_IMAGES))

    def shrink(self, images: int) -> None:
        """So many were too many: from now on half.

        Raises:
            Refused: `memory`, if it was one.
        """
        if images <= 1:
            raise too_little()
        self.images = images // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def too_little() -> Refused:
    """What there is to say where even one image is too many."""
    return Refused(RefusalCode.MEMORY, "there is not enough memory to train on a single image of this job")


def available(device: torch.device) -> int:
    """Bytes that could be allocated now: of the GPU, or of the machine within the limit of this process's container."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min([left_of_machine(), *left_of_groups(), *left_of_process()])


def give_back() -> None:
    """Hand what has been freed back to the system: glibc keeps it in pieces that other passes may not fit into."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def ran_out(error: BaseException) -> bool:
    """Whether an exception says that memory did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # PyTorch's, on the processor


def left_of_machine(file: Path = _MACHINE) -> int:
    """Bytes that Linux could give to a process; a fixed number on other systems."""
    try:
        lines = dict(line.split(":", 1) for line in file.read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return _UNKNOWN


def left_of_process(own: Path = _PROCESS) -> list[int]:
    """What is left of the limit of this process's own memory, where it has one (`client.device.bound_memory`)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return []
    try:
        lines = dict(line.split(":", 1) for line in own.read_text().splitlines())
        return [max(0, limit - 1024 * int(lines["VmData"].split()[0]))]
    except (OSError, KeyError, ValueError):
        return [limit]


def left_of_groups(root: Path = _GROUPS, own: Path = _OWN_GROUPS) -> list[int]:
    """What is left of the limits of the control groups this process is in: containers, services (versions 1 and 2)."""
    try:
        memberships = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return []
    left = []
    for _, controllers, path in memberships:
        if controllers and "memory" not in controllers.split(","):
            continue
        top, names = (root / "memory", _VERSION_1) if controllers else (root, _VERSION_2)
        group = top / path.strip("/")
        for each in [group, *group.parents]:
            if each.is_relative_to(top):
                left += _left_of_group(each, *names)
    return left


_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def _left_of_group(group: Path, limit: str, usage: str, unneeded: str) -> list[int]:
    try:
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / usage).read_text()) - int(statistics[unneeded])  # files read, which would make room
        return [max(0, int((group / limit).read_text()) - used)]
    except (OSError, KeyError, ValueError):  # not seen from in here; or "max", which is no limit
        return []
