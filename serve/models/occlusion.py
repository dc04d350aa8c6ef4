"""Occlusion map: which parts of an image an answer rests on.

A patch is hidden, position after position, and the model asked again. Where the probability of the
answer falls, it rests on what was hidden (Zeiler & Fergus, "Visualizing and Understanding
Convolutional Networks", 2014, section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve.imaging.preparation import DIGIT
from serve.models.inference import CHUNK
from serve.models.predictor import Predictor

# Of runs 1 to 3 on test images, smaller patches hide too little of a stroke: the median of the
# greatest fall is 0.3 with 4 of 28 pixels, 0.5 with 6, 0.8 with 8, which shows no detail.
_SHARE = 6 / 28  # of an image's shorter side: the patch
_STEPS = 3  # positions until a patch no longer overlaps the first


@dataclass(frozen=True)
class Occlusion:
    """Occlusion map of one image.

    `size`: pixels along a side of the patch. `stride`: pixels between two positions. `falls`:
    float32, by how much the probability falls with the patch hidden whose first row and column are
    `stride` times the place; below 0 it rises. `heat`: float32, for each pixel of the image the
    mean over the patches that hide it.
    """

    size: int
    stride: int
    falls: NDArray[np.float32]
    heat: NDArray[np.float32]


def occlude(predictor: Predictor, image: NDArray[np.uint8], place: int) -> Occlusion:
    """Return the occlusion map of an image, (h, w) or (h, w, 3), for the class at `place`.

    A patch is hidden by the black around a digit, or by the mean colour of another image. Where
    that changes nothing, the model is not asked.
    """
    height, width = image.shape[:2]
    size = max(1, round(min(height, width) * _SHARE))
    stride = max(1, size // _STEPS)
    rows, columns = (range(0, side - size + 1, stride) for side in (height, width))
    patches = [np.s_[top : top + size, left : left + size] for top in rows for left in columns]
    digit = predictor.preparation.kind == DIGIT
    level = np.uint8(0) if digit else np.rint(image.mean(axis=(0, 1))).astype(np.uint8)
    asked = [number for number, patch in enumerate(patches) if (image[patch] != level).any()]
    hidden = np.repeat(image[None], len(asked) + 1, axis=0)  # the last one is whole
    for one, number in zip(hidden, asked, strict=False):
        one[patches[number]] = level
    parts = range(0, len(hidden), CHUNK)
    chances = [predictor.probabilities(hidden[at : at + CHUNK])[:, place] for at in parts]
    *left, whole = np.concatenate(chances)
    falls = np.zeros(len(patches), np.float32)
    falls[asked] = whole - np.array(left, np.float32)

    heat, count = np.zeros((2, height, width), np.float32)
    for patch, fall in zip(patches, falls, strict=True):
        heat[patch] += fall
        count[patch] += 1
    heat /= np.maximum(count, 1)  # what no patch hides, at the end of a side, has none
    return Occlusion(size, stride, falls.reshape(len(rows), -1), heat)
