"""The pixels of an image, whatever it is stored as: DICOM, NIfTI, PNG or JPEG.

Arrays are float32 with the spatial axes first and channels, where there is more than one, last:
[row, column], [row, column, slice], or a NIfTI file's own [x, y, z]; the affine says where the axes point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import nibabel
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from client.data import dicom, pixels
from client.data.quiet import quiet
from client.data.records import Affine, Item, Picture, Unusable
from shared.errors import InsituError

NIFTI = (".nii", ".nii.gz")
PICTURES = (".png", ".jpg", ".jpeg")
MAX_CHANNELS = 16
_MILLIMETRES = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}

# Logs do not name files, which may be called after a patient.
ADD_AGAIN = "run `insitu-client data add` again, which names the files it leaves out"

Array = npt.NDArray[np.float32]


def is_nifti(path: str) -> bool:
    """By its name."""
    return path.lower().endswith(NIFTI)


def is_picture(path: str) -> bool:
    """A PNG or JPEG, by its name."""
    return path.lower().endswith(PICTURES)


def read(item: Item) -> tuple[Array, npt.NDArray[np.float64] | None]:
    """The pixels of a registered image and its affine (see `Picture`).

    Raises:
        InsituError: if a file has changed or gone since it was registered.
    """
    try:
        with quiet():
            array = _read(item.kind, item.files)
    except Unusable as why:
        raise InsituError(f"an image of patient {item.patient}: {why}; {ADD_AGAIN}") from None
    if array.shape[: item.picture.dimensions] != item.picture.shape:
        raise InsituError(f"an image of patient {item.patient} has another size than when it was added; {ADD_AGAIN}")
    affine = item.picture.affine
    return array, None if affine is None else np.array(affine)


def _read(kind: str, files: Sequence[str]) -> Array:
    if kind == "nifti":
        return read_nifti(files[0])[0]
    if kind == "picture":
        return read_picture(files[0])
    if len(files) == 1 and kind == "dicom-image":
        return pixels.decode(dicom.read(files[0]))
    slices = [pixels.decode(dicom.read(file)) for file in files]
    if len({one.shape for one in slices}) != 1:
        raise Unusable("its slices have different sizes")
    return np.stack(slices, axis=2)


def examine(path: str) -> Picture:
    """Decode a NIfTI, PNG or JPEG once and measure it.

    Raises:
        Unusable: if it cannot be decoded or is of a kind that is not read.
    """
    if is_nifti(path):
        array, affine = read_nifti(path)
    else:
        array, affine = read_picture(path), None
    dimensions = 2 if affine is None else len(affine) - 1
    return Picture(
        shape=array.shape[:dimensions],
        channels=array.shape[dimensions] if array.ndim > dimensions else 1,
        affine=affine,
        minimum=float(array.min()),
        maximum=float(array.max()),
        fingerprint=pixels.fingerprint(array),
    )


def read_nifti(path: str) -> tuple[Array, Affine]:
    """Values (scaled as the file says) and affine; a file of one slice is two-dimensional, [y, x] with y as rows.

    Raises:
        Unusable: if it is damaged, has more than four dimensions, or more than 16 channels.
    """
    try:
        image = nibabel.load(path)
        array = np.asarray(image.dataobj, dtype=np.float32)  # type: ignore[attr-defined]
        scale = _MILLIMETRES.get(image.header.get_xyzt_units()[0], 1.0)  # type: ignore[attr-defined]
        affine = np.asarray(image.affine, dtype=np.float64)  # type: ignore[attr-defined]
    except FileNotFoundError:
        raise Unusable("is not there") from None
    except Exception:  # damaged bytes: nibabel, gzip and numpy each have their own errors
        raise Unusable("damaged: cannot be read as NIfTI") from None
    affine[:3] *= scale
    if array.ndim > 3 and math.prod(array.shape[4:]) == 1:
        array = array.reshape(array.shape[:4])
    if not 2 <= array.ndim <= 4 or 0 in array.shape:
        raise Unusable(f"has the shape {list(array.shape)}; expected two or three dimensions, and channels")
    if array.ndim == 4 and array.shape[3] > MAX_CHANNELS:
        raise Unusable(f"has {array.shape[3]} channels (a time series?); at most {MAX_CHANNELS} are read")
    if not np.isfinite(array).all() or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
        raise Unusable("its values or its affine are not finite numbers, or the affine is singular")
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim == 2 or array.shape[2] == 1:
        sizes = np.linalg.norm(affine[:3, :2], axis=0)
        flat = array if array.ndim == 2 else array[:, :, 0]
        return np.ascontiguousarray(flat.swapaxes(0, 1)), _rows(np.diag([sizes[1], sizes[0], 1.0]))
    return np.ascontiguousarray(array), _rows(affine)


def _rows(matrix: npt.NDArray[np.float64]) -> Affine:
    return tuple(tuple(row) for row in matrix.tolist())


def read_picture(path: str) -> Array:
    """A PNG or JPEG as [row, column] or [row, column, RGB], turned upright where its camera said so; no transparency.

    Raises:
        Unusable: if it is damaged.
    """
    with _open(path) as image:
        upright = ImageOps.exif_transpose(image)
        mode = upright.mode
        if mode in ("1", "LA"):
            upright = upright.convert("L")
        elif mode not in ("L", "F", "RGB") and not mode.startswith("I"):
            upright = upright.convert("RGB")
        return np.ascontiguousarray(upright, dtype=np.float32)


def read_indices(path: str) -> npt.NDArray[np.int64]:
    """The stored values of a PNG, [row, column]: of a palette image the indices, not the colours.

    Raises:
        Unusable: if it is damaged, or coloured in a way that has no single value a pixel.
    """
    if not path.lower().endswith(".png"):
        raise Unusable("a JPEG does not keep class indices exactly; store the mask as PNG")
    with _open(path) as image:
        values = np.asarray(image)
        if image.mode in ("RGB", "RGBA"):
            if (values[..., :3] != values[..., :1]).any():
                raise Unusable("a coloured mask; expected one class index a pixel")
            values = values[..., 0]
        elif image.mode == "LA":
            values = values[..., 0]
        elif image.mode == "1":
            values = values.astype(np.uint8)
    return values.astype(np.int64)


def _open(path: str) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise Unusable("is not there") from None
    except Exception:  # a damaged picture raises whatever its decoder stumbled over
        raise Unusable("damaged: cannot be read as PNG or JPEG") from None
    if image.format not in ("PNG", "JPEG", "MPO"):
        raise Unusable(f"its name says PNG or JPEG, its content is {image.format}")
    return image
