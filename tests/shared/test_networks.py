"""Every network is fit for per-patient gradients; every mistake in a job's network is said in a line."""

import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from shared import networks
from shared.errors import BadInput
from shared.job import Job
from shared.networks.catalogue import ENTRIES
from shared.networks.surgery import groups

SMALLEST = {"BasicUNet": 16, "UNETR": 16, "DenseNet121": 32, "EfficientNetB0": 16, "ResNet18": 16}
EACH = [(name, dimensions) for name in networks.NAMES for dimensions in (2, 3)]


def a_job(
    name: str, size: tuple[int, ...] = (16, 16), *, task: str | None = None, seed: int = 0, **options: Any
) -> Job:
    return Job.from_dict(
        {
            "name": "test",
            "task": task or ENTRIES[name].task,
            "classes": ["background", "organ", "lesion"],
            "images": {"size": list(size), "channels": 2},
            "network": {"name": name, **options},
            "training": {"seed": seed},
            "privacy": {"mode": "none"},
        }
    )


def smallest(name: str, dimensions: int) -> tuple[int, ...]:
    extent = SMALLEST.get(name, 8)
    return (2 * extent,) + (extent,) * (dimensions - 1)


def a_batch(job: Job, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(count, job.images.channels, *job.images.size, generator=generator)
    shape = (count, *job.images.size) if job.task == "segmentation" else (count,)
    return images, torch.randint(0, len(job.classes), shape, generator=generator)


def loss(logits: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, target)


@pytest.mark.parametrize(("name", "dimensions"), EACH)
def test_gradients_by_vmap_are_those_of_each_image_alone(name: str, dimensions: int) -> None:
    job = a_job(name, smallest(name, dimensions))
    # In double precision: in single, rounding may choose another of two near-equal winners of a pooling.
    network = networks.build(job).double()
    images, targets = a_batch(job, 3)
    images = images.double()
    parameters = {key: value.detach() for key, value in network.named_parameters()}

    def of_one(parameters: dict[str, Tensor], image: Tensor, target: Tensor) -> Tensor:
        return loss(functional_call(network, parameters, (image[None],)), target[None])

    with warnings.catch_warnings():
        # Where torch has no batching rule for a layer, it goes through the images one by one, and warns.
        warnings.filterwarnings("error", message=".*performance drop.*")
        each = vmap(grad(of_one), in_dims=(None, 0, 0), randomness="error", chunk_size=2)(parameters, images, targets)
    for index in range(len(images)):
        network.zero_grad()
        loss(network(images[index : index + 1]), targets[index : index + 1]).backward()
        alone = {key: value.grad for key, value in network.named_parameters() if value.grad is not None}
        assert list(alone) == list(parameters)
        whole = torch.stack([value.norm() for value in alone.values()]).norm()
        for key, value in alone.items():
            difference = (each[key][index] - value).norm()
            # What is 0 but for rounding, such as a bias before a normalisation, is measured by the whole.
            assert difference <= 1e-9 * max(value.norm(), 1e-3 * whole), key


@pytest.mark.parametrize(("name", "dimensions"), EACH)
def test_every_parameter_is_used_and_has_one_name(name: str, dimensions: int) -> None:
    job = a_job(name, smallest(name, dimensions))
    network = networks.build(job)
    named = list(network.named_parameters(remove_duplicate=False))
    assert len({id(value) for _, value in named}) == len(named)
    assert all(value.dtype == torch.float32 and value.requires_grad for _, value in named)
    assert {key for key, _ in named} == set(network.state_dict())  # no buffers, nothing else
    images, targets = a_batch(job, 2)
    loss(network(images), targets).backward()
    assert [key for key, value in named if value.grad is None] == []


@pytest.mark.parametrize(("name", "dimensions"), EACH)
def test_images_never_meet_and_nothing_is_drawn_while_training(name: str, dimensions: int) -> None:
    job = a_job(name, smallest(name, dimensions))
    network = networks.build(job)
    assert network.training
    images, _ = a_batch(job, 2)
    state = torch.random.get_rng_state()
    with torch.no_grad():
        both = network(images)
        again = network(images)
        alone = torch.cat([network(images[:1]), network(images[1:])])
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(both, again)
    assert torch.allclose(both, alone, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    assert not any(getattr(module, "inplace", False) for module in network.modules())
    shape = job.images.size if job.task == "segmentation" else ()
    assert both.shape == (2, 3, *shape)


@pytest.mark.parametrize("name", networks.NAMES)
def test_equal_seeds_give_equal_weights_and_leave_no_trace(name: str) -> None:
    job = a_job(name, smallest(name, 2))
    state = torch.random.get_rng_state()
    networks.check(job)
    first = networks.build(job).state_dict()
    assert torch.equal(state, torch.random.get_rng_state())
    torch.rand(7)  # whatever happened in the process before
    second = networks.build(job).state_dict()
    other = networks.build(a_job(name, smallest(name, 2), seed=1)).state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", networks.NAMES)
@pytest.mark.parametrize("size", [(4, 4), (17, 40), (16, 32, 24)])
def test_the_check_of_a_size_says_what_really_happens(name: str, size: tuple[int, ...]) -> None:
    job = a_job(name, size)
    try:
        with torch.no_grad():
            logits = networks.build(job)(a_batch(job, 1)[0])
        works = job.task == "classification" or logits.shape[2:] == size
    except (RuntimeError, ValueError, BadInput):
        works = False
    if works:
        networks.check(job)
        return
    with pytest.raises(BadInput, match=r"^\[images\] size") as refused:
        networks.check(job)
    advised = str(refused.value).rpartition("[")[2].rstrip("]").split(", ")
    networks.check(a_job(name, tuple(map(int, advised))))


@pytest.mark.parametrize(
    ("options", "size", "expected"),
    [
        ({}, (90, 121), "expected multiples of 4 in every axis: try [88, 120]"),
        ({"strides": [3, 3]}, (96, 128), "expected multiples of 9 in every axis: try [99, 126]"),
        ({"strides": [[1, 2], [1, 2]]}, (7, 31), "expected multiples of [1, 4]: try [7, 32]"),
    ],
)
def test_a_size_the_network_cannot_take_is_refused_with_one_it_can(
    options: dict[str, Any], size: tuple[int, ...], expected: str
) -> None:
    with pytest.raises(BadInput, match="images") as error:
        networks.check(a_job("UNet", size, **options))
    assert f"UNet cannot take {list(size)}; {expected}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("UNet", {"chanels": [8, 16]}, "[network] chanels: unknown to UNet, did you mean channels"),
        ("UNet", {"in_channels": 3}, "[network] in_channels: cannot be given: the job says it elsewhere"),
        ("UNet", {"spatial_dims": 3}, "[network] spatial_dims: cannot be given"),
        ("ViT", {"img_size": [8, 8]}, "[network] img_size: cannot be given"),
        (
            "DynUNet",
            {"deep_supervision": True},
            "[network] deep_supervision: cannot be given: training takes one output",
        ),
        ("DenseNet121", {"pretrained": True}, "[network] pretrained: unknown to DenseNet121"),
        ("UNet", {"bias": "no"}, "[network] bias: got 'no', expected true or false"),
        ("UNet", {"dropout": "much"}, "[network] dropout: got 'much', expected a number"),
        ("UNet", {"channels": 8}, "[network] channels: got 8, expected a list"),
        ("UNet", {"channels": [8, 16, 32], "strides": [2]}, "[network] channels, strides: UNet cannot be made so: the"),
        ("UNet", {"channels": [8, 16], "strides": [2, 2]}, "[network] channels, strides: UNet cannot be made so: `len"),
        ("UNet", {"channels": [-1, 2]}, "[network] channels: UNet cannot be made so"),
        ("UNet", {"norm": "grup", "num_res_units": 1}, "[network] norm: UNet cannot be made so"),
        (
            "ViT",
            {"num_heads": 5, "qkv_bias": True},
            "[network] num_heads: ViT cannot be made so: hidden_size should be",
        ),
        ("DynUNet", {"strides": [2, 2, 2]}, "[network] strides: DynUNet cannot be made so: it gives [8, 8] for images"),
    ],
)
def test_a_wrong_option_is_refused_by_its_key(name: str, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(BadInput) as error:
        networks.check(a_job(name, **options))
    assert str(error.value).startswith(expected)


@pytest.mark.parametrize(
    ("name", "task", "expected"),
    [
        ("ViT", "segmentation", "ViT is for classification; for segmentation: UNet, BasicUNet"),
        ("UNet", "classification", "UNet is for segmentation; for classification: DenseNet121, ResNet18"),
        ("unet", "segmentation", "there is no 'unet', did you mean UNet; for segmentation: UNet"),
        ("Nothing", "classification", "there is no 'Nothing'; for classification: DenseNet121"),
    ],
)
def test_a_network_for_the_other_task_is_refused_with_those_that_fit(name: str, task: str, expected: str) -> None:
    for refuse in (networks.check, networks.build):
        with pytest.raises(BadInput) as error:
            refuse(a_job(name, task=task))
        assert str(error.value).startswith(f"[network] name: {expected}")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("UNet", {"channels": [6, 12, 20, 36]}),  # group counts that divide
        ("UNet", {"norm": "batch", "num_res_units": 2, "act": "relu"}),
        ("UNet", {"norm": "instance", "strides": [2, 2, 2]}),
        ("SegResNet", {"init_filters": 4, "blocks_down": [1, 1], "upsample_mode": "nontrainable", "act": "PRELU"}),
        ("DynUNet", {"res_block": True, "filters": [4, 8, 12], "norm_name": "instance"}),
        ("DynUNet", {"strides": [1, [1, 2], 2], "kernel_size": [3, [1, 3], 3]}),
        ("ViT", {"pos_embed_type": "sincos", "num_layers": 1}),
        ("EfficientNetB0", {"drop_connect_rate": 0.2, "dropout_rate": 0.2}),
        ("ResNet18", {"no_max_pool": True, "widen_factor": 0.5}),
    ],
)
def test_options_of_the_job_reach_monai_and_the_gradients_stay_exact(name: str, options: dict[str, Any]) -> None:
    job = a_job(name, (32, 32), **options)
    networks.check(job)
    network = networks.build(job)
    images, targets = a_batch(job, 2)
    parameters = {key: value.detach() for key, value in network.named_parameters() if value.requires_grad}
    network.eval()  # without the dropouts that some of them ask for

    def of_one(parameters: dict[str, Tensor], image: Tensor, target: Tensor) -> Tensor:
        return loss(functional_call(network, parameters, (image[None],)), target[None])

    together = vmap(grad(of_one), in_dims=(None, 0, 0))(parameters, images, targets)
    loss(network(images), targets).backward()
    for key, value in network.named_parameters():
        if value.requires_grad:
            assert torch.allclose(together[key].mean(0), value.grad, rtol=1e-3, atol=1e-5), key  # type: ignore[arg-type]
    assert list(network.buffers()) == []


