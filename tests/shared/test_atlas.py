"""A map of places is a part of the network like any other, and begins as nothing."""

import numpy as np
import pytest
import torch

from shared import networks
from shared.errors import BadInput
from shared.job import Job
from shared.networks.atlas import GAIN, Atlas


def job_of(size: list[int], **network) -> Job:
    return Job.from_dict(
        {
            "name": "places",
            "task": "segmentation",
            "classes": ["background", "here", "there"],
            "images": {"size": size},
            "network": {"name": "UNet", "channels": [4, 8], "strides": [2], **network},
            "privacy": {"mode": "none"},
        }
    )


@pytest.mark.parametrize(("size", "knots"), [([24, 32], (4, 6)), ([16, 8, 24], (3, 2, 4))])
def test_it_begins_as_nothing_and_has_a_knot_every_so_many_voxels(size, knots):
    plain, mapped = networks.build(job_of(size)), networks.build(job_of(size, atlas=6))
    assert dict(mapped.named_parameters())["atlas"].shape == (1, 3, *knots)
    images = torch.randn(2, 1, *size)
    assert torch.equal(plain(images), mapped(images))


def test_what_it_adds_is_linear_between_its_knots_and_the_same_in_every_image():
    network = networks.build(job_of([14, 18], atlas=4))
    assert isinstance(network, Atlas)
    before = network(torch.zeros(2, 1, 14, 18))
    with torch.no_grad():
        rows, columns = network.atlas.shape[2:]
        slope = torch.linspace(0, 1, rows)[:, None] + 2 * torch.linspace(0, 1, columns)
        network.atlas[0, 1] = slope / GAIN
    added = (network(torch.zeros(2, 1, 14, 18)) - before).detach().numpy()
    expected = np.linspace(0, 1, 14)[:, None] + 2 * np.linspace(0, 1, 18)
    for image in added:
        np.testing.assert_allclose(image[1], expected, atol=1e-5)
        np.testing.assert_allclose(image[[0, 2]], 0, atol=1e-6)


def test_a_job_of_another_task_has_no_map():
    data = job_of([32, 32], atlas=4).model_dump(mode="json", exclude_none=True)
    with pytest.raises(BadInput, match="atlas is for segmentation"):
        Job.from_dict({**data, "task": "classification", "network": {"name": "ResNet18", "atlas": 4}})


@pytest.mark.parametrize("atlas", [0, -1, 2.5, "coarse"])
def test_a_distance_of_knots_is_a_whole_number_from_one(atlas):
    with pytest.raises(BadInput, match=r"network.*atlas"):
        job_of([32, 32], atlas=atlas)
