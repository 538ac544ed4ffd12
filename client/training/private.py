"""Training under differential privacy with the patient as the unit (DP-SGD: Abadi et al. 2016, arXiv:1607.00133).

Each step draws every patient independently with the job's sample rate, takes some images of each, averages their
gradients into one gradient a patient, clips that to the job's clipping norm C, adds the clipped ones up, adds Gaussian
noise of standard deviation σC, divides by `batch_size` and hands the result to the job's optimiser. Clipping, summing
and scaling are Opacus's `DPOptimizer`; what is ours is the unit, the gradients and the noise.

- **The divisor is public.** How many patients a site has is private under add/remove adjacency, so the sum may not be
  divided by it, nor by how many were drawn: it is divided by the job's `batch_size`, the number of patients that a
  step is meant to draw. Where the site's own expectation, sample rate × patients, is far from it, its log says so.
- **Randomness comes from the operating system** (`noise.Stream`), for the draw as for the noise.
- **Nothing depends on one patient but through the clipped gradient.** A patient whose gradient is not finite counts as
  a gradient of zero (to fail would tell), and a draw of nobody still takes its noisy step.
- Gradients of single images are exact (see `gradients`), and made for a few images at a time: memory stays bounded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from client.training import drawing, gradients, optimizers
from client.training.drawing import Batch, Drawn, Patients
from client.training.gradients import GradientsOfImages, trained
from client.training.noise import Stream
from client.training.noting import Gradients
from shared.job import Job

# What the gradients, and the images, of one pass may hold: numbers, four bytes each. Activations are some ten times
# the images; more at a time is not faster.
_MOST_GRADIENTS = 2**25
_MOST_IMAGES = 2**20


def train(
    network: nn.Module,
    cohort: Patients,
    job: Job,
    *,
    device: torch.device,
    noise_multiplier: float,
    log: logging.Logger | None = None,
) -> None:
    """Train the network in place for one round of a private job.

    Args:
        network: on the device; no layer may mix images (no batch statistics).
        cohort: the training patients.
        job: with `privacy.mode = "patient"`.
        device: where to compute.
        noise_multiplier: σ, above 0; what the round costs has been reserved with this very number.
        log: the site's own.
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
    of_images = gradients.of_images(network, job)
    learning = trained(network)
    at_once = _images_at_once(network, job)
    for _ in range(job.steps_per_round):
        patients = (stream.random(len(cohort)) < privacy.sample_rate).nonzero()[0].tolist()
        drawn = drawing.choose_images(cohort, patients, training, stream)
        groups = [*_groups(drawn, at_once)] or [[]]
        for number, group in enumerate(groups, start=1):
            if group:
                batch = drawing.load(cohort, group, training, stream, device)
                per_patient = gradients_of_patients(learning, of_images, batch, at_once)
            else:
                per_patient = {name: p.new_zeros((0, *p.shape)) for name, p in learning.items()}
            optimizer.take(learning, per_patient, last=number == len(groups))
    optimizer.release()


class PatientOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus's optimiser, fed with one gradient a patient and with noise from our own stream.

    Args:
        optimizer: what the noised gradient is handed to.
        noise_multiplier: σ.
        max_grad_norm: C.
        expected_batch_size: the public divisor.
        stream: where the noise comes from.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_batch_size: int,
        stream: Stream,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
        )
        self._stream = stream

    def take(self, parameters: Mapping[str, nn.Parameter], per_patient: Gradients, *, last: bool) -> None:
        """Clip and add up some patients' gradients; with the step's last patients, add the noise and step.

        Args:
            parameters: that train, by name.
            per_patient: of each parameter (P, *its shape); P may be 0.
            last: whether these are the last patients of the step.
        """
        for name, parameter in parameters.items():
            parameter.grad_sample = per_patient[name]  # type: ignore[attr-defined]
        self.signal_skip_step(do_skip=not last)
        self.step()
        self.zero_grad(set_to_none=True)

    def clip_and_accumulate(self) -> None:
        """As Opacus does; but a patient whose gradient is not finite counts as zero, rather than spoil the sum."""
        earlier = [None if p.summed_grad is None else p.summed_grad.clone() for p in self.params]
        super().clip_and_accumulate()
        if nn.utils.get_total_norm([parameter.summed_grad for parameter in self.params]).isfinite():
            return
        finite = _finite([parameter.grad_sample for parameter in self.params])
        for parameter, summed in zip(self.params, earlier, strict=True):
            parameter.summed_grad = summed
            rows = parameter.grad_sample
            parameter.grad_sample = torch.where(finite.view(-1, *[1] * (rows.ndim - 1)), rows, 0.0)
        super().clip_and_accumulate()

    def add_noise(self) -> None:
        """Noise for all parameters at once, in double precision, on the sum of the clipped gradients."""
        sizes = [parameter.numel() for parameter in self.params]
        noise = self._stream.normal(sum(sizes)).mul_(self.noise_multiplier * self.max_grad_norm)
        for parameter, part in zip(self.params, torch.split(noise.to(self.params[0].device), sizes), strict=True):
            summed: Tensor = parameter.summed_grad
            parameter.grad = (summed.double() + part.view_as(summed)).to(parameter.dtype).view_as(parameter)

    def scale_grad(self) -> None:
        """Divide by the public divisor; Opacus counts accumulated batches as well, for each parameter: here is one."""
        for parameter in self.params:
            parameter.grad /= self.expected_batch_size

    def release(self) -> None:
        """Leave nothing of any patient with the parameters."""
        for parameter in self.params:
            parameter.grad = None
            for name in ("grad_sample", "summed_grad"):
                if hasattr(parameter, name):
                    delattr(parameter, name)


def gradients_of_patients(
    parameters: Mapping[str, Tensor], of_images: GradientsOfImages, batch: Batch, at_once: int
) -> Gradients:
    """The mean gradient over each patient's images: of each parameter (P, *its shape)."""
    if batch.one_image_each and batch.patients <= at_once:
        return of_images(batch.images, batch.targets)
    sums = {name: torch.zeros((batch.patients, *p.shape), device=p.device) for name, p in parameters.items()}
    for start in range(0, len(batch.owner), at_once):
        part = slice(start, start + at_once)
        owner, share = batch.owner[part], batch.share[part]
        for name, value in of_images(batch.images[part], batch.targets[part]).items():
            sums[name].index_add_(0, owner, value * share.view(-1, *[1] * (value.ndim - 1)))
    return sums


def _finite(per_patient: Sequence[Tensor]) -> Tensor:
    """Of each patient whether all of the gradient is finite."""
    return torch.stack([rows.flatten(1).isfinite().all(dim=1) for rows in per_patient]).all(dim=0)


def _images_at_once(network: nn.Module, job: Job) -> int:
    parameters = sum(parameter.numel() for parameter in trained(network).values())
    image = job.images.channels * int(torch.Size(job.images.size).numel())
    return max(1, min(_MOST_GRADIENTS // max(1, parameters), _MOST_IMAGES // image))


def _groups(drawn: Sequence[Drawn], at_once: int) -> Iterator[list[Drawn]]:
    """Patients together, each whole, up to so many images; a patient with more images is a group alone."""
    group: list[Drawn] = []
    images = 0
    for one in drawn:
        if group and images + len(one.images) > at_once:
            yield group
            group, images = [], 0
        group.append(one)
        images += len(one.images)
    if group:
        yield group


def _warn_of_the_divisor(expected: float, batch_size: int, log: logging.Logger | None) -> None:
    if log is not None and not 0.5 <= expected / batch_size <= 2:
        log.warning(
            "a step draws about %.1f patients here, the job divides by its batch_size of %d: updates of this site are "
            "%s than meant; the job's sample_rate, batch_size or learning_rate does not suit this dataset",
            expected,
            batch_size,
            "larger" if expected > batch_size else "smaller",
        )
