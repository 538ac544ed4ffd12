"""The pixels of a DICOM image in the modality's own units, decoded by pydicom with pylibjpeg and pyjpegls."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, JPEGLSTransferSyntaxes

from client.data.records import Unusable

# Every JPEG, JPEG-LS and JPEG 2000 codestream ends with it; padding may follow.
_END_OF_IMAGE = b"\xff\xd9"
_TRAILER = 16


def decode(dataset: Dataset) -> npt.NDArray[np.float32]:
    """The pixels of a single-frame image, [row, column] or [row, column, RGB], in the modality's own units.

    YBR becomes RGB, palettes are applied, the modality's rescaling or LUT is applied (PS3.3 C.11.1), and MONOCHROME1
    (small is bright) is turned over within the range of what can be stored, so that large is bright everywhere.

    Raises:
        Unusable: if the pixels are missing, damaged, in a compression that cannot be decoded, or not finite.
    """
    syntax = UID(str(dataset.file_meta.get("TransferSyntaxUID", "")))
    if "JPEG" in syntax.name and _END_OF_IMAGE not in (dataset.get("PixelData") or b"")[-_TRAILER:]:
        # Most decoders fill up what is missing, and the one that does not may search for it for minutes.
        raise Unusable("damaged: its compressed pixel data is cut off (no end-of-image marker)")
    try:
        # CharLS notices a damaged JPEG-LS frame; the decoder pydicom would take first does not.
        stored = pixel_array(dataset, decoding_plugin="pyjpegls" if syntax in JPEGLSTransferSyntaxes else "")
        photometric = str(dataset.PhotometricInterpretation)
        if photometric == "PALETTE COLOR":
            pixels = apply_color_lut(stored, dataset)[..., :3]
        else:
            pixels = apply_modality_lut(stored, dataset)
            if photometric == "MONOCHROME1":
                pixels = _ends(dataset, stored.dtype).sum() - pixels
    except Exception as error:
        raise Unusable(_why_not_decoded(syntax, error)) from None
    expected = (int(dataset.Rows), int(dataset.Columns))
    if pixels.shape[:2] != expected or pixels.shape[2:] not in ((), (3,)) or 0 in expected:
        raise Unusable(f"its pixels have the shape {list(pixels.shape)}, its header says {list(expected)}")
    result = np.ascontiguousarray(pixels, dtype=np.float32)
    if not np.isfinite(result).all():
        raise Unusable("its pixels are not all finite numbers")
    return result


def _ends(dataset: Dataset, dtype: npt.DTypeLike) -> npt.NDArray[np.float64]:
    """The least and greatest value that can be stored, after rescaling."""
    bits = int(dataset.BitsStored)
    low = -(1 << (bits - 1)) if int(dataset.PixelRepresentation) else 0
    return apply_modality_lut(np.array([low, low + (1 << bits) - 1], dtype=dtype), dataset).astype(np.float64)


def _why_not_decoded(syntax: UID, error: Exception) -> str:
    if not syntax:
        return "damaged: no transfer syntax, its pixels cannot be decoded"
    if not syntax.is_transfer_syntax or syntax.is_private:
        return "its compression is not of the standard and cannot be decoded here"
    if not syntax.is_compressed or not syntax.is_encapsulated:
        return f"damaged pixel data ({type(error).__name__})"
    try:
        if not get_decoder(syntax).is_available:
            return f"its compression cannot be decoded here ({syntax.name})"
    except NotImplementedError:
        return f"its compression cannot be decoded here ({syntax.name})"
    return f"its pixel data cannot be decoded: damaged, or an unusual variant of {syntax.name}"


def fingerprint(array: npt.NDArray[Any]) -> str:
    """128 bits of BLAKE2 over shape and values, in hexadecimal."""
    sha = hashlib.blake2b(str(array.shape).encode(), digest_size=16)
    sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
