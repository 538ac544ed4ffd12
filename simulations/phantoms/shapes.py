"""Soft shapes on voxel grids: ellipsoids with random low-order bumps, painted with partial volumes.

A shape is known by its signed distance in millimetres, negative inside. Painted with an edge about one voxel wide,
a voxel on the boundary gets the share of each tissue in it, as a scanner would see it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.floating]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Grid:
    """Voxel centres around the isocentre: x to the patient's left, y to the back, z to the head (DICOM's LPS).

    Attributes:
        shape: rows (along y), columns (along x), slices (along z, from the feet up).
        spacing: millimetres between centres, in the same order.
        height: of the middle slice over the isocentre, in millimetres.
    """

    shape: tuple[int, int, int]
    spacing: Triple
    height: float = 0.0

    def axis(self, index: int) -> Volume:
        """Centres along one array axis, in millimetres."""
        count = self.shape[index]
        middle = self.height if index == 2 else 0.0
        centres: Volume = ((np.arange(count) - (count - 1) / 2) * self.spacing[index] + middle).astype(np.float32)
        return centres

    def coordinates(self, box: tuple[slice, slice, slice] = (slice(None),) * 3) -> tuple[Volume, Volume, Volume]:
        """x, y, z of a box of voxels, shaped to broadcast to rows × columns × slices."""
        y, x, z = (self.axis(index)[box[index]] for index in range(3))
        return x[None, :, None], y[:, None, None], z[None, None, :]

    def around(self, centre: Triple, reach: float) -> tuple[slice, slice, slice]:
        """The box of voxels within `reach` millimetres of a centre (x, y, z) along every axis."""
        slices = []
        for index, middle in enumerate((centre[1], centre[0], centre[2])):
            first, last = np.searchsorted(self.axis(index), (middle - reach, middle + reach))
            slices.append(slice(int(first), int(last)))
        return slices[0], slices[1], slices[2]


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid whose radius varies smoothly with direction.

    Attributes:
        centre: x, y, z in millimetres.
        axes: half-axes along x, y, z in millimetres.
        bumps: rows of (wave vector, phase, amplitude): relative changes of the radius.
    """

    centre: Triple
    axes: Triple
    bumps: NDArray[np.float32]

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        centre: Triple,
        axes: Triple,
        *,
        wander: float = 4.0,
        vary: float = 0.08,
        bumps: float = 0.05,
    ) -> Ellipsoid:
        """A shape around these means.

        Args:
            rng: the patient's.
            centre: mean, in millimetres.
            axes: mean half-axes, in millimetres.
            wander: deviation of the centre in millimetres.
            vary: relative deviation of the half-axes.
            bumps: relative deviation of the radius with direction.
        """
        moved = np.asarray(centre) + wander * rng.standard_normal(3).clip(-2, 2)
        scaled = np.asarray(axes) * np.exp(vary * rng.standard_normal(3).clip(-2, 2))
        waves = rng.uniform(-2.6, 2.6, (4, 3))
        phases = rng.uniform(0, 2 * np.pi, (4, 1))
        amplitudes = bumps / np.sqrt(2) * rng.uniform(0.5, 1.5, (4, 1))
        return cls(
            tuple(moved.tolist()), tuple(scaled.tolist()), np.hstack((waves, phases, amplitudes)).astype(np.float32)
        )

    def grown(self, by: float) -> Ellipsoid:
        """The same shape with half-axes longer by so many millimetres."""
        return replace(self, axes=(self.axes[0] + by, self.axes[1] + by, self.axes[2] + by))

    @property
    def reach(self) -> float:
        """Millimetres from the centre that its surface never exceeds, with room for a soft edge."""
        return max(self.axes) * 1.3 + 12

    def distance(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Signed distance along the ray from the centre, negative inside."""
        dx, dy, dz = x - self.centre[0], y - self.centre[1], z - self.centre[2]
        nx, ny, nz = dx / self.axes[0], dy / self.axes[1], dz / self.axes[2]
        relative = np.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-4)
        radius = np.ones_like(relative)
        for kx, ky, kz, phase, amplitude in self.bumps:
            radius += amplitude * np.sin((kx * nx + ky * ny + kz * nz) / relative + phase)
        distance: Volume = np.sqrt(dx * dx + dy * dy + dz * dz) * (1 - radius / relative)
        return distance


def inside(distance: Volume, edge: float) -> Volume:
    """The share of a voxel inside a surface (0 to 1), from its centre's distance and the width of an edge in mm."""
    share: Volume = np.clip(0.5 - distance / np.float32(edge), 0, 1)
    return share


def paint(volume: Volume, share: Volume, value: Volume | float) -> None:
    """Mix `value` into `volume`, in place, by the share (0 to 1) of each voxel that it fills."""
    volume += share * (value - volume)


def random_field(rng: np.random.Generator, shape: tuple[int, ...], correlation: tuple[float, ...]) -> Volume:
    """A smooth random field of mean 0 and deviation 1; correlation lengths in voxels."""
    field: Volume = rng.standard_normal(shape, dtype=np.float32)
    field = ndimage.gaussian_filter(field, correlation, mode="wrap")
    field -= field.mean()
    field /= field.std() + np.float32(1e-6)
    return field
