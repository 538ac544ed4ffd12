"""What a site's updates show of canaries: the clipped gradients of who was drawn, and noise that never comes back."""

import numpy as np
import pytest
import torch

from client.training import gradients, private
from client.training.drawing import Batch
from client.training.noise import Stream
from shared import accounting
from simulations.attacks.canaries import Canaries, ImageIsGradient, job_on, updates

NOBODY = np.array([], dtype=np.int64)
normal = Stream.normal


@pytest.mark.parametrize("way", [gradients.by_layers, gradients.by_vmap])
def test_the_gradient_of_an_image_is_half_of_it_whatever_the_parameters(audited, way):
    network = ImageIsGradient(16)
    torch.nn.init.normal_(network.weight, std=100.0)
    images = torch.randn(3, 1, 4, 4)
    batch = Batch(images, torch.tensor([0, 1, 0]), (1, 1, 1))
    (found,) = way(network, job_on(audited, 16))(batch).values()
    expected = torch.tensor([-0.5, 0.5, -0.5]).view(3, 1, 1) * images.flatten(1)[:, None]
    torch.testing.assert_close(found.rows().values, expected)


def test_what_is_audited_of_the_job_stays_as_it_is(audited):
    job = audited.varied(
        training={"optimizer": "adamw", "loss": "dice", "class_weights": [1, 3], "images_per_patient": 5},
    )
    on_canaries = job_on(job, 1000)
    assert on_canaries.privacy == job.privacy
    assert on_canaries.federation == job.federation
    assert on_canaries.steps_per_round == job.steps_per_round
    assert on_canaries.training.batch_size == job.training.batch_size
    assert on_canaries.training.images_per_patient == 5
    assert accounting.noise_for(on_canaries) == accounting.noise_for(job)
    assert np.prod(on_canaries.images.size) >= 1000


@pytest.mark.parametrize("images_per_patient", [1, 3])
def test_each_draw_of_a_canary_moves_the_model_by_one_clipping_norm_along_its_axis(
    audited, settled, images_per_patient
):
    job = job_on(audited.varied(training={"images_per_patient": images_per_patient}), 400)
    there = np.arange(0, 400, 2)
    found = np.array([*updates(Canaries(there, job), noise_multiplier=1e-6)])
    assert found.shape == (5, 400)
    draws = found / 0.5
    np.testing.assert_allclose(draws, draws.round(), atol=1e-3)
    np.testing.assert_allclose(np.delete(draws, there, axis=1), 0, atol=1e-4)
    drawn = draws[:, there].round()
    assert drawn.min() >= 0
    assert drawn.max() <= 4
    assert drawn.mean() == pytest.approx(0.2 * 4, abs=5 * (4 * 0.2 * 0.8 / drawn.size) ** 0.5)


def noise(job) -> np.ndarray:
    """Of rounds in which nobody takes part, in standard deviations that were accounted for: (rounds, 4096)."""
    sigma = accounting.noise_for(job)
    seen = [*updates(Canaries(NOBODY, job_on(job, 4096)), noise_multiplier=sigma)]
    return np.array(seen) / (sigma * 0.5 * job.steps_per_round**0.5)


def likeness(seen: np.ndarray) -> float:
    """The largest correlation of two rounds."""
    return float(np.abs(np.triu(np.corrcoef(seen), 1)).max())


def test_noise_is_as_strong_as_accounted_for_and_no_rounds_resemble_each_other(audited, settled):
    seen = noise(audited)
    assert seen.shape == (5, 4096)
    assert seen.std() == pytest.approx(1, abs=6 / (2 * seen.size) ** 0.5)
    assert likeness(seen) < 6 / 4096**0.5


def test_the_same_noise_in_every_round_would_be_seen(audited, monkeypatch):
    monkeypatch.setattr(private, "Stream", lambda: Stream(bytes(32)))
    assert likeness(noise(audited)) > 0.99


def test_the_same_noise_in_every_step_would_be_seen(audited, monkeypatch):
    monkeypatch.setattr(Stream, "normal", lambda self, size: normal(Stream(bytes(32)), size))
    seen = noise(audited)
    assert likeness(seen) > 0.99
    assert seen.std() == pytest.approx(2, rel=0.05)  # the square root of four steps
