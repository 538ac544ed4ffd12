"""Private training: the patient is the unit, the gradients are exact, the noise is there."""

import dataclasses
import logging
import math

import numpy as np
import pytest
import torch
from torch import nn

from client import training
from client.training import drawing, gradients, optimizers, private
from client.training.noise import GRAIN, Stream
from client.training.shares import Rows
from shared import networks, tasks
from shared.errors import RefusalCode, Refused
from shared.job import Job

CPU = torch.device("cpu")
ONE_STEP = {"local_steps": 1, "optimizer": "sgd", "learning_rate": 1.0, "batch_size": 1}
ALMOST_NO_NOISE = 1e-9


@pytest.fixture
def one_step(private_job):
    """A job of one step of plain gradient descent that draws every patient."""
    return private_job.varied(training=ONE_STEP, privacy={"sample_rate": 1.0, "clipping_norm": 0.5})


def vector(network) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def moved(cohort, job, *, noise_multiplier=ALMOST_NO_NOISE, network=None) -> torch.Tensor:
    """How far one round of training moves the parameters, as one vector."""
    network = network or networks.build(job)
    before = vector(network)
    training.train(network, cohort, job, round=1, site_name="north", device=CPU, noise_multiplier=noise_multiplier)
    return vector(network) - before


def gradient_of(network, job, pairs) -> torch.Tensor:
    """The gradient of the mean loss over these images, by one ordinary backward pass."""
    network.zero_grad()
    images, targets = torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])
    tasks.of(job).loss(network(images), targets).mean().backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
    network.zero_grad()
    return gradient


def clipped(gradient, norm):
    return gradient * min(1.0, norm / float(gradient.norm()))


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
def test_a_patients_gradient_is_that_of_the_mean_over_the_patients_images(pictures, private_job, at_once):
    job = private_job.varied(training={"images_per_patient": 4})
    cohort, network = pictures([1, 4, 2, 1]), networks.build(job)
    of_patients = gradients.of_patients(network, job)
    for number, pairs in enumerate(cohort.data):
        drawn = drawing.choose_images(cohort, [number], job.training, Stream())
        batch = drawing.load(cohort, drawn, job.training, Stream(), CPU)
        found = private.gradients_of_patients(of_patients, batch, at_once)
        row = torch.cat([found[name].rows().values.flatten() for name, _ in network.named_parameters()])
        torch.testing.assert_close(row, gradient_of(network, job, pairs), rtol=1e-4, atol=1e-6)


def test_one_step_is_the_sum_of_clipped_gradients_over_the_public_divisor(pictures, one_step):
    job = one_step.varied(training={"images_per_patient": 3, "batch_size": 7})
    cohort = pictures([3, 1, 2])
    network = networks.build(job)
    expected = sum(clipped(gradient_of(network, job, pairs), 0.5) for pairs in cohort.data)
    torch.testing.assert_close(moved(cohort, job), -expected / 7, rtol=1e-3, atol=1e-6)


def test_a_patient_with_forty_images_moves_the_model_no_further_than_the_clipping_norm(pictures, one_step):
    job = one_step.varied(training={"images_per_patient": 40}, privacy={"clipping_norm": 0.01})
    cohort = pictures([40])
    assert float(gradient_of(networks.build(job), job, cohort.data[0]).norm()) > 0.01
    assert float(moved(cohort, job).norm()) == pytest.approx(0.01, rel=1e-3)


def test_removing_a_patient_changes_the_sum_by_no_more_than_the_clipping_norm(pictures, one_step):
    cohort, without = pictures([1, 40, 1]), pictures([1, 40, 1])
    del without.data[1]
    assert float((moved(cohort, one_step) - moved(without, one_step)).norm()) <= 0.5 * 1.001


