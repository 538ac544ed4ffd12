"""A hospital's devices: what a CT scanner and an X-ray device do to what they see, and how they store it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID, ExplicitVRLittleEndian
from scipy import ndimage

from simulations.phantoms.abdomen import Habitus, Phase
from simulations.phantoms.shapes import Grid, Volume, random_field

Stored = NDArray[np.int16] | NDArray[np.uint16]


@dataclass(frozen=True)
class Storage:
    """How a device writes its pixels: stored = (value - intercept) / slope, clipped to the bits.

    Attributes:
        order: InstanceNumber from the head, from the feet, or mixed up.
        suffix: of the files' names; some devices give none.
    """

    transfer_syntax: UID = ExplicitVRLittleEndian
    bits: int = 16
    signed: bool = True
    slope: float = 1.0
    intercept: float = 0.0
    order: str = "head"
    suffix: str = ".dcm"

    def encode(self, values: Volume) -> Stored:
        """Values (Hounsfield units, or grey levels) as stored."""
        low, high = (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1) if self.signed else (0, 2**self.bits - 1)
        rounded = np.rint((values - self.intercept) / self.slope).clip(low, high)
        stored: Stored = rounded.astype(np.int16 if self.signed else np.uint16)
        return stored


@dataclass(frozen=True)
class CT:
    """A computed tomography scanner and its abdominal protocol.

    Attributes:
        matrix, slices: relative to the size asked for, so that every hospital has its own voxels.
        field_of_view, coverage: millimetres in the slice, and along the body.
        height: of the middle of that over the middle of the liver: protocols reach further up or down.
        blur: deviation of the point spread in the slice, in mm; sharpen: share of unsharp masking after it.
        noise: deviation in HU in the middle of a patient 300 mm wide; grain: its correlation length in mm;
            streaks: share of the noise that runs across the patient.
        phase, habitus: of the protocol and the patients.
    """

    manufacturer: str
    model: str
    kernel: str
    kvp: int
    matrix: float
    slices: float
    field_of_view: float
    coverage: float
    height: float
    blur: float
    sharpen: float
    noise: float
    grain: float
    streaks: float
    phase: Phase
    habitus: Habitus
    storage: Storage

    def grid(self, size: tuple[int, ...]) -> Grid:
        """The voxels of this scanner where the reference scanner has `size` (rows, columns, slices)."""
        rows, columns = (max(8, 2 * round(count * self.matrix / 2)) for count in size[:2])
        slices = max(4, round(size[2] * self.slices))
        step = round(self.field_of_view / max(rows, columns), 4)
        return Grid((rows, columns, slices), (step, step, round(self.coverage / slices, 4)), self.height)

    def image(self, rng: np.random.Generator, hu: Volume, grid: Grid) -> Volume:
        """Blur, sharpen and noise, as the reconstruction of a real scan has them (HU, axes as given)."""
        sigma = (self.blur / grid.spacing[0], self.blur / grid.spacing[1], 0.35)
        image: Volume = ndimage.gaussian_filter(hu, sigma)
        if self.sharpen:
            image += self.sharpen * (image - ndimage.gaussian_filter(image, (1.0, 1.0, 0)))
        image += self._noise(rng, hu, grid)
        return image

    def _noise(self, rng: np.random.Generator, hu: Volume, grid: Grid) -> Volume:
        grain = self.grain / grid.spacing[0]
        noise = random_field(rng, grid.shape, (grain, grain, 0.3))
        if self.streaks:
            noise = (1 - self.streaks) * noise + self.streaks * random_field(rng, grid.shape, (0.3, 6.0, 0.3))
        x, y, _ = grid.coordinates()
        width = np.ptp(x[0, (hu > -300).any(axis=(0, 2)), 0])  # of the patient; X-rays fade with it
        middle = 0.55 + 0.45 * np.exp(-(x * x + 1.5 * y * y) / 110**2)
        noise *= self.noise * float(np.clip(width / 300, 0.5, 1.6)) ** 1.5 * middle
        return noise


@dataclass(frozen=True)
class XRay:
    """A chest X-ray device.

    Attributes:
        field_of_view: millimetres along the longer side.
        blur: deviation of the point spread in mm; noise: share of the full scale;
            grain: its correlation in pixels.
        gamma, window: of the curve from attenuation to grey; window is the share of the attenuations that it spreads.
        electrodes: mean number of ECG electrodes and calcified old foci.
        heart: relative width of the hospital's patients' hearts.
        monochrome1: whether low values are white.
        computed: whether it is computed radiography (CR) rather than digital (DX).
    """

    manufacturer: str
    model: str
    matrix: float
    field_of_view: float
    blur: float
    noise: float
    grain: float
    gamma: float
    window: tuple[float, float]
    electrodes: float
    heart: float
    monochrome1: bool
    computed: bool
    storage: Storage

    def shape(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns of this device where the reference device has `size`."""
        rows, columns = (max(16, 2 * round(count * self.matrix / 2)) for count in size)
        return rows, columns
