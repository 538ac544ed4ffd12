"""A frontal chest radiograph: attenuation along each ray in a patient, then grey levels as a device makes them.

Lengths are millimetres; the patient's right is on the left of the image. An effusion is fluid at the base of a lung,
with a level that climbs along the chest wall.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulations.phantoms.scanners import XRay
from simulations.phantoms.shapes import inside, random_field

Image = NDArray[np.floating]

TISSUE, BONE, METAL = 0.02, 0.055, 0.35  # attenuation per millimetre


@dataclass(frozen=True)
class Chest:
    """What stays the same between a patient's images.

    Attributes:
        size, heart: relative to the mean; thick: millimetres of soft tissue front to back.
        effusions: of each lung that has one, by its side (-1 the patient's right, 1 the left): where the fluid's level
            is, millimetres below the centre of the image.
        seed: of the rest: ribs, vessels, outlines.
    """

    size: float
    heart: float
    thick: float
    effusions: Mapping[int, float]
    seed: int

    @classmethod
    def random(cls, rng: np.random.Generator, device: XRay, *, with_effusion: bool) -> Chest:
        """A patient of a hospital; with an effusion on one side or on both, or none."""
        sides = ((-1,), (1,), (-1, 1))[int(rng.choice(3, p=(0.35, 0.35, 0.3)))] if with_effusion else ()
        return cls(
            size=float(np.exp(0.05 * rng.standard_normal())),
            heart=device.heart * float(np.exp(0.08 * rng.standard_normal())),
            thick=float(np.clip(185 + 22 * rng.standard_normal(), 140, 240)),
            effusions={side: float(rng.uniform(-20, 40)) for side in sides},
            seed=int(rng.integers(2**31)),
        )


def radiograph(chest: Chest, rng: np.random.Generator, device: XRay, size: tuple[int, ...]) -> tuple[Image, float]:
    """One image of a patient: grey levels (0 to 1, white is dense), rows × columns, and its millimetres per pixel.

    Args:
        chest: the patient.
        rng: of this exposure: position, foreign bodies, noise.
        device: the hospital's.
        size: rows and columns of the reference device.
    """
    shape = device.shape(size)
    step = round(device.field_of_view / max(shape), 4)
    shift = rng.normal(0, 5, 2)
    x = ((np.arange(shape[1]) - (shape[1] - 1) / 2) * step - shift[0]).astype(np.float32)[None, :]
    y = ((np.arange(shape[0]) - (shape[0] - 1) / 2) * step - shift[1]).astype(np.float32)[:, None]
    x, y = x / chest.size, y / chest.size
    attenuation = _attenuation(chest, x, y, step)
    attenuation += _foreign(rng, x, y, step, device.electrodes)
    return _expose(attenuation, rng, device, step), step


def _ellipse(x: Image, y: Image, centre: tuple[float, float], axes: tuple[float, float]) -> Image:
    """Height (0 to 1) of an ellipsoid's half over each point: the share of its thickest part that a ray crosses."""
    square = ((x - centre[0]) / axes[0]) ** 2 + ((y - centre[1]) / axes[1]) ** 2
    height: Image = np.sqrt(np.clip(1 - square, 0, None))
    return height


def _attenuation(chest: Chest, x: Image, y: Image, edge: float) -> Image:
    """Of soft tissue, fluid and bone along each ray."""
    rng = np.random.default_rng(chest.seed)
    wide = 176 - 16 * np.tanh((y + 50) / 70) + 5 * rng.standard_normal()  # with the armpits
    shoulders = inside(np.abs(x) - np.where(y < -112, 58 + 3.6 * (y + 160).clip(0), 400), 16.0)
    body = inside(np.abs(x) - wide, edge) * shoulders
    soft = chest.thick * body * (0.55 + 0.45 * np.sqrt(np.clip(1 - (x / wide) ** 2, 0, 1)))
    lungs = _lungs(rng, chest.effusions, x, y, edge) * chest.thick / 185
    soft -= lungs * (0.72 + 0.04 * rng.standard_normal())
    heart = chest.heart * 58
    soft += 95 * _ellipse(x - 0.3 * (y - 40), y, (20, 40), (heart, 54)) + 42 * _ellipse(x, y, (25, -50), (19, 20))
    soft += 40 * np.exp(-((x / 26) ** 2)) + 26 * np.exp(-(((np.abs(x) - 36) / 13) ** 2) - ((y - 2) / 24) ** 2)
    soft -= 16 * inside(np.abs(x - 2) - 7, edge) * (y < -38)  # windpipe
    soft += _vessels(rng, x, y, edge) * (lungs > 20)
    return (TISSUE * soft + BONE * _bones(rng, x, y, edge) * body).astype(np.float32)


def _lungs(rng: np.random.Generator, effusions: Mapping[int, float], x: Image, y: Image, edge: float) -> Image:
    """Millimetres of air along each ray, above the diaphragm and any fluid, and beside the mediastinum."""
    air = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for side, low in ((-1, 62), (1, 72)):
        height = low + 5 * rng.standard_normal()
        dome = height + 0.0042 * (x - 62 * side) ** 2
        across = 60 + 3 * rng.standard_normal() + 0.1 * np.clip(y, -120, 40)
        field = np.abs((x - 72 * side) / across) ** 2.2 + np.abs((y + 5) / 124) ** 2.6
        lung = 175 * np.clip(1 - field, 0, None) ** 0.45 * inside(y - dome, 2 * edge)
        if side in effusions:
            level = effusions[side] - 30 * ((x * side - 45).clip(0) / 70) ** 2
            lung = lung * inside(y - level, 6.0)
        air += lung
    return air


def _bones(rng: np.random.Generator, x: Image, y: Image, edge: float) -> Image:
    """Millimetres of bone: spine, ribs back and front, collar bones, shoulder blades."""
    side, out = np.sign(x), np.abs(x)
    discs = 0.75 + 0.25 * np.cos(2 * np.pi * (y + rng.uniform(0, 24)) / 24)
    bone = 11 * inside(out - 17, edge) * discs
    cage = 132 - 0.0022 * (y - 60).clip(None, 0) ** 2
    start, gap = -128 + 4 * rng.standard_normal(), 22.5
    for number in range(10):
        back = start + gap * number + 0.30 * out - 18 * np.sin(np.pi * np.clip(out / 125, 0, 1)) + 1.5 * side
        front = start + gap * number + 48 - 0.34 * (out - 40)
        for curve, amount, inner, half in ((back, 9.0, 16, 4.5), (front, 4.0, 46, 5.0)):
            rib = inside(np.abs(y - curve) - half, edge) * inside(out - cage, edge) * (out > inner)
            rim = inside(np.abs(np.abs(y - curve) - half + 1) - 1, edge)
            bone = bone + amount * rib * (0.6 + 0.4 * rim)
    collar = -112 - 0.16 * (out - 14) + 5 * np.sin(out / 30) + 2 * rng.standard_normal()
    bone = bone + 11 * inside(np.abs(y - collar) - 5.5, edge) * inside(out - 130, edge) * (out > 12)
    blade = inside(np.abs(out - 122 - 0.12 * y) - 9, edge) * inside(np.abs(y + 62) - 48, 3 * edge)
    return bone + 5 * blade


def _vessels(rng: np.random.Generator, x: Image, y: Image, edge: float) -> Image:
    """Millimetres of vessels that branch from each hilum and thin out."""
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for side in (-1, 1):
        for angle in np.linspace(-1.25, 1.25, 7) + 0.12 * rng.standard_normal(7):
            dx, dy = (x - 34 * side) * side, y - 2
            along = dx * np.cos(angle) + dy * np.sin(angle)
            bend = rng.normal(0, 0.0022) * along**2
            across = np.abs(-dx * np.sin(angle) + dy * np.cos(angle) - bend)
            width = np.clip(4.5 - along / 24, 0.4, None)
            total += 2.2 * width * inside(across - width, edge) * (along > 0) * (along < 95)
    return total


def _foreign(rng: np.random.Generator, x: Image, y: Image, edge: float, mean: float) -> Image:
    """Electrodes with their leads, and small calcified foci, anywhere over the chest, in anybody."""
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for _ in range(rng.poisson(mean)):
        cx, cy = rng.uniform(-105, 105), rng.uniform(-95, 60)
        if rng.random() < 0.6:
            total += METAL * 2.2 * inside(np.hypot(x - cx, y - cy) - 5.5, edge)
            lead = np.abs(x - cx - rng.normal(0, 0.3) * (y - cy) - 8 * np.sin((y - cy) / 40))
            total += METAL * 0.5 * inside(lead - 0.7, edge) * (y > cy)
        else:
            total += BONE * 14 * _ellipse(x, y, (cx, cy), (7, 7))
    return total


def _expose(attenuation: Image, rng: np.random.Generator, device: XRay, step: float) -> Image:
    """Blur, the device's curve from attenuation to grey, and noise that grows where few photons arrive."""
    blurred = ndimage.gaussian_filter(attenuation, device.blur / step, mode="nearest")
    level = (blurred / np.percentile(blurred, 99.7)).clip(0, 1)
    level = 1.5 * level / (level + 0.5)  # film and displays give the thin parts more of the greys
    first, last = device.window
    grey: Image = ((level - first) / (last - first)).clip(0, 1) ** device.gamma
    noise = random_field(rng, attenuation.shape, (device.grain, device.grain))
    grey += device.noise * (0.5 + level) * noise
    return grey.clip(0, 1)
