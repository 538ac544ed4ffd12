"""From an image as it is stored to what a network sees; the same in training, evaluation and prediction.

A volume is first turned so that its axes run to the patient's right, front and head (RAS): `size` and `spacing` of a
3D job are in that order. Flat images keep their rows and columns. Then:

1. with `spacing`, resample to it (linear); without, stretch to `size` (linear). Where that makes an image coarser it
   is smoothed before, so that noise does not become pattern (Gaussian of (factor − 1) / 2 voxels, as scikit-image);
2. intensity, over all channels together;
3. with `spacing`, crop or pad around the centre to `size`, padding with the image's smallest value.

A mask takes the same way by nearest neighbour, padded with background.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import monai
import numpy as np
import numpy.typing as npt
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.croppad.array import ResizeWithPadOrCrop
from monai.transforms.intensity.array import (
    NormalizeIntensity,
    ScaleIntensity,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
)
from monai.transforms.spatial.array import Orientation, Resize, Spacing
from nibabel.orientations import io_orientation
from scipy.ndimage import gaussian_filter

from shared.errors import BadInput
from shared.job import Images

# Raised whenever the same job gives other numbers than before: cached images of the old way are then not found.
_VERSION = 1
_RAS = (("L", "R"), ("P", "A"), ("I", "S"))

Array = npt.NDArray[Any]
Affine = npt.NDArray[np.float64]


class Preprocessing:
    """What `job.images` asks for, as functions of one image.

    Images are arrays with the spatial axes first and channels, where there are several, last. Affines take voxel
    indices to millimetres: 4 × 4 into RAS in 3D, 3 × 3 in 2D (only its spacing counts), None where unknown.

    >>> images = Images(size=(4, 4), intensity="unit")
    >>> Preprocessing(images).image(np.arange(64.0).reshape(8, 8), None).shape
    torch.Size([1, 4, 4])
    """

    def __init__(self, images: Images) -> None:
        self.images = images
        self._dimensions = images.dimensions
        self._orient = Orientation("RAS", labels=_RAS)
        self._intensity = _intensity(images)

    @property
    def digest(self) -> str:
        """SHA-256 in hexadecimal over everything that the result depends on besides the image."""
        what = [_VERSION, monai.__version__, self.images.model_dump(mode="json")]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def image(self, array: Array, affine: Affine | None) -> torch.Tensor:
        """The image as the network sees it: float32 (channels, *size).

        Raises:
            BadInput: if dimensions or channels are not the job's, or the job needs a spacing and there is none.
        """
        array = self._with_channels(array)
        tensor = self._oriented(array.astype(np.float32), affine)
        tensor = self._smoothed(tensor)
        tensor = self._resampled(tensor, nearest=False)
        plain = self.scaled(tensor.as_tensor())
        if self.images.spacing is not None:
            fit = ResizeWithPadOrCrop(self.images.size, mode="constant", value=float(plain.min()))
            plain = _plain(fit(plain))
        return plain.to(torch.float32).contiguous()

    def mask(self, array: Array, affine: Affine | None) -> torch.Tensor:
        """A mask of class indices on the grid of `image`: int64 (1, *size).

        Args:
            array: in the shape and axes of the image, without channels.
            affine: of the image.
        """
        if array.ndim != self._dimensions:
            raise BadInput(f"a mask has {array.ndim} dimensions, the job's images have {self._dimensions}")
        tensor = self._oriented(array[None].astype(np.float32), affine)
        tensor = self._resampled(tensor, nearest=True)
        plain = tensor.as_tensor()
        if self.images.spacing is not None:
            plain = _plain(ResizeWithPadOrCrop(self.images.size, mode="constant", value=0.0)(plain))
        return plain.round().to(torch.int64).contiguous()

    def spacing_after(self, affine: Affine | None, shape: tuple[int, ...]) -> tuple[float, ...] | None:
        """Millimetres between the voxels of the preprocessed image, in the order of `size`; None if unknown.

        Args:
            affine: of the image as it is stored.
            shape: its spatial shape.
        """
        if self.images.spacing is not None:
            return self.images.spacing
        if affine is None:
            return None
        sizes = np.linalg.norm(np.asarray(affine)[:-1, :-1], axis=0)
        extent = sizes * np.array(shape, dtype=float)
        if self._dimensions == 3:
            ours = io_orientation(affine)[:, 0].astype(int)  # of each stored axis, which RAS axis it becomes
            extent = extent[np.argsort(ours)]
        return tuple(float(value) for value in extent / np.array(self.images.size))

    def _with_channels(self, array: Array) -> Array:
        """Channels first."""
        if array.ndim == self._dimensions:
            array = array[None]
        elif array.ndim == self._dimensions + 1:
            array = np.moveaxis(array, -1, 0)
        else:
            raise BadInput(f"an image of shape {list(array.shape)} has not the job's {self._dimensions} dimensions")
        if array.shape[0] != self.images.channels:
            raise BadInput(f"an image has {array.shape[0]} channels, the job wants {self.images.channels}")
        return array

    def _oriented(self, array: Array, affine: Affine | None) -> MetaTensor:
        if affine is None:
            if self._dimensions == 3:
                raise BadInput("a volume does not say how it lies in the patient (no affine)")
            if self.images.spacing is not None:
                raise BadInput("an image does not say its spacing, which the job resamples by")
            affine = np.eye(3)
        matrix = np.eye(4)
        if self._dimensions == 3:
            matrix[:] = affine
        else:
            matrix[:2, :2] = np.asarray(affine)[:2, :2]
        tensor = MetaTensor(torch.from_numpy(np.ascontiguousarray(array)), affine=torch.from_numpy(matrix))
        return self._orient(tensor) if self._dimensions == 3 else tensor  # type: ignore[return-value]

    def _smoothed(self, tensor: MetaTensor) -> MetaTensor:
        shape = np.array(tensor.shape[1:], dtype=float)
        if self.images.spacing is None:
            factors = shape / np.array(self.images.size)
        else:
            factors = np.array(self.images.spacing) / tensor.pixdim.numpy()[: self._dimensions]
        sigma = np.maximum(0.0, (factors - 1) / 2)
        if not sigma.any():
            return tensor
        smooth = gaussian_filter(tensor.numpy(), sigma=(0, *sigma), mode="nearest")
        return MetaTensor(torch.from_numpy(smooth), affine=tensor.affine)

    def _resampled(self, tensor: MetaTensor, *, nearest: bool) -> MetaTensor:
        if self.images.spacing is not None:
            mode = "nearest" if nearest else "bilinear"
            resample = Spacing(self.images.spacing, mode=mode, padding_mode="border", dtype=np.float32)
            return resample(tensor)  # type: ignore[return-value]
        # `nearest` without `exact` takes the voxel before, half a voxel beside what linear interpolation takes.
        mode = "nearest-exact" if nearest else ("bilinear" if self._dimensions == 2 else "trilinear")
        return Resize(self.images.size, mode=mode)(tensor)  # type: ignore[return-value]

    def scaled(self, tensor: torch.Tensor) -> torch.Tensor:
        """The intensities of one image (channels, …) as the job wants them; an image of one value becomes zeros."""
        if self.images.intensity != "window" and float(tensor.min()) == float(tensor.max()):
            return torch.zeros_like(tensor)
        return _plain(self._intensity(tensor))


def _intensity(images: Images) -> Any:
    if images.window is not None:
        centre, width = images.window
        return ScaleIntensityRange(centre - width / 2, centre + width / 2, 0.0, 1.0, clip=True)
    if images.intensity == "unit":
        return ScaleIntensity(0.0, 1.0)
    if images.intensity == "percentile":
        return ScaleIntensityRangePercentiles(1, 99, 0.0, 1.0, clip=True)
    return NormalizeIntensity()


def _plain(tensor: Any) -> torch.Tensor:
    """Without MONAI's metadata, which would make every later operation slower."""
    plain: torch.Tensor = tensor.as_tensor() if isinstance(tensor, MetaTensor) else torch.as_tensor(tensor)
    return plain
