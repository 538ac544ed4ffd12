"""A map of where each class tends to be, learnt beside a network: few numbers, and nearly the same in every patient.

Images that are framed alike (a crop around an organ, a scan from shoulder to hip, a lesion in the middle) say by the
place alone much of what a voxel is. A convolution does not know its place and learns it from little, slowly; a coarse
map of logits, interpolated to the image's size and added to the network's own, learns it in a few steps. Under
differential privacy that matters most: all patients' gradients of the map point the same way, the noise does not.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# A step of the map's parameters moves the logits so many times: else it would learn more slowly than the network.
GAIN = 10.0


class Atlas(nn.Module):
    """A segmentation network whose logits have a smooth map added, which begins as zero.

    Args:
        network: (B, C, *size) → logits (B, K, *size).
        classes: K.
        size: of the images.
        every: voxels from one knot of the map to the next, about.
    """

    def __init__(self, network: nn.Module, *, classes: int, size: tuple[int, ...], every: int) -> None:
        super().__init__()
        self.network = network
        knots = [max(2, math.ceil(count / every)) for count in size]
        self.atlas = nn.Parameter(torch.zeros(1, classes, *knots))

    def forward(self, images: Tensor) -> Tensor:
        """The network's logits and the map's."""
        logits: Tensor = self.network(images)
        # One row an image, from which each patient's share of the gradient is taken.
        atlas = self.atlas.expand(len(images), *self.atlas.shape[1:])
        for axis, count in enumerate(images.shape[2:], start=2):
            atlas = (atlas.movedim(axis, -1) @ _linear(atlas, atlas.shape[axis], count)).movedim(-1, axis)
        return logits + GAIN * atlas


def _linear(like: Tensor, knots: int, count: int) -> Tensor:
    """The matrix (knots, count) of linear interpolation; a product with it is deterministic on every device."""
    unit = torch.eye(knots, device=like.device, dtype=like.dtype)[None]
    return F.interpolate(unit, size=count, mode="linear", align_corners=True)[0]