class Cramped(nn.Module):
    """A network that runs out of memory at more images than there is room for, as often as it is tried."""

    def __init__(self, network: nn.Module, room: int, error: Exception) -> None:
        super().__init__()
        self.network, self.room, self.error = network, room, error
        self.passes: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes.append(len(images))
        if len(images) > self.room:
            raise self.error
        return self.network(images)


@pytest.mark.parametrize("images_each", [1, 3])
@pytest.mark.parametrize("room", [1, 2, 5])
def test_a_pass_without_memory_is_made_again_in_halves_and_gives_the_same_step(
    pictures, one_step, room, images_each, monkeypatch
):
    job = one_step.varied(training={"images_per_patient": images_each, "seed": room})  # what is found out is remembered
    cohort = pictures([1, 2, 3, 1, 3, 1, 1])
    monkeypatch.setattr(private, "Stream", lambda: Stream(bytes(32)))  # whatever it draws twice would be seen
    roomy = moved(cohort, job, noise_multiplier=1.0)
    cramped = Cramped(networks.build(job), room, torch.OutOfMemoryError("CUDA out of memory"))
    change = moved(cohort, job, noise_multiplier=1.0, network=cramped)
    grain = 2.0 ** math.floor(math.log2(0.5 * GRAIN))
    torch.testing.assert_close(change, roomy, rtol=0, atol=1.01 * grain)
    assert float((change - roomy).abs().mean()) < 0.01 * grain  # the same sum, rounded to the same grain
    assert max(cramped.passes) > room


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_where_one_image_is_too_many_the_round_is_refused(pictures, one_step, error):
    with pytest.raises(Refused, match="memory") as refused:
        moved(pictures([1, 2]), one_step, network=Cramped(networks.build(one_step), 0, error))
    assert refused.value.code == RefusalCode.MEMORY


