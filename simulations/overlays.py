"""Example pictures: the truth and a model's segmentation, outlined over test images.

For simulations only, on phantoms and research data: a picture of a patient is exactly what may not leave a hospital,
so nothing under `client/` or `server/` makes one.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from skimage.measure import find_contours
from torch import Tensor, nn

from client.data.loading import Cohort

TRUTH = (80, 210, 255)
MODEL = (255, 150, 40)
_SHORTEST_SIDE = 320  # pixels of a picture
_LETTERS = 15


@dataclass(frozen=True)
class _Plane:
    """One plane of an image.

    Attributes:
        image: (rows, columns, channels) float.
        truth, model: (rows, columns) class indices.
        pixel: height and width of a pixel, in any one unit.
    """

    image: np.ndarray
    truth: np.ndarray
    model: np.ndarray
    pixel: tuple[float, float]


def examples(cohort: Cohort, network: nn.Module, *, count: int = 2) -> list[bytes]:
    """Pictures of the first patients of a cohort that have something to find, whatever the model makes of them.

    Args:
        cohort: of the test split of a segmentation job.
        network: of the same job; left in the mode it is in.
        count: of pictures; fewer where there are fewer patients.

    Returns:
        One PNG a patient: of the patient's image with most foreground, in a volume the slice with most foreground (the
        middle one of several, seen from the feet, front up). The outlines of every class, broad and blue of the truth,
        thin and orange of the model.
    """
    pictures: list[bytes] = []
    shown = 0
    while len(pictures) < count and shown < len(cohort):
        plane = _plane(cohort, shown, network)
        if plane is not None:
            pictures.append(_draw(plane))
        shown += 1
    return pictures


def _plane(cohort: Cohort, patient: int, network: nn.Module) -> _Plane | None:
    """The plane to show of a patient; None where the truth is nothing but background."""
    areas = [int((cohort.load(patient, index)[1] > 0).sum()) for index in range(cohort.images(patient))]
    best = int(np.argmax(areas))
    if areas[best] == 0:
        return None
    image, target = cohort.load(patient, best)
    truth, model = target[0].numpy(), _segmented(network, image)
    pixel = tuple(cohort.spacing(patient, best) or (1.0,) * truth.ndim)
    shown = image.numpy()
    if truth.ndim == 3:
        index = _fullest(truth)
        shown, truth, model = (_upright(volume[..., index]) for volume in (shown, truth, model))
        pixel = (pixel[1], pixel[0])
    return _Plane(np.moveaxis(shown, 0, -1), truth, model, (pixel[0], pixel[1]))


def _upright(plane: np.ndarray) -> np.ndarray:
    """A plane (…, right, front) of a volume in RAS as radiologists look at it: the patient's right at the left.

    Returns:
        (…, rows from front to back, columns from right to left).
    """
    return np.swapaxes(plane[..., ::-1, ::-1], -2, -1)


def _fullest(truth: np.ndarray) -> int:
    """The slice (last axis) with most foreground; of several, the middle one."""
    areas = (truth > 0).sum(axis=(0, 1))
    fullest = np.flatnonzero(areas == areas.max())
    return int(fullest[len(fullest) // 2])


def _segmented(network: nn.Module, image: Tensor) -> np.ndarray:
    """Class indices, in the shape of the image without its channels."""
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            device = next(network.parameters()).device
            logits: Tensor = network(image[None].to(device))
            return logits.argmax(dim=1)[0].cpu().numpy()
    finally:
        network.train(training)


def _draw(plane: _Plane) -> bytes:
    rows, columns = plane.truth.shape
    height, width = rows * plane.pixel[0], columns * plane.pixel[1]
    scale = _SHORTEST_SIDE / min(height, width)
    size = round(width * scale), round(height * scale)
    picture = _as_image(plane.image).resize(size, Image.Resampling.BICUBIC)
    # Outlines are drawn at twice the size and shrunk, which makes their edges smooth.
    drawing = Image.new("RGBA", (2 * size[0], 2 * size[1]))
    pen = ImageDraw.Draw(drawing)
    for mask, colour, breadth in ((plane.truth, TRUTH, 9), (plane.model, MODEL, 4)):  # neither hides the other
        for line in _outlines(mask):
            # A contour's coordinates are pixel centres: half a pixel from the pixel's corner.
            points = (line + 0.5) * (drawing.height / rows, drawing.width / columns)
            pen.line([(x, y) for y, x in points], fill=(*colour, 255), width=breadth, joint="curve")
    picture.paste(drawing.resize(size, Image.Resampling.LANCZOS), mask=drawing.resize(size).getchannel("A"))
    return _labelled(picture)


def _as_image(image: np.ndarray) -> Image.Image:
    """Intensities from the 1st to the 99th percentile as 0 to 255; grey unless there are three channels."""
    channels = image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, axis=-1)
    low, high = np.percentile(channels, (1, 99))
    unit = np.clip((channels - low) / max(high - low, 1e-6), 0, 1)
    return Image.fromarray((unit * 255).astype(np.uint8))


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Closed outlines (points, 2) of every class but the background, in rows and columns."""
    padded = np.pad(mask, 1)
    classes = [index for index in np.unique(mask) if index > 0]
    return [line - 1 for index in classes for line in find_contours((padded == index).astype(float), 0.5)]  # type: ignore[no-untyped-call]


def _labelled(picture: Image.Image) -> bytes:
    """The picture above a strip that says which outline is which."""
    strip = 2 * _LETTERS
    whole = Image.new("RGB", (picture.width, picture.height + strip), (20, 20, 20))
    whole.paste(picture)
    pen = ImageDraw.Draw(whole)
    font = ImageFont.load_default(_LETTERS)
    x = 8
    for text, colour in (("truth", TRUTH), ("model", MODEL)):
        middle = picture.height + strip // 2
        pen.line([(x, middle), (x + 18, middle)], fill=colour, width=3)
        pen.text((x + 24, middle), text, fill=(235, 235, 235), font=font, anchor="lm")
        x += 24 + round(font.getlength(text)) + 20
    file = io.BytesIO()
    whole.save(file, "PNG", optimize=True)
    return file.getvalue()
