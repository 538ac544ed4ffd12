"""Training under differential privacy with the patient as the unit (DP-SGD: Abadi et al. 2016, arXiv:1607.00133).

Each step draws every patient independently with the job's sample rate, takes some images of each, averages their
gradients into one gradient a patient, clips that to the job's clipping norm C, adds the clipped ones up, adds Gaussian
noise of standard deviation σC, divides by `batch_size` and hands the result to the job's optimiser.

- **The divisor is public.** How many patients a site has is private under add/remove adjacency, so the sum may not be
  divided by it, nor by how many were drawn: it is divided by the job's `batch_size`, the number of patients that a
  step is meant to draw. Where the site's own expectation, sample rate × patients, is far from it, its log says so.
- **Randomness comes from the operating system** (`noise.Stream`), for the draw as for the noise.
- **Nothing depends on one patient but through the clipped gradient.** A patient whose gradient is not finite counts as
  a gradient of zero (to fail would tell), and a draw of nobody still takes its noisy step.
- **Memory changes nothing.** Patients go through the network in passes of as many images as there is room for (see
  `memory`). A pass that runs out of memory has added nothing to the sum, and is made again of the same images in
  halves; who was drawn, which images, their views and the noise are drawn once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from client.training import drawing, gradients, memory, optimizers
from client.training.clipping import PatientOptimizer
from client.training.drawing import Batch, Patients
from client.training.gradients import GradientsOfPatients
from client.training.memory import Room
from client.training.noise import Stream
from client.training.noting import Shares
from client.training.shares import Rows
from client.watch import Watch, nothing
from shared.job import Job

_CPU = torch.device("cpu")


def train(
    network: nn.Module,
    cohort: Patients,
    job: Job,
    *,
    device: torch.device,
    noise_multiplier: float,
    log: logging.Logger | None = None,
    watch: Watch = nothing,
) -> None:
    """Train the network in place for one round of a private job.

    Args:
        network: on the device; no layer may mix images (no batch statistics).
        cohort: the training patients.
        job: with `privacy.mode = "patient"`.
        device: where to compute.
        noise_multiplier: σ, above 0; what the round costs has been reserved with this very number.
        log: the site's own.
        watch: called with every pass; it may end the training, whose steps stay charged.

    Raises:
        Refused: `memory`, if it does not suffice for a single image; what `watch` raises.
    """
    privacy, training = job.privacy, job.training
    if privacy.sample_rate is None or privacy.clipping_norm is None or job.steps_per_round is None:
        raise ValueError("a job without privacy cannot be trained privately")
    if not noise_multiplier > 0:
        raise ValueError(f"noise multiplier: got {noise_multiplier}, expected a number above 0")
    _warn_of_the_divisor(privacy.sample_rate * len(cohort), training.batch_size, log)
    stream = Stream()
    optimizer = PatientOptimizer(
        optimizers.fresh(training, network.parameters()),
        noise_multiplier=noise_multiplier,
        max_grad_norm=privacy.clipping_norm,
        expected_batch_size=training.batch_size,
        stream=stream,
    )
    of_patients, learning = gradients.of_patients(network, job), gradients.trained(network)
    room = Room(device, gradients.find_out(network, job).bytes_an_image)

    def add(batch: Batch) -> None:
        watch()
        optimizer.take(learning, gradients_of_patients(of_patients, batch.to(device), room.images))

    for _ in range(job.steps_per_round):
        patients = (stream.random(len(cohort)) < privacy.sample_rate).nonzero()[0].tolist()
        drawn = drawing.choose_images(cohort, patients, training, stream)
        counts = [training.views * len(one.images) for one in drawn]
        for group in drawing.in_groups(counts, room.images):
            in_passes(drawing.load(cohort, drawn[group], training, stream, _CPU), room, add)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        watch()
    optimizer.release()


def in_passes(batch: Batch, room: Room, add: Callable[[Batch], None]) -> None:
    """Do something with each patient of a batch exactly once, with as many together as there is room for.

    Args:
        batch: of any number of patients.
        room: gets smaller where that is too many.
        add: what is done; where it runs out of memory, it has done nothing.
    """
    waiting = [batch]
    while waiting:
        batch = waiting.pop()
        if batch.patients > 1 and len(batch.images) > room.images:
            waiting += batch.split(room.images)
            continue
        try:
            add(batch)
            continue
        except Exception as error:
            if not memory.ran_out(error):
                raise
        # Here the exception is gone, and with it all that the pass had made.
        room.shrink(min(len(batch.images), room.images))
        waiting.append(batch)


def gradients_of_patients(of_patients: GradientsOfPatients, batch: Batch, at_once: int) -> Shares:
    """Each patient's gradient of the mean loss over their images.

    Args:
        of_patients: makes them in one pass.
        batch: of one pass; or of one patient, whose images may take several.
        at_once: images of one pass.
    """
    if len(batch.images) <= at_once:
        return of_patients(batch)
    sums: dict[str, Tensor] = {}
    for part in batch.split(at_once):
        for name, share in of_patients(part).items():
            value = share.rows().values * (len(part.images) / len(batch.images))
            sums[name] = sums[name].add_(value) if name in sums else value
    return {name: Rows(value) for name, value in sums.items()}


def _warn_of_the_divisor(expected: float, batch_size: int, log: logging.Logger | None) -> None:
    if log is not None and not 0.5 <= expected / batch_size <= 2:
        log.warning(
            "a step draws about %.1f patients here, the job divides by its batch_size of %d: updates of this site are "
            "%s than meant; the job's sample_rate, batch_size or learning_rate does not suit this dataset",
            expected,
            batch_size,
            "larger" if expected > batch_size else "smaller",
        )
