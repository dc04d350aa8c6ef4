"""Normalise a picture of a digit to the 28x28 image that the models expect.

The service and the pipeline share this code. It follows MNIST: ink bright on black, bounding box
scaled to 20 pixels with its aspect ratio kept, centre of mass at the centre (LeCun et al.,
"Gradient-Based Learning Applied to Document Recognition", 1998, section III.A).
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve.imaging.errors import NoDigitError
from serve.imaging.placement import (
    SIDE,
    Grey,
    is_disturbed,
    normalised_box,
    normalised_boxes,
    paper_level,
    place_digit,
)
from serve.imaging.segmentation import segment_digit
from serve.imaging.stroke_width import normalise_stroke_width

Sides = tuple[int, int, int, int]  # left, top, width, height


@dataclass(frozen=True)
class Normalised:
    """The models' input, and what of the picture it was made of.

    `image`: (28, 28) uint8. `ink`: (h, w) uint8 on 0, what was taken for the digit. `box`: left,
    top, width and height of that ink in the picture's pixels.
    """

    image: Grey
    ink: Grey
    box: Sides


def normalise(grey: Grey) -> Normalised:
    """Normalise a (height, width) uint8 picture, dark on light or light on dark.

    An image that is normalised already passes unchanged, or inverted.

    Raises:
        NoDigitError: the picture is empty.
    """
    if grey.shape == (SIDE, SIDE):
        bright = grey if grey[0, 0] < 128 else 255 - grey
        if box := normalised_box(bright):
            top, left, bottom, right = box
            ink, image = bright[top:bottom, left:right], bright
            return Normalised(image, ink, (left, top, right - left, bottom - top))
    ink, (top, left, bottom, right) = segment_digit(grey)
    if grey.shape == (SIDE, SIDE) and is_disturbed(grey, (top, left, bottom, right)):
        bright = grey if paper_level(grey) < 128 else 255 - grey
        return Normalised(bright, bright, (0, 0, SIDE, SIDE))
    image = place_digit(normalise_stroke_width(ink))
    return Normalised(image, ink, (left, top, right - left, bottom - top))


def normalise_all(images: NDArray[np.uint8]) -> list[tuple[Grey, Sides] | NoDigitError]:
    """Return `image` and `box` of each of (n, 28, 28) pictures as `normalise` does, or its error.

    Those that are normalised already take a few array calls together.
    """
    bright = np.where(images[:, :1, :1] < 128, images, 255 - images)
    found: list[tuple[Grey, Sides] | NoDigitError] = []
    passing, boxes = normalised_boxes(bright)
    for place, (top, left, bottom, right) in enumerate(boxes.tolist()):
        if passing[place]:
            found.append((bright[place], (left, top, right - left, bottom - top)))
            continue
        try:
            normalised = normalise(images[place])
            found.append((normalised.image, normalised.box))
        except NoDigitError as error:
            found.append(error)
    return found


def data_uri(image: Grey) -> str:
    """Return a (28, 28) image as a PNG in a data URI, to show what the model sees."""
    with BytesIO() as file:
        Image.fromarray(image).save(file, "PNG")
        encoded = binascii.b2a_base64(file.getvalue(), newline=False)
    return f"data:image/png;base64,{encoded.decode()}"
