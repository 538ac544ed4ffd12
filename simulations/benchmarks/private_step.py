"""What privacy costs a training step: ours, and Opacus's `hooks`, against the same step without privacy.

Measured are `client.training.plain` and `client.training.private` as a site runs them: the draw, clipping, noise and
the job's optimiser are in it, with a sample rate of 1 so that both see the same images. Beside them is Opacus's
GradSampleModule with its DPOptimizer, where it can take the network at all. Times are medians over repetitions in which
the ways take turns, and ratios medians of each repetition's own. Memory is the peak of a fresh process over what it had
with everything imported and network and images made; on a GPU, of what was allocated there.

The aim is 1.3 times the time and 1.5 times the memory of the plain step. On a processor the segmentation networks keep
to it. The two classifiers, as wide as they were published and at eight images of 64 × 64, keep to the memory, but take
about 2.1 times the time:

- Noise is drawn once a step for every parameter, about 11 ns each (`noise_seconds`), whatever the batch; a whole step
  of ResNet18 without privacy takes 15 ns for each of its parameters. Without the noise it is at 1.35. Larger images,
  more patients a step, which training under privacy wants anyway, and narrower networks, which are the catalogue's
  defaults, make it matter less.
- DenseNet121 has 241 layers with parameters, small ones: what is done about each, noting, norms and weighted sums,
  weighs as much as what is done in it. Without the noise it is at 1.7.
"""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from client.training import drawing, optimizers, plain, private
from client.training.memory import give_back
from client.training.noise import Stream
from shared import networks, tasks
from shared.job import Job

_STEPS = 2  # of one measurement
_REPETITIONS = (3, 9)  # at least, and at most
_SECONDS = 15.0  # for all repetitions of a network, if they are no fewer
_NOISE = 1.0


@dataclass(frozen=True)
class Case:
    """A network and a batch.

    Attributes:
        network: its name.
        size: of an image.
        batch: patients, with an image each.
        channels: of an image.
        options: of the network, where they are not the defaults.
    """

    network: str
    size: tuple[int, ...]
    batch: int
    channels: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    def job(self, *, private: bool) -> Job:
        """With Adam, and `_STEPS` steps that draw everybody."""
        task = "classification" if self.network in ("DenseNet121", "ResNet18") else "segmentation"
        privacy = {"mode": "patient", "sample_rate": 1.0} if private else {"mode": "none"}
        return Job.from_dict(
            {"name": "step", "task": task, "classes": ["0", "1"], "network": {"name": self.network, **self.options}}
            | {"images": {"size": self.size, "channels": self.channels}, "privacy": privacy}
            | {"training": {"local_steps": _STEPS, "batch_size": self.batch}}
        )


_UNET = {"channels": [16, 32, 64, 128], "strides": [2, 2, 2]}
# The classifiers as wide as they were published, and small images: all that is in the way is in their way.
_CASES = (
    Case("UNet", (128, 128), 16, options=_UNET),
    Case("UNet", (48, 48, 48), 4, options=_UNET),
    Case("BasicUNet", (48, 48, 48), 2),
    Case("SegResNet", (48, 48, 48), 4),
    Case("DenseNet121", (64, 64), 8, channels=3, options={"init_features": 64, "growth_rate": 32}),
    Case("ResNet18", (64, 64), 8, channels=3, options={"block_inplanes": [64, 128, 256, 512]}),
)


class Patients:
    """Random images in memory, one a patient."""

    def __init__(self, job: Job, count: int) -> None:
        random = torch.Generator().manual_seed(0)
        shape = (1, *job.images.size) if job.task == "segmentation" else ()
        self._pairs = [
            (
                torch.randn((job.images.channels, *job.images.size), generator=random),
                torch.randint(len(job.classes), shape, generator=random),
            )
            for _ in range(count)
        ]

    def __len__(self) -> int:
        """Patients."""
        return len(self._pairs)

    def images(self, i: int) -> int:
        """One."""
        return 1

    def load(self, i: int, j: int) -> tuple[Tensor, Tensor]:
        """The image of patient i, and its target."""
        return self._pairs[i]


