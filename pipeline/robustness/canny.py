"""Find edges by Canny's algorithm, in whole arrays of images (n, height, width) at once."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

# scikit-image's defaults for brightness 0..1, which MNIST-C uses.
_SIGMA, _WEAK, _STRONG = 1.0, 0.1, 0.2
_WITHIN_IMAGE = np.zeros((3, 3, 3), bool)
_WITHIN_IMAGE[1] = True


def canny(x: Floats) -> Mask:
    """Return where edges are in images of brightness 0..1; none is on an image's border.

    Canny, "A Computational Approach to Edge Detection", IEEE PAMI 1986, as scikit-image's `canny`.
    """
    smooth = _smooth(x) / _smooth(np.ones_like(x[:1]))
    down, across = _sobel(smooth, 1), _sobel(smooth, 2)
    strength = np.hypot(down, across)
    ridge = _ridge(strength, down, across)
    labels, count = ndimage.label(ridge & (strength >= _WEAK), _WITHIN_IMAGE)
    strong = np.zeros(count + 1, bool)
    strong[labels[ridge & (strength >= _STRONG)]] = True
    edges: Mask = strong[labels]
    return edges


def _smooth(x: Floats) -> Floats:
    smooth: Floats = ndimage.gaussian_filter(x, (0, _SIGMA, _SIGMA), mode="constant")
    return smooth


def _sobel(x: Floats, axis: int) -> Floats:
    slope = ndimage.correlate1d(x, [-1, 0, 1], axis)
    gradient: Floats = ndimage.correlate1d(slope, [1, 2, 1], 3 - axis)
    return gradient


def _ridge(strength: Floats, down: Floats, across: Floats) -> Mask:
    """Return where no neighbour along the gradient is stronger, between two pixels if need be."""
    steep = np.abs(down) >= np.abs(across)
    larger = np.maximum(np.abs(down), np.abs(across))
    share = np.minimum(np.abs(down), np.abs(across)) / np.maximum(larger, np.finfo(float).tiny)
    same = down * across >= 0

    def neighbour(rows: int, columns: int) -> Floats:
        return np.roll(strength, (-rows, -columns), (1, 2))

    ridge = strength > 0
    for way in (1, -1):
        straight = np.where(steep, neighbour(way, 0), neighbour(0, way))
        against = np.where(steep, neighbour(way, -way), neighbour(-way, way))
        diagonal = np.where(same, neighbour(way, way), against)
        ridge &= diagonal * share + straight * (1 - share) <= strength
    ridge[:, [0, -1]] = ridge[:, :, [0, -1]] = False
    return ridge
