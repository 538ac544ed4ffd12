"""Two ways to the gradient of each image: the same for every network there is, and the slow one where they differ."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from client.training import gradients
from shared import networks, tasks
from shared.job import Job

SMALL = {
    "UNet": {"channels": [4, 8, 16], "strides": [2, 2]},
    "AttentionUnet": {"channels": [4, 8], "strides": [2]},
    "BasicUNet": {"features": [4, 4, 8, 8, 8, 4]},
    "SegResNet": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
    "DynUNet": {"filters": [4, 8, 8]},
    "UNETR": {"feature_size": 4},
}
CLASSIFIERS = ("DenseNet121", "ResNet18", "EfficientNetB0", "ViT")


def job_for(name: str, size: list[int], **options) -> Job:
    task = "classification" if name in CLASSIFIERS else "segmentation"
    return Job.from_dict(
        {"name": "each", "task": task, "classes": ["a", "b", "c"], "images": {"size": size, "channels": 2}}
        | {"network": {"name": name, **options}, "privacy": {"mode": "none"}}
    )


def batch(job: Job, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    images = torch.randn((count, 2, *job.images.size), generator=random, dtype=torch.float64)
    shape = (count, 1, *job.images.size) if job.task == "segmentation" else (count,)
    return images, torch.randint(3, shape, generator=random)


def largest(found) -> float:
    return max(float(value.abs().max()) for value in found.values())


@pytest.mark.parametrize("size", [[32, 32], [16, 16, 16]], ids=["2d", "3d"])
@pytest.mark.parametrize("name", networks.NAMES)
def test_both_ways_are_exact_for_every_network(name, size):
    if name == "DenseNet121":
        size = [32] * len(size)  # it takes no less
    job = job_for(name, size, **SMALL.get(name, {}))
    network, task = networks.build(job).double(), tasks.of(job)
    images, targets = batch(job, 2)
    found = gradients.by_layers(network, task)(images, targets)
    for number in range(2):
        network.zero_grad()
        task.loss(network(images[number : number + 1]), targets[number : number + 1]).sum().backward()
        alone = {name: parameter.grad for name, parameter in network.named_parameters()}
        scale = largest(alone)
        for key, value in alone.items():
            torch.testing.assert_close(found[key][number], value, rtol=1e-6, atol=1e-9 * scale)


@pytest.mark.parametrize("name", networks.NAMES)
def test_the_quick_way_is_taken_for_every_network(name):
    job = job_for(name, [32, 32])
    network = networks.build(job)
    assert gradients._agree(network, job)
    assert network.training


class Stack(nn.Module):
    """One layer under test, and one that is known."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(2, 3, 3, stride=2), nn.Upsample((8, 8))],
        [nn.Conv2d(2, 6, 3, padding=2, dilation=2, groups=2), nn.Conv2d(6, 3, 1, bias=False)],
        [nn.Conv2d(2, 3, 3, padding="same")],
        [nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect")],
        [nn.Conv2d(2, 64, 5, stride=2), nn.Conv2d(64, 64, 2), nn.ConvTranspose2d(64, 3, 8)],
        [nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2), nn.Conv2d(4, 3, 3, stride=2)],
        [nn.Conv2d(2, 6, 1), nn.GroupNorm(3, 6), nn.Conv2d(6, 3, 1)],
        [nn.InstanceNorm2d(2, affine=True), nn.Conv2d(2, 3, 1)],
        [nn.LayerNorm([8, 8]), nn.Conv2d(2, 3, 1)],
        [nn.LayerNorm([2, 8, 8], bias=False), nn.Conv2d(2, 3, 1)],
        [nn.Linear(8, 8), nn.PReLU(), nn.Linear(8, 8, bias=False), nn.PReLU(2), nn.Conv2d(2, 3, 1)],
    ],
    ids=lambda layers: "-".join(type(layer).__name__ for layer in layers),
)
def test_every_layer_notes_what_vmap_computes(layers, job):
    job = job_for("UNet", [8, 8])
    network, task = Stack(*layers).double(), tasks.of(job)
    images, targets = batch(job)
    side = network(images).shape[2:]
    targets = targets[..., : side[0], : side[1]]
    exact = gradients.by_vmap(network, task)(images, targets)
    try:
        found = gradients.by_layers(network, task)(images, targets)
    except gradients.NotCovered:
        assert layers[0].padding == "same"
        return
    for name, value in exact.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-12)


