"""Absurd networks are refused before they take time or memory, and so are those that torch computes wrong."""

import time

import pytest
import torch
from torch import nn

from shared import networks
from shared.errors import BadInput
from shared.job import Job
from shared.networks import bounds
from shared.networks.construction import construct


def with_network(name: str, size=(16, 16), **options) -> Job:
    return Job.from_dict(
        {"name": "any", "task": networks.ENTRIES[name].task, "classes": ["a", "b"], "images": {"size": size}}
        | {"network": {"name": name, **options}, "privacy": {"mode": "none"}}
    )


ABSURD = [
    ("UNet", {"channels": [4, 8], "strides": [2], "num_res_units": 10**6}, "layers"),
    ("UNet", {"num_res_units": 10**9}, "number above"),
    ("UNet", {"channels": [400_000, 800_000], "strides": [2]}, "parameters"),
    ("UNet", {"strides": [2] * 100_000}, "list of 100000"),
    ("DynUNet", {"kernel_size": [[3] * 10_000]}, "list of 10000"),
    ("ViT", {"num_layers": 10**6}, "layers"),
    ("ViT", {"hidden_size": 960_000}, "parameters"),
    ("EfficientNetB0", {"depth_coefficient": 1e6}, "layers"),
    ("EfficientNetB0", {"width_coefficient": 1e6}, "parameters"),
    ("DenseNet121", {"growth_rate": 10**6}, "parameters"),
    ("SegResNet", {"blocks_down": [10**6, 1]}, "layers"),
]


@pytest.mark.parametrize("ask", [networks.check, networks.build])
@pytest.mark.parametrize(("name", "options", "why"), ABSURD)
def test_an_absurd_option_is_refused_within_seconds(ask, name, options, why):
    started = time.monotonic()
    with pytest.raises(BadInput, match=rf"\[network\].*{next(iter(options))}.*{why}"):
        ask(with_network(name, **options))
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("name", networks.NAMES)
def test_the_bounds_are_far_from_any_network_there_is(name, monkeypatch):
    layers = []
    monkeypatch.setattr(bounds, "MOST_LAYERS", bounds.MOST_LAYERS // 4)
    monkeypatch.setattr(bounds, "MOST_PARAMETERS", bounds.MOST_PARAMETERS // 4)
    for size in ((64, 64), (64, 64, 64)):
        with torch.device("meta"):
            made = construct(
                networks.ENTRIES[name],
                networks.ENTRIES[name].defaults({}, len(size)),
                of := with_network(name, size),
                of.images.size,
            )
        layers.append(len(list(made.modules())))
    assert max(layers) < bounds.MOST_LAYERS


def test_what_is_made_outside_is_not_counted(monkeypatch):
    monkeypatch.setattr(bounds, "MOST_LAYERS", 3)
    with pytest.raises(bounds.TooLarge), bounds.counted():
        nn.Sequential(*[nn.Identity() for _ in range(4)])
    assert len(nn.Sequential(*[nn.Identity() for _ in range(4)])) == 4


@pytest.mark.parametrize("first", [4, 5, 6, 7])
def test_a_first_axis_that_onednn_computes_wrong_is_refused_with_one_that_works(first):
    # With 5, the process ends in the backward pass; with 6 and 7, gradients are not finite.
    with pytest.raises(BadInput, match=r"\[images\] size.*expected at least 8"):
        networks.check(with_network("ResNet18", (first, 32, 32)))


@pytest.mark.parametrize("size", [(8, 32, 32), (9, 16, 16), (32, 5, 5), (5, 32)])
def test_what_is_not_refused_has_the_exact_gradient(size):
    job = with_network("ResNet18", size)
    networks.check(job)
    network = networks.build(job)
    image = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0))
    network(image).square().sum().backward()
    exact = networks.build(job).double()
    exact(image.double()).square().sum().backward()
    for ours, true in zip(network.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.double(), true.grad, rtol=1e-2, atol=1e-3 * float(true.grad.abs().max()))
