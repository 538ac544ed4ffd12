"""Each patient's gradient, by the ways there are: the same for every network, and the slow one where they differ."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from client.training import gradients
from client.training.clipping import clipped_sum
from client.training.drawing import Batch
from client.training.noting import Notes, Shares
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


def batch(job: Job, counts: tuple[int, ...] = (1, 1, 1)) -> Batch:
    """Of each patient so many images."""
    random, count = torch.Generator().manual_seed(5), sum(counts)
    images = torch.randn((count, 2, *job.images.size), generator=random, dtype=torch.float64)
    shape = (count, 1, *job.images.size) if job.task == "segmentation" else (count,)
    return Batch(images, torch.randint(3, shape, generator=random), counts)


def by_backward(network: nn.Module, job: Job, whole: Batch) -> list[dict[str, torch.Tensor]]:
    """Of each patient the gradient of the mean over their images, by one ordinary backward pass an image."""
    found = []
    pairs = zip(whole.images.split(whole.counts), whole.targets.split(whole.counts), strict=True)
    for images, targets in pairs:
        network.zero_grad()
        for image, target in zip(images, targets, strict=True):
            (tasks.of(job).loss(network(image[None]), target[None]).sum() / len(images)).backward()
        found.append({name: p.grad for name, p in network.named_parameters() if p.requires_grad})
    network.zero_grad()
    return found


def values(found: Shares) -> dict[str, torch.Tensor]:
    return {name: share.rows().values for name, share in found.items()}


def assert_are(found: Shares, expected: list[dict[str, torch.Tensor]]) -> None:
    """What clipping asks of the shares (norms, weighted sums), and their values, are those of these gradients."""
    for number, alone in enumerate(expected):
        only = torch.eye(len(expected), dtype=torch.float64)[number]
        scale = largest(alone)
        for key, value in alone.items():
            torch.testing.assert_close(found[key].rows().values[number], value, rtol=1e-6, atol=1e-9 * scale)
            torch.testing.assert_close(found[key].weighted(only), value, rtol=1e-6, atol=1e-9 * scale)
            torch.testing.assert_close(
                found[key].squares()[number], value.square().sum(), rtol=1e-6, atol=1e-12 * scale**2
            )


def largest(found) -> float:
    return max(float(value.abs().max()) for value in found.values())


@pytest.fixture(params=[False, True], ids=["multiplied", "factors"])
def few(request, monkeypatch):
    """As if all products of matrices were of many positions, or all of few."""
    monkeypatch.setattr(Notes, "are_few", lambda *_: request.param)


@pytest.mark.parametrize("size", [[32, 32], [16, 16, 16]], ids=["2d", "3d"])
@pytest.mark.parametrize("name", networks.NAMES)
def test_gradients_are_exact_for_every_network(name, size):
    if name == "DenseNet121":
        size = [32] * len(size)  # it takes no less
    job = job_for(name, size, **SMALL.get(name, {}))
    network, whole = networks.build(job).double(), batch(job, (1, 1))
    assert_are(gradients.by_layers(network, job)(whole), by_backward(network, job, whole))


@pytest.mark.parametrize("size", [[32, 32], [16, 16, 16]], ids=["2d", "3d"])
@pytest.mark.parametrize("name", ["UNet", "UNETR", "DynUNet"])
def test_gradients_are_exact_with_a_map_of_places(name, size):
    job = job_for(name, size, atlas=5, **SMALL.get(name, {}))
    network, whole = networks.build(job).double(), batch(job, (2, 1))
    assert "atlas" in dict(network.named_parameters())
    expected = by_backward(network, job, whole)
    for way in (gradients.by_layers, gradients.by_vmap):
        assert_are(way(network, job)(whole), expected)


@pytest.mark.parametrize("name", ["UNet", "ResNet18", "ViT"])
def test_several_images_of_a_patient_are_one_gradient_by_every_way(name, few):
    job = job_for(name, [32, 32], **SMALL.get(name, {}))
    network, whole = networks.build(job).double(), batch(job, (2, 1, 3))
    expected = by_backward(network, job, whole)
    for way in (gradients.by_layers, gradients.by_vmap):
        assert_are(way(network, job)(whole), expected)
    for number, one in enumerate(whole.split(1)):
        assert_are(gradients.by_itself(network, job)(one), expected[number : number + 1])


def test_large_layers_that_see_few_positions_are_left_as_factors():
    job = job_for("ResNet18", [32, 32], block_inplanes=[64, 128, 256, 512])
    found = gradients.by_layers(networks.build(job), job)(single(batch(job, (1, 1, 1, 1))))
    taken, multiplied = sum(share.nbytes for share in found.values()), sum(v.nbytes for v in values(found).values())
    assert taken < 0.15 * multiplied


@pytest.mark.parametrize("name", networks.NAMES)
def test_the_quick_way_is_taken_for_every_network(name):
    job = job_for(name, [32, 32])
    network = networks.build(job)
    assert gradients.find_out(network, job).quick
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
def test_every_layer_notes_what_a_backward_pass_computes(layers, few):
    job = job_for("UNet", [8, 8])
    network, whole = Stack(*layers).double(), batch(job, (1, 2))
    side = network(whole.images).shape[2:]
    whole = Batch(whole.images, whole.targets[..., : side[0], : side[1]], whole.counts)
    try:
        found = gradients.by_layers(network, job)(whole)
    except gradients.NotCovered:
        assert layers[0].padding == "same"
        return
    assert_are(found, by_backward(network, job, whole))


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


def test_a_layer_used_twice_has_both_gradients(few):
    job = job_for("UNet", [8, 8])
    network, whole = Shared().double(), batch(job, (1, 2))
    assert_are(gradients.by_layers(network, job)(whole), by_backward(network, job, whole))


def test_a_parameter_outside_the_layers_known_is_never_missed():
    job = job_for("UNet", [8, 8])
    network = Stray()
    with pytest.raises(gradients.NotCovered, match="scale"):
        gradients.by_layers(network, job)(single(batch(job)))
    assert not gradients._try(network, job).quick


def test_networks_in_which_images_meet_are_not_taken_the_quick_way():
    job = job_for("UNet", [8, 8])
    assert not gradients._try(Mixing(), job).quick
    assert gradients._try(Shared(), job).quick


def test_parameters_of_now_are_used_and_none_is_left_with_a_gradient():
    job = job_for("UNet", [16, 16], channels=[4, 8], strides=[2])
    network, whole = networks.build(job).double(), batch(job)
    for way in (gradients.by_vmap, gradients.by_layers, gradients.by_itself):
        of = way(network, job)
        before = values(of(whole))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.5)
        after = values(of(whole))
        assert largest({name: after[name] - before[name] for name in before}) > 1e-3
        assert all(parameter.grad is None for parameter in network.parameters())


def test_frozen_parameters_have_no_gradient_and_change_nothing_else():
    job = job_for("UNet", [16, 16], channels=[4, 8], strides=[2])
    network = networks.build(job).double()
    every = by_backward(network, job, batch(job))
    name, frozen = next(network.named_parameters())
    frozen.requires_grad_(requires_grad=False)
    rest = [{key: value for key, value in alone.items() if key != name} for alone in every]
    for way in (gradients.by_vmap, gradients.by_layers):
        found = way(network, job)(batch(job))
        assert found.keys() == rest[0].keys()
        assert_are(found, rest)


def test_an_image_that_is_not_finite_spoils_no_other(few):
    job = job_for("ResNet18", [32, 32])
    network, whole = networks.build(job).double(), batch(job, (1, 2, 1))
    way, without = gradients.by_layers(network, job), [0, 3]
    expected = clipped_sum([*way(Batch(whole.images[without], whole.targets[without], (1, 1))).values()], 0.5)
    whole.images[2] = torch.nan
    for value, other in zip(clipped_sum([*way(whole).values()], 0.5), expected, strict=True):
        torch.testing.assert_close(value, other)
    whole.images[:] = torch.nan
    assert not any(value.any() for value in clipped_sum([*way(whole).values()], 0.5))


def test_norms_of_factors_cover_what_rounding_adds_to_their_sum():
    """L and R are long, and all but cancel each other: in single precision the sum is off by more than it is long."""
    from client.training.shares import Factors

    random = torch.Generator().manual_seed(0)
    left, right = torch.randn((64, 8), generator=random), 1000 + torch.randn((64, 9), generator=random)
    left -= left.mean(0)  # what R has in common is multiplied with nothing
    share = Factors(left, right, (64,), torch.Size([8, 9]))
    exact = (left.double().mT @ right.double()).norm()
    summed = share.weighted(torch.ones(1, dtype=torch.float64)).double()
    assert float(share.squares().sqrt()) >= float(summed.norm())
    assert float(share.squares().sqrt()) == pytest.approx(float(exact), rel=0.01)


def test_the_output_is_the_networks_own():
    job = job_for("UNet", [16, 16], channels=[4, 8], strides=[2])
    network, whole = networks.build(job).double(), batch(job)
    with Notes(dict(network.named_parameters()), whole):
        noted = network(whole.images)
    expected = functional_call(network, dict(network.named_parameters()), (whole.images,))
    torch.testing.assert_close(noted, expected)


def single(whole: Batch) -> Batch:
    return Batch(whole.images.float(), whole.targets, whole.counts)


@pytest.mark.parametrize("name", ["UNet", "ResNet18", "ViT", "SegResNet", "UNETR"])
def test_in_bfloat16_gradients_are_as_near_to_the_true_ones_as_those_of_ordinary_training(name):
    job = job_for(name, [32, 32], **SMALL.get(name, {})).varied(training={"precision": "bfloat16"})
    network, whole = networks.build(job), single(batch(job, (1, 2)))
    names = [name for name, _ in network.named_parameters()]
    found = values(gradients.of_patients(network, job)(whole))
    assert all(value.dtype == torch.float32 for value in found.values())
    exact = by_backward(network, job, whole)
    with torch.autocast("cpu", torch.bfloat16):
        ordinary = by_backward(network, job, whole)

    def vector(of: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([of[name].flatten() for name in names])

    for number, (true, rounded) in enumerate(zip(exact, ordinary, strict=True)):
        ours = vector({name: value[number] for name, value in found.items()})
        error = float((ours - vector(true)).norm() / vector(true).norm())
        theirs = float((vector(rounded) - vector(true)).norm() / vector(true).norm())
        assert 1e-4 < error < max(0.02, 1.5 * theirs)