class Shared(nn.Module):
    """The same layer twice: its gradient is the sum of both."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 3, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(torch.relu(self.first(image))))


class Stray(Shared):
    """A parameter outside any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image) * self.scale


class Mixing(Shared):
    """Images meet, as they do in batch normalisation."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image - 0.1 * image.mean(0, keepdim=True))


def test_a_layer_used_twice_has_both_gradients():
    job = job_for("UNet", [8, 8])
    network, task = Shared().double(), tasks.of(job)
    exact = gradients.by_vmap(network, task)(*batch(job))
    for name, value in gradients.by_layers(network, task)(*batch(job)).items():
        torch.testing.assert_close(value, exact[name])


def test_a_parameter_outside_the_layers_known_is_never_missed():
    job = job_for("UNet", [8, 8])
    network = Stray()
    with pytest.raises(gradients.NotCovered, match="scale"):
        gradients.by_layers(network, tasks.of(job))(*(part.to(torch.float32) for part in batch(job)[:1]), batch(job)[1])
    assert not gradients._agree(network, job)


def test_networks_in_which_images_meet_are_not_taken_the_quick_way():
    assert not gradients._agree(Mixing(), job_for("UNet", [8, 8]))
    assert gradients._agree(Shared(), job_for("UNet", [8, 8]))


def test_parameters_of_now_are_used_and_none_is_left_with_a_gradient():
    job = job_for("UNet", [16, 16], channels=[4, 8], strides=[2])
    network, task = networks.build(job).double(), tasks.of(job)
    images, targets = batch(job)
    for way in (gradients.by_vmap, gradients.by_layers):
        of = way(network, task)
        before = of(images, targets)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.5)
        after = of(images, targets)
        assert largest({name: after[name] - before[name] for name in before}) > 1e-3
        assert all(parameter.grad is None for parameter in network.parameters())


def test_frozen_parameters_have_no_gradient_and_change_nothing_else():
    job = job_for("UNet", [16, 16], channels=[4, 8], strides=[2])
    network, task = networks.build(job).double(), tasks.of(job)
    every = gradients.by_layers(network, task)(*batch(job))
    frozen, *_ = network.parameters()
    frozen.requires_grad_(requires_grad=False)
    for way in (gradients.by_vmap, gradients.by_layers):
        found = way(network, task)(*batch(job))
        assert len(found) == len(every) - 1
        for name, value in found.items():
            torch.testing.assert_close(value, every[name])


def test_an_image_that_is_not_finite_spoils_no_other():
    job = job_for("UNet", [16, 16], channels=[4, 8], strides=[2])
    network, task = networks.build(job).double(), tasks.of(job)
    images, targets = batch(job)
    whole = gradients.by_layers(network, task)(images, targets)
    images[1] = torch.nan
    for name, value in gradients.by_layers(network, task)(images, targets).items():
        torch.testing.assert_close(value[[0, 2]], whole[name][[0, 2]])
        assert not torch.isfinite(value[1]).all()


def test_the_output_is_the_networks_own():
    job = job_for("UNet", [16, 16], channels=[4, 8], strides=[2])
    network = networks.build(job).double()
    images, _ = batch(job)
    from client.training.noting import Notes

    with Notes(dict(network.named_parameters()), len(images)):
        noted = network(images)
    expected = functional_call(network, dict(network.named_parameters()), (images,))
    torch.testing.assert_close(noted, expected)
