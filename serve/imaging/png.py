"""Encode the model's input as a PNG to show."""

from __future__ import annotations

import binascii
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def data_uri(image: NDArray[np.uint8]) -> str:
    """Return a (28, 28) uint8 image as a PNG in a data URI, bright on black as it is."""
    with BytesIO() as file:
        Image.fromarray(image).save(file, "PNG")
        encoded = binascii.b2a_base64(file.getvalue(), newline=False)
    return f"data:image/png;base64,{encoded.decode()}"
