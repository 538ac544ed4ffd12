"""Light augmentation: flips of image and mask together, and a small shift and stretch of the intensities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from client.training.drawing import Source

_STRETCH = 0.1  # intensities times 0.9 to 1.1
_SHIFT = 0.1  # and moved by up to a tenth of the image's own standard deviation


def light(images: Tensor, targets: Tensor, source: Source) -> tuple[Tensor, Tensor]:
    """Augment each image by itself.

    Args:
        images: float32 (M, channels, *size); left as they are, copies come back.
        targets: int64 (M, 1, *size), flipped with the images; or (M,), which no flip changes.
        source: of the random numbers.
    """
    axes = list(range(2, images.ndim))
    uniform = torch.from_numpy(source.random(len(images) * (len(axes) + 2))).view(len(images), -1)
    stretch, shift, flips = uniform[:, 0], uniform[:, 1], uniform[:, 2:] < 0.5
    everywhere = (-1, *[1] * (images.ndim - 1))
    deviation = images.flatten(1).std(dim=1, correction=0)
    factor = 1 + _STRETCH * (2 * stretch - 1)
    offset = _SHIFT * (2 * shift - 1) * deviation
    images = images * factor.view(everywhere).float() + offset.view(everywhere).float()
    masks = targets.ndim == images.ndim
    targets = targets.clone() if masks else targets
    for column, axis in enumerate(axes):
        flipped = flips[:, column].nonzero()[:, 0]
        images[flipped] = images[flipped].flip(axis)
        if masks:
            targets[flipped] = targets[flipped].flip(axis)
    return images, targets
