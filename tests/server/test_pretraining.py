"""Pretraining on phantoms: what is drawn, what is learnt from it, and that a run begins with it."""

import pytest
import torch

from server import pretraining
from server.pretraining.phantoms import Phantoms
from shared import arrays, networks, tasks
from shared.preprocessing import Preprocessing


@pytest.fixture
def on_phantoms(job):
    return job.varied(images={"size": [24, 24]}, training={"start_from": "phantoms"})


@pytest.mark.parametrize("size", [(20, 32), (12, 20, 16)])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_phantoms_have_the_jobs_shape_and_every_class(size, classes):
    images, targets = Phantoms(size=size, channels=3, classes=classes, seed=0).draw(40)
    assert images.shape == (40, 3, *size)
    assert targets.shape == (40, 1, *size)
    assert images.dtype == torch.float32
    assert bool(images.isfinite().all())
    assert targets.unique().tolist() == list(range(classes))
    foreground = (targets > 0).float().flatten(1).mean(1)
    assert 0.02 < foreground.mean() < 0.5
    assert foreground.std() > 0.03


def test_the_seed_decides_what_is_drawn_and_every_draw_is_another():
    def drawn(seed):
        phantoms = Phantoms(size=(16, 16), channels=1, classes=2, seed=seed)
        return [phantoms.draw(4)[0] for _ in range(2)]

    first, second = drawn(0)
    assert torch.equal(first, drawn(0)[0])
    assert torch.equal(second, drawn(0)[1])
    assert not torch.equal(first, second)
    assert not torch.equal(first, drawn(1)[0])


def test_drawing_leaves_torchs_generator_alone():
    before = torch.get_rng_state()
    Phantoms(size=(16, 16), channels=1, classes=2, seed=0).draw(2)
    assert torch.equal(before, torch.get_rng_state())


def test_the_body_differs_from_its_ground():
    images, targets = Phantoms(size=(48, 48), channels=1, classes=2, seed=0).draw(60)
    inside = targets.bool()
    means = [(image[mask].mean() - image[~mask].mean()).abs() for image, mask in zip(images, inside, strict=True)]
    assert torch.stack([mean for mean in means if mean.isfinite()]).median() > 0.05


def dice(job, model) -> float:
    """Of a model on phantoms it has not seen."""
    network = networks.build(job)
    arrays.into_network(model, network)
    phantoms, scale = Phantoms(size=job.images.size, channels=1, classes=2, seed=99), Preprocessing(job.images).scaled
    images, targets = phantoms.draw(60)
    measure = tasks.of(job).measure()
    with torch.inference_mode():
        logits = network(torch.stack([scale(image) for image in images]))
        measure.add([str(number) for number in range(len(images))], logits, targets)
    return measure.compute()["dice"]


def test_a_pretrained_model_finds_bodies_that_it_has_not_seen(on_phantoms):
    said = []
    model = pretraining.initial(on_phantoms, said.append)
    scratch = pretraining.initial(on_phantoms.varied(training={"start_from": "scratch"}))
    assert arrays.structure(model) == arrays.structure(scratch)
    assert dice(on_phantoms, model) > dice(on_phantoms, scratch) + 0.2
    assert said == list(range(0, pretraining.STEPS, 10))


def test_the_same_network_and_images_start_from_the_same_model_whatever_else_the_job_says(on_phantoms, monkeypatch):
    monkeypatch.setattr(pretraining, "STEPS", 3)
    monkeypatch.setattr(pretraining, "_last", None)
    first = arrays.digest(pretraining.initial(on_phantoms))
    private = {"mode": "patient", "epsilon": 2.0, "delta": 1e-4, "sample_rate": 0.5, "clipping_norm": 0.1}
    other = on_phantoms.varied(training={"learning_rate": 0.1, "loss": "ce"}, privacy=private)
    said = []
    assert arrays.digest(pretraining.initial(other, said.append)) == first
    assert said == []  # it was still there
    monkeypatch.setattr(pretraining, "_last", None)
    assert arrays.digest(pretraining.initial(other)) == first
    assert arrays.digest(pretraining.initial(on_phantoms.varied(training={"seed": 1}))) != first


def test_a_window_in_hounsfield_units_is_filled(on_phantoms, monkeypatch):
    monkeypatch.setattr(pretraining, "STEPS", 1)
    monkeypatch.setattr(pretraining, "_last", None)
    seen = []
    scaled = Preprocessing.scaled
    monkeypatch.setattr(Preprocessing, "scaled", lambda self, image: seen.append(scaled(self, image)) or seen[-1])
    pretraining.initial(on_phantoms.varied(images={"window": [50, 400], "intensity": "window"}))
    values = torch.stack(seen)
    assert 0 <= values.min() < 0.2
    assert 0.8 < values.max() <= 1
    assert values.std() > 0.1
