"""The liver of a phantom: two lobes under the diaphragm, with veins, gall bladder and lesions. Labels outline it."""

from __future__ import annotations

import numpy as np

from simulations.phantoms.abdomen import BACKGROUND, LESION, LIVER, Abdomen
from simulations.phantoms.shapes import Ellipsoid, Triple, Volume, inside, paint, random_field


def add(body: Abdomen, *, with_lesions: bool) -> None:
    """Draw a liver into an abdomen, and `LIVER` and `LESION` into its labels.

    A voxel belongs to what fills more than half of it.
    """
    right = body.blob((-64, -4, 10), (66, 76, 78), bumps=0.06)
    left = body.blob((-4, -44, 26), (62, 34, 38), bumps=0.08, wander=6)
    distance = _distance(body, right, left)
    share = inside(distance, body.edge)
    body.labels[share > 0.5] = LIVER
    parenchyma = body.level(body.phase.liver) + 5 * random_field(body.rng, body.grid.shape, (1.1, 1.1, 0.7))
    _veins(body, parenchyma, right.centre[2])
    if with_lesions:
        _lesions(body, parenchyma, distance)
    paint(body.hu, share, parenchyma)
    bladder = body.blob((-38, -50, -36), (15, 15, 26), wander=5, vary=0.15)
    box = body.grid.around(bladder.centre, bladder.reach)
    gall = inside(bladder.distance(*body.grid.coordinates(box)), body.edge)
    paint(body.hu[box], gall, 8.0)
    body.labels[box][gall > 0.5] = BACKGROUND


def _distance(body: Abdomen, right: Ellipsoid, left: Ellipsoid) -> Volume:
    """Millimetres outside the two lobes, which give way to the wall, the diaphragm, the kidneys and the spine."""
    x, y, z = body.grid.coordinates()
    distance: Volume = np.minimum(right.distance(x, y, z), left.distance(x, y, z))
    spine: Volume = 28 - 28 * np.hypot(x / 30, (y - 50) / 34)
    distance = np.maximum(distance, body.room + 1)
    for kidney in body.kidneys:
        distance = np.maximum(distance, 3 - kidney.distance(x, y, z))
    return np.maximum(distance, spine)


def _veins(body: Abdomen, parenchyma: Volume, height: float) -> None:
    """Veins that fan out from the hilum through the parenchyma, thinner outwards."""
    x, y, z = body.grid.coordinates()
    dx, dy, dz = x + 30 * body.size, y - 8, z - (height - 5)
    square = dx * dx + dy * dy + dz * dz
    for _ in range(7):
        heading = body.rng.standard_normal(3) * (1, 1, 0.6) + (-1.1, -0.3, 0.2)
        ex, ey, ez = (heading / np.linalg.norm(heading)).astype(np.float32)
        along = dx * ex + dy * ey + dz * ez
        across = np.sqrt(np.maximum(square - along * along, 0))
        width = np.clip(6 - along / 22, 0.5, 6)
        paint(parenchyma, inside(across - width, 1.5 * body.edge) * (along > 0) * 0.8, body.phase.vessels)


def _lesions(body: Abdomen, parenchyma: Volume, distance: Volume) -> None:
    """One large lesion well inside the organ and up to two smaller ones, each with a rim and a mottled middle."""
    rng, phase = body.rng, body.phase
    deep = np.argwhere(distance <= -min(18.0, 0.6 * float(-distance.min())))
    for number in range(int(rng.choice((1, 2, 3), p=(0.5, 0.3, 0.2)))):
        row, column, level = deep[rng.integers(len(deep))]
        centre: Triple = (
            float(body.grid.axis(1)[column]),
            float(body.grid.axis(0)[row]),
            float(body.grid.axis(2)[level]),
        )
        radius = float(rng.uniform(28, 46) if number == 0 else rng.uniform(16, 28))
        lesion = Ellipsoid.random(rng, centre, (radius, radius, radius), wander=2, vary=0.12, bumps=0.09)
        box = body.grid.around(lesion.centre, lesion.reach)
        surface = lesion.distance(*body.grid.coordinates(box))
        middle = body.level(phase.lesion) + 6 * random_field(rng, surface.shape, (1.2, 1.2, 0.8))
        share = inside(surface, body.edge)
        paint(parenchyma[box], share, body.level(phase.rim))
        paint(parenchyma[box], inside(surface + 6, body.edge), middle)
        part = body.labels[box]
        part[(share > 0.5) & (part == LIVER)] = LESION
