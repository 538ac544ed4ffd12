"""Light augmentation: image and mask stay together, and the image stays what it was for everybody else."""

import numpy as np
import pytest
import torch

from client.training.augmentation import light


@pytest.mark.parametrize("size", [(8, 10), (6, 8, 4)])
def test_image_and_mask_are_flipped_together(size):
    masks = (torch.rand(64, 1, *size) < 0.3).long()
    images = masks.float() * 10
    flipped, targets = light(images, masks, np.random.default_rng(0))
    for before, image, target in zip(masks, flipped, targets, strict=True):
        assert ((image > image.mean()) == target.bool()).all()
        assert int(target.sum()) == int(before.sum())
    same = [bool((a == b).all()) for a, b in zip(masks, targets, strict=True)]
    assert 0 < sum(same) < 64 * 0.6  # of 2 axes a quarter stays, of 3 an eighth


def test_intensities_move_a_little_and_each_image_by_itself():
    images = torch.randn(200, 1, 12, 12) * 3 + 1
    changed, _ = light(images, torch.zeros(200, dtype=torch.int64), np.random.default_rng(0))
    ratio = changed.flatten(1).std(1) / images.flatten(1).std(1)
    assert 0.899 < float(ratio.min()) < 0.92
    assert 1.08 < float(ratio.max()) < 1.101
    assert float((changed.flatten(1).mean(1) - images.flatten(1).mean(1)).abs().max()) < 0.1 * (3.3 + 1.4)


def test_what_the_cohort_keeps_is_not_written_into():
    images, masks = torch.randn(8, 1, 6, 6), torch.ones(8, 1, 6, 6, dtype=torch.int64)
    kept = images.clone(), masks.clone()
    light(images, masks, np.random.default_rng(0))
    assert torch.equal(images, kept[0])
    assert torch.equal(masks, kept[1])


def test_classes_of_whole_images_stay():
    classes = torch.arange(5)
    assert torch.equal(light(torch.randn(5, 3, 6, 6), classes, np.random.default_rng(0))[1], classes)