def test_another_error_in_a_pass_is_not_taken_for_a_lack_of_memory(pictures, one_step):
    job = one_step.varied(training={"seed": 9})
    network = Cramped(networks.build(job), 2, RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        moved(pictures([1, 2, 1]), job, network=network)


@pytest.mark.parametrize("images_each", [1, 3])
def test_all_views_of_a_patients_images_are_one_gradient(pictures, one_step, images_each):
    job = one_step.varied(training={"images_per_patient": images_each, "views": 4, "augmentation": "light"})
    cohort = pictures([3])
    batch = drawing.load(cohort, [drawing.Drawn(0, tuple(range(images_each)))], job.training, Stream(), CPU)
    assert batch.counts == (4 * images_each,)
    assert len(torch.unique(batch.images.flatten(1), dim=0)) == 4 * images_each  # each by itself
    network = networks.build(job)
    found = gradients.of_patients(network, job)(batch)
    row = torch.cat([found[name].rows().values.flatten() for name, _ in network.named_parameters()])
    pairs = list(zip(batch.images, batch.targets, strict=True))
    torch.testing.assert_close(row, gradient_of(network, job, pairs), rtol=1e-4, atol=1e-6)


def test_a_patient_in_many_views_moves_the_model_no_further_than_the_clipping_norm(pictures, one_step):
    job = one_step.varied(
        training={"images_per_patient": 5, "views": 8, "augmentation": "light"}, privacy={"clipping_norm": 0.01}
    )
    assert float(moved(pictures([40]), job).norm()) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("name", ["UNet", "ViT"])
def test_in_bfloat16_a_patient_still_moves_the_model_no_further_than_the_clipping_norm(pictures, one_step, name):
    job = one_step.varied(training={"precision": "bfloat16"}, privacy={"clipping_norm": 0.01})
    if name == "ViT":
        data = job.model_dump(mode="json", exclude_none=True)
        job = Job.from_dict({**data, "task": "classification", "network": {"name": "ViT", "patch_size": [8, 8]}})
    cohort, without = pictures([1, 1, 1], job), pictures([1, 1, 1], job)
    del without.data[1]
    for patient in cohort.data:
        alone = pictures([1], job)
        alone.data = [patient]
        assert float(moved(alone, job).norm()) == pytest.approx(0.01, rel=1e-4)
    together, fewer = moved(cohort, job), moved(without, job)
    assert together.dtype == torch.float32
    assert float((together - fewer).norm()) == pytest.approx(0.01, rel=0.02)


def test_the_noised_sum_is_a_multiple_of_a_grain_that_no_data_move(pictures, one_step):
    network = networks.build(one_step)
    optimizer = private.PatientOptimizer(
        optimizers.fresh(one_step.training, network.parameters()),
        noise_multiplier=3.0,
        max_grad_norm=0.5,
        expected_batch_size=1,
        stream=Stream(),
    )
    batch = drawing.load(pictures([1, 1]), [drawing.Drawn(0, (0,))], one_step.training, Stream(), CPU)
    optimizer.take(dict(network.named_parameters()), gradients.of_patients(network, one_step)(batch))
    optimizer.step()
    grain = 2.0**-7  # of 1.5 the 128th, and down to a power of two
    for parameter in network.parameters():
        assert (parameter.grad / grain == (parameter.grad / grain).round()).all()


def test_a_gradient_that_is_not_finite_counts_as_none(pictures, one_step):
    cohort, without = pictures([1, 1, 1]), pictures([1, 1, 1])
    image, target = cohort.data[1][0]
    cohort.data[1][0] = (torch.full_like(image, float("nan")), target)
    del without.data[1]
    torch.testing.assert_close(moved(cohort, one_step), moved(without, one_step))


def test_a_draw_of_nobody_still_takes_a_noisy_step(pictures, one_step):
    job = one_step.varied(privacy={"sample_rate": 1e-12})
    change = moved(pictures([1, 1]), job, noise_multiplier=2.0)
    assert float((change != 0).float().mean()) > 0.97  # it is rounded: a few may be 0
    assert float(change.std()) == pytest.approx(2.0 * 0.5, rel=0.15)


@pytest.mark.parametrize("batch_size", [1, 10])
def test_the_noise_has_the_deviation_that_was_accounted_for(pictures, one_step, batch_size):
    job = one_step.varied(training={"batch_size": batch_size})
    cohort = pictures([1, 1])
    signal = moved(cohort, job)
    noise = torch.cat([moved(cohort, job, noise_multiplier=3.0) - signal for _ in range(8)])
    deviation = 3.0 * 0.5 / batch_size
    assert abs(float(noise.mean())) < 5 * deviation / len(noise) ** 0.5
    assert float(noise.std()) == pytest.approx(deviation, rel=5 / (2 * len(noise)) ** 0.5)


def test_every_step_has_its_own_noise(pictures, one_step):
    job = one_step.varied(training={"local_steps": 16}, privacy={"sample_rate": 1e-12})
    change = moved(pictures([1]), job, noise_multiplier=2.0)
    assert float(change.std()) == pytest.approx(4 * 2.0 * 0.5, rel=0.15)  # the square root of 16 steps


def test_no_seed_of_the_job_or_of_torch_repeats_noise_or_draw(pictures, one_step):
    changes = []
    for _ in range(2):
        torch.manual_seed(1)
        np.random.seed(1)
        changes.append(moved(pictures([1, 1]), one_step, noise_multiplier=1.0))
    assert float(torch.isclose(changes[0], changes[1], rtol=1e-6, atol=0).float().mean()) < 0.03  # rounded, some meet


def test_patients_are_drawn_independently_with_the_public_rate(pictures, private_job, monkeypatch):
    job = private_job.varied(training={"local_steps": 150}, privacy={"sample_rate": 0.3})
    seen = []
    monkeypatch.setattr(drawing, "choose_images", lambda cohort, patients, *_: seen.append(set(patients)) or [])
    moved(pictures([1] * 40), job)
    drawn = np.array([[patient in step for patient in range(40)] for step in seen], dtype=float)
    assert drawn.shape == (150, 40)
    assert drawn.mean() == pytest.approx(0.3, abs=4 * (0.21 / 6000) ** 0.5)
    sizes = drawn.sum(axis=1)
    assert 0.5 < sizes.var() / (40 * 0.21) < 1.8  # binomial, not a fixed number a step
    assert 0.3 < drawn.mean(axis=0).var() / (0.21 / 150) < 2.4  # and nobody's turn is waited for


def test_adam_gets_the_same_noised_gradient(pictures, one_step):
    job = one_step.varied(training={"optimizer": "adam", "learning_rate": 0.01})
    change = moved(pictures([1, 1]), job, noise_multiplier=1.0)
    size = change.abs()[change != 0]
    assert len(size) > 0.97 * len(change)
    torch.testing.assert_close(size, torch.full_like(size, 0.01), rtol=1e-2, atol=1e-4)


def test_frozen_parameters_stay_and_nothing_of_a_patient_stays_with_the_others(pictures, one_step):
    network = networks.build(one_step)
    frozen, *rest = network.parameters()
    frozen.requires_grad_(requires_grad=False)
    before = frozen.clone()
    assert moved(pictures([1, 2]), one_step, noise_multiplier=1.0, network=network).any()
    assert torch.equal(frozen, before)
    for parameter in rest:
        assert parameter.grad is None
        assert not hasattr(parameter, "grad_sample")
        assert not hasattr(parameter, "summed_grad")


def test_a_divisor_far_from_what_the_site_draws_is_said_in_its_log(pictures, one_step, caplog):
    log = logging.getLogger("here")
    cohort, network = pictures([1, 1]), networks.build(one_step)
    for batch_size, said in ((2, ""), (5, "smaller"), (1, "")):
        caplog.clear()
        job = one_step.varied(training={"batch_size": batch_size})
        private.train(network, cohort, job, device=CPU, noise_multiplier=1.0, log=log)
        assert said in caplog.text
        assert bool(caplog.text) == bool(said)


def test_without_noise_or_privacy_there_is_no_private_training(pictures, one_step, job):
    network = networks.build(job)
    with pytest.raises(ValueError, match="noise multiplier"):
        private.train(network, pictures([1]), one_step, device=CPU, noise_multiplier=0.0)
    with pytest.raises(ValueError, match="noise multiplier"):
        training.train(network, pictures([1]), one_step, round=1, site_name="north", device=CPU)
    with pytest.raises(ValueError, match="without privacy"):
        private.train(network, pictures([1]), job, device=CPU, noise_multiplier=1.0)


def test_a_model_that_runs_away_is_refused(pictures, one_step):
    job = one_step.varied(training={"learning_rate": 1e45, "local_steps": 3})
    with pytest.raises(Refused, match="not finite") as refused:
        moved(pictures([1, 1]), job, noise_multiplier=1000.0)
    assert refused.value.code == RefusalCode.FAILED


def test_the_optimiser_refuses_gradients_of_other_shapes(pictures, one_step):
    network = networks.build(one_step)
    optimizer = private.PatientOptimizer(
        optimizers.fresh(one_step.training, network.parameters()),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=1,
        stream=Stream(),
    )
    with pytest.raises(KeyError):
        optimizer.take(dict(network.named_parameters()), {"w": Rows(torch.zeros(1, 3))})


def test_drawn_images_are_different_ones_of_the_patient(pictures, private_job):
    job = private_job.varied(training={"images_per_patient": 3})
    cohort = pictures([1, 3, 10])
    seen = set()
    for _ in range(30):
        one, all_of_them, some = drawing.choose_images(cohort, [0, 1, 2], job.training, Stream())
        assert dataclasses.astuple(one) == (0, (0,))
        assert all_of_them.images == (0, 1, 2)
        assert len(set(some.images)) == 3
        seen |= set(some.images)
    assert seen == set(range(10))
