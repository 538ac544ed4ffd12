"""The hospitals: whose patients, which devices, which protocols. This table is the shift between them, and all of it.

| hospital | CT: covers, phase, kernel                              | lesions  | X-ray                           |
| -------- | ----------------------------------------------------- | -------- | ------------------------------- |
| north    | upper abdomen, portal venous, standard                | darker   | digital, even exposure          |
| south    | down to the pelvis, late arterial, sharp and noisy    | brighter | digital, grainy, ECG electrodes |
| west     | chest and upper liver, no contrast, smooth and thick  | darker   | computed, MONOCHROME1           |
| east     | upper abdomen, portal venous, low dose with streaks   | fainter  | digital, coarse                 |

Further hospitals (`site-05`, …) mix these, drawn from their number alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from simulations.phantoms.abdomen import Habitus, Phase
from simulations.phantoms.scanners import CT, Storage, XRay


@dataclass(frozen=True)
class Hospital:
    """A hospital: its devices, and the share of its patients that have the finding."""

    name: str
    prevalence: float
    ct: CT
    xray: XRay


_PORTAL = Phase(liver=114, lesion=28, rim=60, vessels=165, aorta=155, spleen=122, kidney=185)
_ARTERIAL = Phase(liver=78, lesion=160, rim=172, vessels=92, aorta=270, spleen=128, kidney=190)
_PLAIN = Phase(liver=36, lesion=-6, rim=8, vessels=42, aorta=42, spleen=48, kidney=32)
_LOW_DOSE = Phase(liver=98, lesion=36, rim=56, vessels=135, aorta=130, spleen=110, kidney=165)

_NORTH = Hospital(
    name="north",
    prevalence=0.8,
    ct=CT(
        manufacturer="Phantom Imaging", model="Axial 64", kernel="STANDARD", kvp=120,
        matrix=1.0, slices=1.0, field_of_view=380, coverage=184, height=12,
        blur=3.0, sharpen=0.0, noise=14, grain=4.0, streaks=0.0,
        phase=_PORTAL, habitus=Habitus(fat=16), storage=Storage(),
    ),
    xray=XRay(
        manufacturer="Phantom Imaging", model="Thorax D", matrix=1.0, field_of_view=330,
        blur=1.5, noise=0.012, grain=0.6,
        gamma=1.0, window=(0.3, 1.0), electrodes=0.3, heart=1.0,
        monochrome1=False, computed=False,
        storage=Storage(bits=12, signed=False),
    ),
)  # fmt: skip
_SOUTH = Hospital(
    name="south",
    prevalence=0.5,
    ct=CT(
        manufacturer="Meridian Medical", model="Spiral 16", kernel="B60f", kvp=100,
        matrix=0.88, slices=1.25, field_of_view=450, coverage=240, height=-60,
        blur=2.2, sharpen=0.5, noise=26, grain=2.0, streaks=0.0,
        phase=_ARTERIAL, habitus=Habitus(fat=27, fat_spread=6, size=1.02),
        storage=Storage(JPEGLSLossless, bits=12, signed=False, intercept=-1024, order="feet"),
    ),
    xray=XRay(
        manufacturer="Meridian Medical", model="DX-2", matrix=1.25, field_of_view=345,
        blur=1.0, noise=0.03, grain=0.4,
        gamma=1.5, window=(0.28, 0.95), electrodes=3.5, heart=1.15,
        monochrome1=False, computed=False,
        storage=Storage(JPEGLSLossless, bits=12, signed=False),
    ),
)  # fmt: skip
_WEST = Hospital(
    name="west",
    prevalence=0.2,
    ct=CT(
        manufacturer="Occident Health", model="Tomo 8", kernel="SMOOTH", kvp=120,
        matrix=1.12, slices=0.75, field_of_view=306, coverage=132, height=48,
        blur=5.0, sharpen=0.0, noise=9, grain=7.0, streaks=0.0,
        phase=_PLAIN, habitus=Habitus(fat=22, size=0.96),
        storage=Storage(JPEG2000Lossless, bits=16, signed=False, slope=0.5, intercept=-1200, order="mixed", suffix=""),
    ),
    xray=XRay(
        manufacturer="Occident Health", model="CR 75", matrix=1.1, field_of_view=318,
        blur=3.5, noise=0.02, grain=1.2,
        gamma=0.75, window=(0.2, 1.05), electrodes=0.6, heart=1.3,
        monochrome1=True, computed=True,
        storage=Storage(JPEG2000Lossless, bits=10, signed=False, suffix=""),
    ),
)  # fmt: skip
_EAST = Hospital(
    name="east",
    prevalence=0.35,
    ct=CT(
        manufacturer="Orient Scan", model="LD 32", kernel="C", kvp=80,
        matrix=0.95, slices=1.12, field_of_view=370, coverage=172, height=-8,
        blur=2.6, sharpen=0.3, noise=30, grain=3.0, streaks=0.35,
        phase=_LOW_DOSE, habitus=Habitus(fat=12),
        storage=Storage(RLELossless, bits=12, signed=False, intercept=-1024),
    ),
    xray=XRay(
        manufacturer="Orient Scan", model="Flat 43", matrix=0.85, field_of_view=350,
        blur=2.5, noise=0.025, grain=0.8,
        gamma=1.2, window=(0.25, 1.0), electrodes=1.2, heart=1.0,
        monochrome1=False, computed=False,
        storage=Storage(RLELossless, bits=14, signed=False),
    ),
)  # fmt: skip

HOSPITALS = (_NORTH, _SOUTH, _WEST, _EAST)


def hospital(index: int) -> Hospital:
    """The hospital at this place from 0: the four above, then mixtures of them that depend on the number alone."""
    if index < len(HOSPITALS):
        return HOSPITALS[index]
    rng = np.random.default_rng([0x51735, index])
    ct, storage, xray = (HOSPITALS[rng.integers(len(HOSPITALS))] for _ in range(3))
    return Hospital(
        name=f"site-{index + 1:02d}",
        prevalence=round(float(rng.uniform(0.2, 0.8)), 2),
        ct=replace(
            ct.ct,
            storage=storage.ct.storage,
            noise=round(ct.ct.noise * float(rng.uniform(0.7, 1.4)), 1),
            blur=round(ct.ct.blur * float(rng.uniform(0.8, 1.25)), 2),
            field_of_view=round(ct.ct.field_of_view * float(rng.uniform(0.97, 1.06))),
        ),
        xray=replace(
            xray.xray,
            noise=round(xray.xray.noise * float(rng.uniform(0.7, 1.4)), 4),
            gamma=round(xray.xray.gamma * float(rng.uniform(0.85, 1.2)), 2),
        ),
    )
