"""Explain an answer: the steps from the picture to the model's input, and what the answer rests on.

The service and `python -m pipeline.score --explain` share this code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from serve.decoding.picture import Box, Reading
from serve.imaging.normalise import data_uri
from serve.imaging.placement import SIDE, Grey
from serve.models.occlusion import SIZE, STRIDE, Occlusion, occlude
from serve.models.predictor import Predictor

_SIDE = 240  # longest side of the pictures of steps, in pixels
_SCALE = 8  # of the map: pixels along a side of one of the 28x28
_BOX = (255, 90, 0)
_HOT, _COLD = (255.0, 90.0, 0.0), (40.0, 130.0, 255.0)
_DIGIT_LIGHT, _HEAT_COVER = 0.8, 0.8  # so that digit and heat are both seen
_FAINT = 0.01  # a fall of this much or less has no full colour: nothing there decides


def sides(box: Box) -> dict[str, int]:
    """Return the box as in the answers."""
    left, top, width, height = box
    return {"left": left, "top": top, "width": width, "height": height}


def explain(reading: Reading, predictor: Predictor, digit: int) -> dict[str, Any]:
    """Return the fields that `/explain` adds to the answer `digit` on what was read."""
    normalised = reading.normalised
    occlusion = occlude(predictor, normalised.image, digit)
    return {
        "occlusion": {
            "size": SIZE,
            "stride": STRIDE,
            "falls": occlusion.falls,
            "image": data_uri(_drawn(occlusion, normalised.image)),
        },
        "steps": {
            "picture": small_picture(reading.pixels, normalised.box),
            "ink": data_uri(np.asarray(_small(normalised.ink))),
            "image": data_uri(normalised.image),
        },
    }


def small_picture(grey: Grey, box: Box | None) -> str:
    """Return a (height, width) uint8 picture, made small, with the box: a PNG in a data URI."""
    small = _small(grey).convert("RGB")
    if box:
        left, top, width, height = (side * max(small.size) / max(grey.shape) for side in box)
        edges = (left - 2, top - 2, left + width + 1, top + height + 1)
        ImageDraw.Draw(small).rectangle(
            [min(max(edge, 0), most - 1) for edge, most in zip(edges, small.size * 2, strict=True)],
            outline=_BOX,
            width=2,
        )
    return data_uri(np.asarray(small))


def _small(pixels: Grey) -> Image.Image:
    """Return the picture with a longest side of at most _SIDE; a tiny one is scaled up."""
    picture, whole = Image.fromarray(pixels), _SIDE // max(pixels.shape)
    if whole >= 2:
        size = (picture.width * whole, picture.height * whole)
        return picture.resize(size, Image.Resampling.NEAREST)
    picture.thumbnail((_SIDE, _SIDE))
    return picture


def _drawn(occlusion: Occlusion, image: Grey) -> NDArray[np.uint8]:
    """Draw the map over the (28, 28) image: orange what speaks for the answer, blue against it."""
    size = (SIDE * _SCALE, SIDE * _SCALE)
    share = occlusion.heat / max(_FAINT, float(np.abs(occlusion.heat).max()))
    heat = _enlarged(share, size, Image.Resampling.BILINEAR)
    digit = _enlarged(image.astype(np.float32), size, Image.Resampling.NEAREST)
    cover = np.abs(heat) * _HEAT_COVER
    pixels = digit * _DIGIT_LIGHT * (1 - cover) + np.where(heat > 0, _HOT, _COLD) * cover
    return np.rint(pixels).astype(np.uint8)


def _enlarged(
    values: NDArray[np.float32], size: tuple[int, int], how: Image.Resampling
) -> NDArray[np.float32]:
    """Return (height, width, 1) float32 of (28, 28)."""
    return np.asarray(Image.fromarray(values).resize(size, how))[..., None]