def measure(cases: Sequence[Case] = _CASES) -> dict[str, Any]:
    """A row for each network; ratios are against the plain step, and null where Opacus fails."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # A server of children that has everything imported, and has computed nothing yet.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__, "shared.networks.surgery"])
    with processes.Pool(1, maxtasksperchild=1) as children:
        return {"rows": [_row(case, device, children.apply) for case in cases]}


def _row(case: Case, device: torch.device, in_child: Callable[..., Any]) -> dict[str, Any]:
    threads = torch.get_num_threads()
    bytes_of = {way: in_child(_peak, (case, way, device.type, threads)) for way in _WAYS}
    network, cohort = networks.build(case.job(private=False)).to(device), Patients(case.job(private=False), case.batch)
    steps = {way: _WAYS[way](case, network, cohort, device) for way in _WAYS if bytes_of[way] is not None}
    seconds: dict[str, list[float]] = {way: [] for way in steps}
    for step in steps.values():
        step()
    started, (least, most) = time.perf_counter(), _REPETITIONS
    while (done := len(seconds["plain"])) < most and (done < least or time.perf_counter() - started < _SECONDS):
        for way, step in steps.items():
            seconds[way].append(_seconds(step, device) / _STEPS)
    noise = torch.zeros(sum(parameter.numel() for parameter in network.parameters()))

    def times(way: str) -> float | None:
        if way not in seconds:
            return None
        return median(ours / plain for ours, plain in zip(seconds[way], seconds["plain"], strict=True))

    def memory(way: str) -> float | None:
        return bytes_of[way] / bytes_of["plain"] if bytes_of[way] else None

    return {
        "network": case.network,
        "dimensions": len(case.size),
        "parameters": len(noise),
        "batch": case.batch,
        "size": "×".join(map(str, case.size)),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"processor, {threads} threads",
        "plain_seconds": median(seconds["plain"]),
        "private_seconds": median(seconds["private"]),
        "noise_seconds": _seconds(lambda: Stream().add_to(noise, _NOISE), device),
        "time_ratio": times("private"),
        "hooks_time_ratio": times("hooks"),
        "plain_megabytes": bytes_of["plain"] / 1e6,
        "memory_ratio": memory("private"),
        "hooks_memory_ratio": memory("hooks"),
    }


def _seconds(step: Callable[[], None], device: torch.device) -> float:
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


Step = Callable[[], None]


def _plain(case: Case, network: nn.Module, cohort: Patients, device: torch.device) -> Step:
    job = case.job(private=False)
    return lambda: plain.train(network, cohort, job, round=1, site_name="here", device=device)


def _private(case: Case, network: nn.Module, cohort: Patients, device: torch.device) -> Step:
    job = case.job(private=True)
    return lambda: private.train(network, cohort, job, device=device, noise_multiplier=_NOISE)


def _hooks(case: Case, network: nn.Module, cohort: Patients, device: torch.device) -> Step:
    job = case.job(private=True)
    wrapped, task = GradSampleModule(deepcopy(network)), tasks.of(job)
    everybody = [drawing.Drawn(number, (0,)) for number in range(len(cohort))]

    def step() -> None:
        optimizer = DPOptimizer(
            optimizers.fresh(job.training, wrapped.parameters()),
            noise_multiplier=_NOISE,
            max_grad_norm=1.0,
            expected_batch_size=case.batch,
        )
        for _ in range(_STEPS):
            batch = drawing.load(cohort, everybody, job.training, Stream(), device)
            optimizer.zero_grad()
            with warnings.catch_warnings(action="ignore"):  # of hooks of modules whose input has no gradient
                torch.autograd.backward(task.loss(wrapped(batch.images), batch.targets).mean())
            optimizer.step()

    return step


_WAYS = {"plain": _plain, "private": _private, "hooks": _hooks}


def _peak(case: Case, way: str, kind: str, threads: int) -> int | None:
    """In a process of its own: bytes that the steps take at most, or None if they fail."""
    torch.set_num_threads(threads)
    device = torch.device(kind)
    job = case.job(private=False)
    network, cohort = networks.build(job).to(device), Patients(job, case.batch)
    before = _memory(kind, forget=True)
    try:
        _WAYS[way](case, network, cohort, device)()
    except (RuntimeError, NotImplementedError, ValueError):
        return None
    return _memory(kind) - before


def _memory(kind: str, *, forget: bool = False) -> int:
    """The peak in bytes since it was last forgotten."""
    if kind == "cuda":
        if forget:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if forget:
        give_back()  # what was freed would hide what the steps take
        with open("/proc/self/clear_refs", "w") as peak:
            peak.write("5")
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return 1024 * int(lines["VmHWM"].split()[0])