def test_a_dropout_that_is_asked_for_is_drawn_for_each_image() -> None:
    network = networks.build(a_job("UNet", dropout=0.5))
    image = torch.randn(1, 2, 16, 16)
    forward = vmap(lambda one: network(one[None])[0], randomness="different")
    first, second = forward(image.repeat(2, 1, 1, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("channels", "expected"), [(1, 1), (2, 1), (6, 3), (16, 8), (20, 5), (13, 1), (320, 8)])
def test_group_counts_divide_the_channels(channels: int, expected: int) -> None:
    assert groups(channels) == expected


def test_describe_says_what_a_job_gets() -> None:
    rows = {row["name"]: row for row in networks.describe()}
    assert tuple(rows) == networks.NAMES
    for name, row in rows.items():
        assert row["task"] in ("segmentation", "classification")
        networks.check(a_job(name, (64, 64), **row["options"]))
    standard = a_job("UNet", (64, 64)).model_dump(mode="json", exclude_none=True)
    standard |= {"images": {"size": [64, 64]}, "classes": ["0", "1"]}
    network = networks.build(Job.from_dict(standard))
    assert rows["UNet"]["parameters_2d"] == sum(value.numel() for value in network.parameters())


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = "import sys, shared.networks, shared.tasks; print({'torch', 'monai', 'numpy'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
