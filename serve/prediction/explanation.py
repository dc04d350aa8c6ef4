"""Explain an answer: the steps from the picture to the model's input, and what the answer rests on.

The service and `python -m pipeline.score --explain` share this code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from serve.decoding.picture import Box, Pixels, Reading
from serve.imaging.normalise import data_uri
from serve.models.occlusion import Occlusion, occlude
from serve.models.predictor import Predictor

_SIDE = 240  # longest side of the pictures of steps, in pixels
_MAP_SIDE = 224  # pixels along the longest side of the map, or a little less: 8 times 28
_BOX = (255, 90, 0)
_HOT, _COLD = (255.0, 90.0, 0.0), (40.0, 130.0, 255.0)
_IMAGE_LIGHT, _HEAT_COVER = 0.8, 0.8  # so that image and heat are both seen
_FAINT = 0.01  # a fall of this much or less has no full colour: nothing there decides


def sides(box: Box) -> dict[str, int]:
    """Return the box as in the answers."""
    left, top, width, height = box
    return {"left": left, "top": top, "width": width, "height": height}


def explain(reading: Reading, predictor: Predictor, place: int) -> dict[str, Any]:
    """Return the fields that `/explain` adds to an answer: the class at `place`."""
    normalised = reading.normalised
    occlusion = occlude(predictor, normalised.image, place)
    return {
        "occlusion": {
            "size": occlusion.size,
            "stride": occlusion.stride,
            "falls": occlusion.falls,
            "image": data_uri(_drawn(occlusion, normalised.image)),
        },
        "steps": {
            "picture": small_picture(reading.pixels, normalised.box),
            "ink": data_uri(np.asarray(_small(normalised.ink))),
            "image": data_uri(normalised.image),
        },
    }


def small_picture(pixels: Pixels, box: Box | None) -> str:
    """Return a decoded picture, made small, with the box: a PNG in a data URI."""
    small = _small(pixels).convert("RGB")
    if box:
        longest = max(pixels.shape[:2])
        left, top, width, height = (side * max(small.size) / longest for side in box)
        edges = (left - 2, top - 2, left + width + 1, top + height + 1)
        ImageDraw.Draw(small).rectangle(
            [min(max(edge, 0), most - 1) for edge, most in zip(edges, small.size * 2, strict=True)],
            outline=_BOX,
            width=2,
        )
    return data_uri(np.asarray(small))


def _small(pixels: Pixels) -> Image.Image:
    """Return the picture with a longest side of at most _SIDE; a tiny one is scaled up."""
    picture, whole = Image.fromarray(pixels), _SIDE // max(pixels.shape[:2])
    if whole >= 2:
        size = (picture.width * whole, picture.height * whole)
        return picture.resize(size, Image.Resampling.NEAREST)
    picture.thumbnail((_SIDE, _SIDE))
    return picture


def _drawn(occlusion: Occlusion, image: Pixels) -> Pixels:
    """Draw the map over the image: orange what speaks for the answer, blue against it."""
    height, width = image.shape[:2]
    scale = max(1, _MAP_SIDE // max(height, width))
    share = occlusion.heat / max(_FAINT, float(np.abs(occlusion.heat).max()))
    size = (width * scale, height * scale)
    resized = Image.fromarray(share).resize(size, Image.Resampling.BILINEAR)
    heat = np.asarray(resized)[..., None]
    enlarged = np.repeat(np.repeat(image, scale, axis=0), scale, axis=1).astype(np.float32)
    light = enlarged.reshape(*heat.shape[:2], -1)
    cover = np.abs(heat) * _HEAT_COVER
    colours = np.where(heat > 0, _HOT, _COLD)
    found: Pixels = np.rint(light * _IMAGE_LIGHT * (1 - cover) + colours * cover).astype(np.uint8)
    return found
