"""Phantom hospitals: synthetic patients, scanned by each hospital's own devices and written as DICOM.

    FOLDER/<site>/PHANTOM-NORTH-0001/CT-ABDOMEN/abdomen/I0001.dcm …     segmentation: a CT series,
    FOLDER/<site>/PHANTOM-NORTH-0001/CT-ABDOMEN/segmentation/SEG.dcm    with liver and lesions as DICOM SEG
    FOLDER/<site>/PHANTOM-NORTH-0001/DX-CHEST-1/I0001.dcm               classification: chest radiographs,
    FOLDER/<site>/labels.csv                                            and `SeriesInstanceUID,label` for them

The same seed gives the same bytes, patient by patient: more patients or hospitals leave the first ones as they were.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from shared.errors import BadInput
from shared.job import Job

Task = Literal["segmentation", "classification"]

SITES = ("north", "south", "west", "east")  # then site-05, site-06 …
SIZES: dict[str, tuple[int, ...]] = {"segmentation": (64, 64, 16), "classification": (64, 64)}

_FEW = 12  # patients for which starting processes costs more than it saves


def write(
    folder: Path,
    *,
    sites: int,
    patients: int,
    task: Task,
    seed: int = 0,
    size: tuple[int, ...] | None = None,
    progress: Callable[[], object] | None = None,
    workers: int | None = None,
) -> list[Path]:
    """Write synthetic hospitals.

    Args:
        folder: where a folder for each hospital is made.
        sites: hospitals, from 1.
        patients: of each hospital, from 1.
        task: `segmentation` (abdominal CT with outlines) or `classification` (chest radiographs with labels).
        seed: from 0; the same seed, the same bytes.
        size: rows, columns (and slices) at the first hospital; the others' differ from it by their devices' ratios.
        progress: called once for each patient that is written.
        workers: processes; by default as many as there are processors. The bytes do not depend on it.

    Returns:
        The hospitals' folders.

    Raises:
        BadInput: if a hospital's folder is there and not empty, or a number is out of range.
    """
    size = _size(task, size)
    if sites < 1 or patients < 1 or seed < 0:
        raise BadInput(f"got {sites} sites of {patients} patients, seed {seed}; expected at least 1, 1 and 0")
    from simulations.phantoms import patient
    from simulations.phantoms.hospitals import hospital

    hospitals = [hospital(index) for index in range(sites)]
    folders = [Path(folder) / one.name for one in hospitals]
    for one in folders:
        if one.exists() and (not one.is_dir() or any(one.iterdir())):
            raise BadInput("is already in use; choose a folder that is empty or not there yet", file=one)
        one.mkdir(parents=True, exist_ok=True)
    make = partial(patient.write, task=task, seed=seed, size=size)
    todo = [(folders[index], index, number) for number in range(1, patients + 1) for index in range(sites)]
    rows = _each(make, todo, progress, workers)
    if task == "classification":
        for index, one in enumerate(folders):
            _table(
                one / "labels.csv",
                [row for (_, site, _), found in zip(todo, rows, strict=True) if site == index for row in found],
            )
    return folders


def _size(task: str, size: tuple[int, ...] | None) -> tuple[int, ...]:
    if task not in SIZES:
        raise BadInput(f"there are no phantoms for the task {task!r}; there are: {', '.join(SIZES)}")
    usual = SIZES[task]
    size = usual if size is None else tuple(size)
    if len(size) != len(usual) or not all(8 <= count <= 512 for count in size):
        raise BadInput(f"size {list(size)}: expected {len(usual)} whole numbers from 8 to 512, as {list(usual)}")
    return size


def _each(
    make: Callable[[Path, int, int], list[tuple[str, str]]],
    todo: list[tuple[Path, int, int]],
    progress: Callable[[], object] | None,
    workers: int | None,
) -> list[list[tuple[str, str]]]:
    """Write every patient, here or in processes; their rows of the table of labels in the order of `todo`."""
    workers = workers or (1 if len(todo) <= _FEW else len(os.sched_getaffinity(0)))
    rows: list[list[tuple[str, str]]] = [[] for _ in todo]
    if workers == 1:
        for place, one in enumerate(todo):
            rows[place] = make(*one)
            if progress is not None:
                progress()
        return rows
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_leave_interrupts_to_the_parent) as pool:
        # Leaving the block, in order or by Ctrl-C, ends the processes.
        for place, found in pool.imap_unordered(partial(_placed, make), enumerate(todo)):
            rows[place] = found
            if progress is not None:
                progress()
    return rows


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _placed(
    make: Callable[[Path, int, int], list[tuple[str, str]]], one: tuple[int, tuple[Path, int, int]]
) -> tuple[int, list[tuple[str, str]]]:
    place, arguments = one
    return place, make(*arguments)


def _table(file: Path, rows: list[tuple[str, str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(("SeriesInstanceUID", "label"))
        writer.writerows(rows)


def job(task: Task, *, sites: int = 3) -> Job:
    """A job for these phantoms, with ε = 8 for each patient; that of the segmentation is the demonstration's.

    It suits three hospitals of 130 patients, who learn the segmentation in two minutes and the classification in half
    of one.

    Args:
        task: as `write`.
        sites: all of which have to take part.
    """
    _size(task, None)
    return Job.from_toml(_JOBS[task]).varied(federation={"min_sites": sites})


_JOBS = {
    "segmentation": """
name = "phantom-liver"
task = "segmentation"
classes = ["background", "liver"]
[images]
size = [32, 32, 16]
window = [50, 400]
[network]
name = "UNet"
channels = [8, 16, 32]
strides = [2, 2]
[training]
learning_rate = 0.008
local_steps = 15
batch_size = 28
[privacy]
epsilon = 8.0
delta = 1e-4
sample_rate = 0.3
clipping_norm = 0.2
[federation]
rounds = 10
min_sites = 3
""",
    "classification": """
name = "phantom-effusions"
task = "classification"
classes = ["normal", "effusion"]
[images]
size = [32, 32]
[network]
name = "ResNet18"
block_inplanes = [8, 8, 16, 16]
conv1_t_size = 3
conv1_t_stride = 1
[training]
learning_rate = 0.005
local_steps = 16
batch_size = 44
[privacy]
epsilon = 8.0
delta = 1e-4
sample_rate = 0.5
clipping_norm = 1.0
[federation]
rounds = 8
min_sites = 3
""",
}
