"""Occlusion map: which parts of an image an answer rests on.

A patch is hidden, position after position, and the model asked again. Where the digit's probability
falls, the answer rests on what was hidden (Zeiler & Fergus, "Visualizing and Understanding
Convolutional Networks", 2014, section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve.models.inference import CHUNK
from serve.models.predictor import Predictor

# Of runs 1 to 3 on test images, smaller patches hide too little of a stroke: the median of the
# greatest fall is 0.3 with 4 pixels, 0.5 with 6, 0.8 with 8, which shows no detail.
SIZE = 6  # pixels along a side of the patch
STRIDE = 2  # pixels between two positions

_SIDE = 28
_STARTS = range(0, _SIDE - SIZE + 1, STRIDE)


@dataclass(frozen=True)
class Occlusion:
    """Occlusion map of one image.

    `falls`: (12, 12) float32, by how much the digit's probability falls with the patch hidden whose
    first row and column are STRIDE times the place; below 0 it rises. `heat`: (28, 28) float32, for
    each pixel the mean over the patches that hide it.
    """

    falls: NDArray[np.float32]
    heat: NDArray[np.float32]


def occlude(predictor: Predictor, image: NDArray[np.uint8], digit: int) -> Occlusion:
    """Return the occlusion map of a (28, 28) uint8 image, for the probability of `digit`.

    A patch without ink changes nothing, so the model is not asked about it.
    """
    places = [(top, left) for top in _STARTS for left in _STARTS]
    inked = [place for place in places if image[_patch(place)].any()]
    hidden = np.repeat(image[None], len(inked) + 1, axis=0)  # the last one is whole
    for one, place in zip(hidden, inked, strict=False):
        one[_patch(place)] = 0
    parts = range(0, len(hidden), CHUNK)
    chances = [predictor.probabilities(hidden[at : at + CHUNK])[:, digit] for at in parts]
    *left, whole = np.concatenate(chances)
    fall = dict(zip(inked, whole - left, strict=True))

    heat, count = np.zeros((2, _SIDE, _SIDE), np.float32)
    for place in places:
        heat[_patch(place)] += fall.get(place, 0)
        count[_patch(place)] += 1
    falls = np.array([fall.get(place, 0) for place in places], np.float32)
    return Occlusion(falls.reshape(len(_STARTS), -1), heat / count)


def _patch(place: tuple[int, int]) -> tuple[slice, slice]:
    top, left = place
    return slice(top, top + SIZE), slice(left, left + SIZE)
