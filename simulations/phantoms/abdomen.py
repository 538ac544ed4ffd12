"""An upper abdomen in computed tomography, in Hounsfield units, before a scanner adds its faults. `liver` completes it.

Every patient is drawn anew: habitus and organs vary in size, place and outline. Sizes follow anatomy textbooks;
attenuations follow the phase of contrast that the hospital's protocol uses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.phantoms.shapes import Ellipsoid, Grid, Triple, Volume, inside, paint, random_field

BACKGROUND, LIVER, LESION = range(3)


@dataclass(frozen=True)
class Phase:
    """Attenuation in Hounsfield units under a hospital's contrast protocol, as means over patients.

    Attributes:
        liver, lesion, rim: of the parenchyma, of a lesion's middle and of its outermost millimetres.
        vessels: of the veins in the liver and the vena cava; aorta: of the aorta.
        spread: deviation between patients, of every organ.
    """

    liver: float
    lesion: float
    rim: float
    vessels: float
    aorta: float
    spleen: float
    kidney: float
    spread: float = 5.0


@dataclass(frozen=True)
class Habitus:
    """What a hospital's patients look like: millimetres of fat under the skin (mean, deviation), relative size."""

    fat: float = 16.0
    fat_spread: float = 5.0
    size: float = 1.0


class Abdomen:
    """One patient on one scanner's grid, without a liver.

    Attributes:
        hu: Hounsfield units; rows × columns × slices, from the feet up.
        labels: `BACKGROUND`, on the same grid.
        size: of this patient, relative to the mean.
        edge: width of the border between two tissues in millimetres: about a voxel.
        cavity: millimetres outside the inner wall of the trunk; dome: millimetres above the diaphragm.
        room: millimetres outside of what is left for the abdominal organs.
        kidneys: their shapes, right and left.
    """

    def __init__(self, rng: np.random.Generator, grid: Grid, phase: Phase, habitus: Habitus) -> None:
        self.rng, self.grid, self.phase = rng, grid, phase
        self.edge = float(np.mean(grid.spacing[:2]))
        self.size = habitus.size * float(np.exp(0.04 * rng.standard_normal()))
        self.fat = float(np.clip(habitus.fat + habitus.fat_spread * rng.standard_normal(), 4, 42))
        self.hu: NDArray[np.float32] = np.full(grid.shape, -1000, np.float32)
        self.labels: NDArray[np.uint8] = np.full(grid.shape, BACKGROUND, np.uint8)
        self.cavity = self._wall()
        self._trunk()
        self.dome = self._lungs()
        self._spine()
        self.room = np.maximum(self.cavity + 2, self.dome + 1)
        self.kidneys: list[Ellipsoid] = []
        self._organs()

    def level(self, mean: float) -> float:
        """This patient's attenuation, around the protocol's mean."""
        return mean + self.phase.spread * float(self.rng.standard_normal())

    def blob(
        self, centre: Triple, axes: Triple, *, wander: float = 4, vary: float = 0.08, bumps: float = 0.05
    ) -> Ellipsoid:
        """An organ's shape around a mean centre and half-axes (mm, for a patient of size 1); see `Ellipsoid.random`."""
        s = self.size
        middle = (centre[0] * s, centre[1] * s, centre[2])
        halves = (axes[0] * s, axes[1] * s, axes[2] * s)
        return Ellipsoid.random(self.rng, middle, halves, wander=wander, vary=vary, bumps=bumps)

    def fill(self, shape: Ellipsoid, value: float, *, texture: float = 0.0, within: Volume | None = None) -> None:
        """Paint a shape with one attenuation and a coarse texture of this deviation, cut off where `within` > 0 mm."""
        box = self.grid.around(shape.centre, shape.reach)
        part = self.hu[box]
        if not part.size:
            return
        level: Volume | float = value
        if texture:
            level = value + texture * random_field(self.rng, part.shape, (1.2, 1.2, 0.8))
        distance = shape.distance(*self.grid.coordinates(box))
        if within is not None:
            distance = np.maximum(distance, within[box])
        paint(part, inside(distance, self.edge), level)

    def _wall(self) -> Volume:
        """Millimetres outside the inner wall: a rounded box with gentle ripples, a little wider or narrower upwards."""
        rng, (x, y, z) = self.rng, self.grid.coordinates()
        wide, deep = 128 * self.size, 92 * self.size
        angle = np.arctan2(y / deep, x / wide)
        ripple = 0.03 * rng.standard_normal() / 80 * z
        for waves in (2, 3, 4):
            ripple = ripple + 0.018 * rng.standard_normal() * np.cos(waves * angle + rng.uniform(0, 6.3))
        relative = (np.abs(x / wide) ** 2.35 + np.abs(y / deep) ** 2.35) ** (1 / 2.35) + 1e-3
        wall: Volume = (np.hypot(x, y) * (1 - (1 + ripple) / relative)).astype(np.float32)
        return wall

    def _trunk(self) -> None:
        """Couch, skin, fat, muscle, ribs, and a cavity of fat and bowel."""
        rng, (x, y, z) = self.rng, self.grid.coordinates()
        muscle = 11 * self.size
        # Fat lies thicker on the flanks than on the belly and the back.
        skin = self.cavity - muscle - self.fat * (0.7 + 0.6 * (x / np.hypot(x, y).clip(1)) ** 2)
        back = 92 * self.size + muscle + self.fat * 0.75
        couch = np.abs(np.hypot(x, y + 330) - (344 + back)) - 5
        paint(self.hu, inside(couch, self.edge) * (np.abs(x) < 190), -550.0)
        paint(self.hu, inside(skin, self.edge), 40.0)
        paint(self.hu, inside(skin + 3, self.edge), -102.0)
        paint(self.hu, inside(self.cavity - muscle, self.edge), self.level(52))
        # Ribs slope down to the front and end where the belly begins.
        height = (z - 0.5 * y + 0.12 * np.abs(x) + rng.uniform(0, 27)) % 27 - 13.5
        ribs = inside(np.abs(self.cavity - 5) - 4.5, self.edge)
        ribs = ribs * inside(np.abs(height) - 5.5, max(self.edge, self.grid.spacing[2] * 0.7))
        paint(self.hu, ribs * ((z - 0.5 * y > -75) & (y > -78 * self.size)), 480.0)
        bowel = random_field(rng, self.grid.shape, tuple(13 / step for step in self.grid.spacing))
        content = 28 + 14 * random_field(rng, self.grid.shape, tuple(5 / step for step in self.grid.spacing))
        cavity = inside(self.cavity, self.edge)
        paint(self.hu, cavity, self.level(-92))
        paint(self.hu, cavity * np.clip(1.6 * bowel - 0.2, 0, 1), content)
        paint(self.hu, cavity * np.clip(2.5 * bowel - 4.0, 0, 1) * (y < 15), -700.0)  # gas rises to the front

    def _lungs(self) -> Volume:
        """The bases of both lungs, and heart, gullet and aorta between them; millimetres above the diaphragm."""
        x, y, z = self.grid.coordinates()
        top = 74 + 6 * self.rng.standard_normal()
        right = top - ((x + 55) ** 2 + y**2) / 95
        left = top - 8 - ((x - 62) ** 2 + y**2) / 95
        dome: Volume = (z - np.maximum(right, left)).astype(np.float32)
        heart = np.hypot((x - 14) / 62, (y + 38) / 42) * 50 - 50
        behind = np.hypot(x / 22, (y - 40) / 40) * 28 - 28
        above = inside(-dome, self.grid.spacing[2])
        paint(self.hu, above * inside(self.cavity, self.edge), self.level(45))
        air = above * inside(np.maximum(self.cavity + 2, -np.minimum(heart, behind)), self.edge)
        paint(self.hu, air, -830 + 30 * random_field(self.rng, self.grid.shape, (1.0, 1.0, 0.7)))
        return dome

    def _spine(self) -> None:
        """Vertebrae with discs, the canal, its arch and processes, the muscles beside them, the great vessels."""
        x, y, z = self.grid.coordinates()
        s, rng = self.size, self.rng
        for side in (-1, 1):
            muscle = self.blob((36 * side, 86, 0), (27, 16, 400), wander=1.5, vary=0.04, bumps=0.02)
            self.fill(muscle, self.level(50), texture=6)
        distance = (np.hypot(x / (22 * s), (y - 57 * s) / (18 * s)) - 1) * 19 * s
        height = np.abs((z + rng.uniform(0, 34)) % 34 - 17)  # from the middle of a vertebra
        vertebra = inside(height - 12, self.grid.spacing[2])
        column = inside(distance, self.edge)
        marrow = self.level(190) + 25 * random_field(rng, self.grid.shape, (0.8, 0.8, 0.8))
        paint(self.hu, column, 85.0)  # discs, where there is no vertebra
        paint(self.hu, column * vertebra, marrow)
        paint(self.hu, inside(np.abs(distance + 2.5) - 2.5, self.edge) * vertebra, 430.0)
        ring = np.hypot(x, y - 84 * s) - 11 * s
        arch = inside(np.abs(ring) - 3.5, self.edge) * (y > 75 * s) * vertebra
        spinous = inside(np.hypot(x / 4, (y - 98 * s) / 8) * 4 - 4, self.edge) * vertebra
        transverse = inside(np.hypot(x / 36, (y - 79 * s) / 5) * 5 - 5, self.edge) * (height < 7) * (np.abs(x) > 10)
        paint(self.hu, np.maximum(np.maximum(arch, spinous), transverse), 420.0)
        paint(self.hu, inside(ring + 3, self.edge), 25.0)
        vessel = {"wander": 1.5, "vary": 0.06, "bumps": 0.0}
        self.fill(self.blob((11, 31, 0), (10, 10, 400), **vessel), self.level(self.phase.aorta))
        self.fill(self.blob((-17, 31, 0), (12, 9, 400), **vessel), self.level(self.phase.vessels))

    def _organs(self) -> None:
        """Pancreas, stomach with its bubble of gas, spleen, kidneys with their sinus fat."""
        phase, rng, room = self.phase, self.rng, self.room
        self.fill(self.blob((18, -6, -10), (44, 11, 14)), self.level(phase.liver * 0.5 + 35), texture=8)
        stomach = self.blob((58, -34, 24), (44, 32, 42), bumps=0.08, wander=6)
        self.fill(stomach, 45.0, within=room)
        lumen = stomach.grown(-5)
        self.fill(lumen, float(rng.uniform(5, 60)), within=room + 4)
        surface = lumen.centre[1] - rng.uniform(2, 20)  # of the fluid, in a patient lying on the back
        self.fill(lumen, -930.0, within=np.maximum(room + 4, self.grid.coordinates()[1] - surface))
        self.fill(self.blob((92, 34, 26), (29, 46, 46), bumps=0.06), self.level(phase.spleen), texture=5, within=room)
        for side, height in ((-1, -52), (1, -40)):
            kidney = self.blob((66 * side, 48, height), (27, 25, 52), wander=5)
            self.kidneys.append(kidney)
            self.fill(kidney, self.level(phase.kidney), texture=8, within=room)
            cx, cy, cz = kidney.centre
            sinus = self.blob(((cx - 9 * side) / self.size, (cy - 3) / self.size, cz), (10, 9, 26), wander=1)
            self.fill(sinus, -40.0)
