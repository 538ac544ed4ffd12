"""Images from DICOM instances, by geometry: parallel slices become one volume, everything else is two-dimensional.

File names, instance numbers and slice locations are not looked at: only ImageOrientationPatient and
ImagePositionPatient say where a slice is (PS3.3 C.7.6.2).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from highdicom.spatial import get_volume_positions

from client.data.dicom import Instance
from client.data.pixels import fingerprint
from client.data.records import Affine, Kind, LeftOut, Picture

# Kinds of image that are flat, whatever their headers say about positions.
_FLAT = {"CR", "DX", "MG", "PX", "IO", "US", "XA", "RF", "XC", "ES", "GM", "SM", "OP", "OPT", "DG", "TG"}
# Direction cosines written with few decimals differ by less; the slices of one localizer by far more.
_SAME_DIRECTION = 1e-3
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, kw_only=True)
class Image:
    """A volume or a flat image, made of instances.

    Attributes:
        instances: in geometric order: slice k of the volume is instance k.
    """

    kind: Kind
    patient: str
    series: str
    instances: tuple[Instance, ...]
    picture: Picture


def assemble(instances: Iterable[Instance]) -> tuple[list[Image], list[LeftOut]]:
    """Sort instances into images; every instance ends in an image or is left out with the reason."""
    images: list[Image] = []
    left_out: list[LeftOut] = []
    by_series: dict[tuple[str, str], list[Instance]] = defaultdict(list)
    seen: set[str] = set()
    for instance in instances:
        name = instance.instance or instance.path
        if name in seen:
            left_out.append(LeftOut(instance.path, "a copy of another file here (the same SOPInstanceUID)"))
        elif instance.localizer:
            left_out.append(LeftOut(instance.path, "a localizer"))
        else:
            seen.add(name)
            by_series[instance.patient, instance.series].append(instance)
    for members in by_series.values():
        _assemble_series(members, images, left_out)
    return images, left_out


def _assemble_series(members: list[Instance], images: list[Image], left_out: list[LeftOut]) -> None:
    flat = [member for member in members if not _has_place(member)]
    stacks = _stacks([member for member in members if _has_place(member)])
    is_volumetric = any(len(stack) > 1 for stack in stacks)
    for stack in stacks:
        if len(stack) > 1:
            _add_volume(stack, images, left_out)
        elif is_volumetric:
            reason = "a single image beside the slices of its series, of another orientation or size"
            left_out.append(LeftOut(stack[0].path, reason))
        else:
            flat.append(stack[0])
    images.extend(_flat(instance) for instance in flat)


def _has_place(instance: Instance) -> bool:
    placed = instance.position is not None and instance.orientation is not None and instance.spacing is not None
    return placed and instance.modality not in _FLAT


def _stacks(members: list[Instance]) -> list[list[Instance]]:
    """Instances with the same orientation, size and spacing."""
    stacks: list[list[Instance]] = []
    for member in members:
        for stack in stacks:
            if _parallel(stack[0], member):
                stack.append(member)
                break
        else:
            stacks.append([member])
    return stacks


def _parallel(one: Instance, other: Instance) -> bool:
    same = (one.rows, one.columns, one.channels) == (other.rows, other.columns, other.channels)
    return (
        same
        and np.allclose(one.orientation or (), other.orientation or (), rtol=0, atol=_SAME_DIRECTION)
        and np.allclose(one.spacing or (), other.spacing or (), rtol=_SAME_DIRECTION, atol=0)
    )


def _flat(instance: Instance) -> Image:
    spacing = instance.spacing
    affine: Affine | None = None
    if spacing is not None:
        affine = ((spacing[0], 0.0, 0.0), (0.0, spacing[1], 0.0), (0.0, 0.0, 1.0))
    picture = Picture(
        shape=(instance.rows, instance.columns),
        channels=instance.channels,
        affine=affine,
        minimum=instance.minimum,
        maximum=instance.maximum,
        fingerprint=instance.fingerprint,
        modality=instance.modality,
        manufacturer=instance.manufacturer,
    )
    return Image(
        kind="dicom-image",
        patient=instance.patient,
        series=instance.series,
        instances=(instance,),
        picture=picture,
    )


def _add_volume(stack: list[Instance], images: list[Image], left_out: list[LeftOut]) -> None:
    positions = np.array([instance.position for instance in stack], dtype=np.float64)
    orientation = np.array(stack[0].orientation, dtype=np.float64)
    order = _order(positions, orientation)
    if order is None:
        reason = _why_no_volume(positions, orientation)
        left_out.extend(LeftOut(instance.path, reason) for instance in stack)
        return
    instances = tuple(stack[index] for index in order)
    first = instances[0]
    picture = Picture(
        shape=(first.rows, first.columns, len(instances)),
        channels=first.channels,
        affine=_affine(positions[order], orientation, first.spacing or (1.0, 1.0)),
        minimum=min(instance.minimum for instance in instances),
        maximum=max(instance.maximum for instance in instances),
        fingerprint=fingerprint(np.frombuffer("".join(i.fingerprint for i in instances).encode(), dtype=np.uint8)),
        modality=first.modality,
        manufacturer=first.manufacturer,
    )
    images.append(
        Image(
            kind="dicom-series",
            patient=first.patient,
            series=first.series,
            instances=instances,
            picture=picture,
        )
    )


def _order(positions: npt.NDArray[np.float64], orientation: npt.NDArray[np.float64]) -> list[int] | None:
    """Indices that sort the slices along their normal; None if they are not one regular stack."""
    along = np.sort(positions @ _normal(orientation))
    # Written positions are rounded, to hundredths of a millimetre in the worst case.
    tolerance = max(0.01, 0.02 * float(along[-1] - along[0]) / (len(along) - 1))
    try:
        spacing, places = get_volume_positions(positions.tolist(), orientation.tolist(), atol=tolerance)
    except ValueError:  # directions that are not perpendicular, or of length 0
        return None
    if spacing is None or places is None or spacing < tolerance:
        return None
    return [int(index) for index in np.argsort(places)]


def _normal(orientation: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.cross(orientation[:3], orientation[3:])


def _why_no_volume(positions: npt.NDArray[np.float64], orientation: npt.NDArray[np.float64]) -> str:
    along = np.sort(positions @ _normal(orientation))
    steps = np.diff(along)
    places = 1 + int((steps > 1e-3).sum())
    count = len(along)
    if places < count:
        return (
            f"inconsistent slices: {count} images at {places} positions "
            "(several echoes or times in one series, or copies)"
        )
    usual = float(np.median(steps))
    missing = int(np.round(steps / usual - 1).clip(0).sum())
    if missing:
        where = float(along[int(steps.argmax())])
        return f"inconsistent slices: a gap ({missing} of {count + missing} missing, the largest after {where:.1f} mm)"
    if float(np.ptp(steps)) > 0.02 * usual:
        return f"inconsistent slices: distances from {steps.min():.2f} to {steps.max():.2f} mm"
    return "inconsistent slices: they do not lie straight above each other (a tilted gantry)"


def _affine(
    positions: npt.NDArray[np.float64], orientation: npt.NDArray[np.float64], spacing: Sequence[float]
) -> Affine:
    """[row, column, slice] → RAS millimetres (PS3.3 equation C.7.6.2.1-1, with x and y turned from LPS)."""
    matrix = np.eye(4)
    matrix[:3, 0] = orientation[3:] * spacing[0]
    matrix[:3, 1] = orientation[:3] * spacing[1]
    matrix[:3, 2] = (positions[-1] - positions[0]) / (len(positions) - 1)
    matrix[:3, 3] = positions[0]
    return tuple(tuple(row) for row in (_LPS_TO_RAS @ matrix).tolist())
