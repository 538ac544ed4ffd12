"""Phantoms for pretraining: pictures of nothing in particular, with their outlines, drawn anew for every step.

A network that has seen shapes of every contrast, texture and sharpness begins a private training at what these have in
common with organs and lesions, and spends its noisy steps on the rest. Randomising contrasts rather than imitating a
scanner is SynthSeg's way (Billot et al. 2023, arXiv:2107.09559). Nobody's images are used: it costs no privacy.

An image is a textured ground with one smooth body, near the middle and of any size, which is the foreground; with
several foreground classes the body is divided, either side by side or one within the other. Thin lines, specks, dark
corners, an uneven field and noise lie over it and belong to no class.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.job import Job


class Phantoms:
    """A stream of phantoms for one shape of images.

    Args:
        size: spatial, two or three axes.
        channels: of the images.
        classes: the background among them.
        seed: the same seed draws the same phantoms.
    """

    def __init__(self, *, size: tuple[int, ...], channels: int, classes: int, seed: int) -> None:
        self._size = size
        self._channels = channels
        self._classes = classes
        self._random = torch.Generator().manual_seed(seed)
        axes = [torch.linspace(-1, 1, count) for count in size]
        self._position = torch.stack(torch.meshgrid(*axes, indexing="ij"))  # (axes, *size), -1 to 1

    @classmethod
    def of(cls, job: Job) -> Phantoms:
        """Phantoms as the job's images are, drawn from its seed."""
        images = job.images
        return cls(size=images.size, channels=images.channels, classes=len(job.classes), seed=job.training.seed)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """So many phantoms.

        Returns:
            Intensities from about 0 to 1, float32 (count, channels, *size), and classes, int64 (count, 1, *size).
        """
        body = self._bodies(count, low=0.15, high=0.8)
        classes = self._divided(body < 0, count)
        images = self._textures(count, contrast=0.5)
        for index in range(1, self._classes):
            tissue = self._textures(count, contrast=0.25)
            images = torch.where(classes == index, self._apart(tissue, images, classes == index), images)
        images = self._blurred(images)
        images = self._covered(images)
        return self._exposed(images), classes

    def _uniform(self, count: int, low: float, high: float, channels: int = 1) -> Tensor:
        """One number an image (and channel), shaped to broadcast."""
        shape = (count, channels, *[1] * len(self._size))
        return low + (high - low) * torch.rand(shape, generator=self._random)

    def _some(self, count: int, share: float) -> Tensor:
        return self._uniform(count, 0, 1) < share

    def _field(self, count: int, grain: float, channels: int = 1) -> Tensor:
        """A smooth random field of deviation about 1; `grain` is its wavelength as a share of the image."""
        knots = [max(2, min(size, round(1 / grain) + 1)) for size in self._size]
        coarse = torch.randn((count, channels, *knots), generator=self._random)
        mode = "bicubic" if len(self._size) == 2 else "trilinear"
        field: Tensor = F.interpolate(coarse, size=self._size, mode=mode, align_corners=True)
        return field

    def _bodies(self, count: int, *, low: float, high: float) -> Tensor:
        """Below 0 within a smooth body: an ellipsoid, turned and dented; (count, 1, *size)."""
        axes = len(self._size)
        centre = 0.35 * torch.randn((count, axes), generator=self._random).clamp(-1.5, 1.5)
        turned, _ = torch.linalg.qr(torch.randn((count, axes, axes), generator=self._random))
        extent = self._uniform(count, low, high).view(count, 1) * torch.exp(
            0.35 * torch.randn((count, axes), generator=self._random)
        )
        offset = self._position.flatten(1)[None] - centre[:, :, None]
        radius = ((turned @ offset) / extent[:, :, None]).norm(dim=1).view(count, 1, *self._size)
        dents = self._uniform(count, 0.05, 0.35) * self._field(count, 0.35) + 0.08 * self._field(count, 0.12)
        body: Tensor = radius + dents - 1
        return body

    def _divided(self, body: Tensor, count: int) -> Tensor:
        """The body as class 1, and the further classes beside it or within it."""
        classes = body.long()
        for index in range(2, self._classes):
            normal = torch.randn((count, len(self._size)), generator=self._random)
            along = (normal.view(count, -1, *[1] * len(self._size)) * self._position[None]).sum(1, keepdim=True)
            beside = along + 0.15 * self._field(count, 0.3) > 0
            within = self._bodies(count, low=0.08, high=0.35) < 0
            part = torch.where(self._some(count, 0.5), beside, within)
            classes = torch.where(body & part, index, classes)
        return classes

    def _textures(self, count: int, *, contrast: float) -> Tensor:
        """Ground or tissue: a colour, unevenness at three scales."""
        level = self._uniform(count, 0.1, 0.9, self._channels)
        for grain in (0.5, 0.12, 0.04):
            amount = self._uniform(count, 0, 0.22 * contrast)
            # Mostly grey unevenness: channels vary together.
            shared = self._field(count, grain).expand(-1, self._channels, *self._size)
            level = level + amount * (0.8 * shared + 0.2 * self._field(count, grain, self._channels))
        return level

    def _apart(self, tissue: Tensor, ground: Tensor, where: Tensor) -> Tensor:
        """The tissue moved away in intensity from what it lies on, where the two would look the same."""
        dims = tuple(range(2, tissue.ndim))
        weight = where.float() + 1e-6
        difference = ((tissue - ground) * weight).sum(dims, keepdim=True) / weight.sum(dims, keepdim=True)
        least = self._uniform(len(tissue), 0.06, 0.3)
        direction = torch.where(self._some(len(tissue), 0.5), 1.0, -1.0)
        close = difference.abs().amax(1, keepdim=True) < least
        return torch.where(close, tissue - difference + direction * least, tissue)

    def _blurred(self, images: Tensor) -> Tensor:
        """Each image a little less sharp, or as it is."""
        soft = images
        for _ in range(2):
            pool = F.avg_pool2d if len(self._size) == 2 else F.avg_pool3d
            soft = pool(soft, 3, stride=1, padding=1, count_include_pad=False)
        share = self._uniform(len(images), 0, 1)
        return share * soft + (1 - share) * images

    def _covered(self, images: Tensor) -> Tensor:
        """Thin lines where a random field changes its sign, and specks where another is highest."""
        count = len(images)
        lines = self._field(count, 0.25).abs() < self._uniform(count, 0, 0.03) * self._some(count, 0.4)
        specks = self._field(count, 0.06) > self._uniform(count, 2.2, 3.5) + 3.0 * ~self._some(count, 0.5)
        colour = self._uniform(count, 0, 1, self._channels)
        return torch.where(lines | specks, colour, images)

    def _exposed(self, images: Tensor) -> Tensor:
        """An uneven field, dark or bright corners, gamma, noise."""
        count = len(images)
        images = images * torch.exp(self._uniform(count, 0, 0.25) * self._field(count, 0.7))
        radius = self._position.square().sum(0).div(len(self._size)).sqrt()[None, None]
        rim = torch.sigmoid((radius - self._uniform(count, 0.75, 1.0)) / 0.05) * self._some(count, 0.3)
        images = images * (1 - rim) + self._uniform(count, 0, 1).round() * rim
        images = images.clamp(0, 1.2) ** torch.exp(self._uniform(count, -0.7, 0.7))
        noise = torch.randn(images.shape, generator=self._random)
        return images + self._uniform(count, 0, 0.12) * noise
