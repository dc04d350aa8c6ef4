"""Connected components of a mask, in plain NumPy: the service has no SciPy and no OpenCV."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]  # (height, width)


@dataclass(frozen=True)
class Components:
    """The connected components of a mask; pixels that touch at corners are connected.

    `labels`: (height, width) int32, 0 outside the mask, components from 1. Of each of
    the n components: `mass`, (n,) float64, the sum of its weights, and `boxes`, (n, 4) int64: top,
    left, bottom, right, the last two exclusive.
    """

    labels: NDArray[np.int32]
    mass: NDArray[np.float64]
    boxes: NDArray[np.int64]


def connected_components(mask: Mask, weights: NDArray[np.float32]) -> Components:
    """Return the components of a mask; `weights`, of its shape: the mass of each pixel.

    Run-length labelling: runs of pixels in a row are joined with the runs they touch in the next
    row. The union-find does each step for all runs at once, so time grows with runs, not pixels.
    """
    rows, starts, ends = _runs(mask)
    parts = _joined(*_touching(rows, starts, ends, mask.shape[1]), len(rows))
    n = int(parts.max(initial=-1)) + 1
    inked, of_pixels = np.flatnonzero(mask), np.repeat(parts, ends - starts)
    labels = np.zeros(mask.shape, np.int32)
    labels.ravel()[inked] = of_pixels + 1
    mass = np.bincount(of_pixels, weights.ravel()[inked], n).astype(np.float64, copy=False)
    boxes = np.empty((n, 4), np.int64)
    boxes[:, :2], boxes[:, 2:] = max(mask.shape), 0
    np.minimum.at(boxes[:, 0], parts, rows)
    np.minimum.at(boxes[:, 1], parts, starts)
    np.maximum.at(boxes[:, 2], parts, rows + 1)
    np.maximum.at(boxes[:, 3], parts, ends)
    return Components(labels, mass, boxes)


Indices = NDArray[np.intp]


def _runs(mask: Mask) -> tuple[Indices, Indices, Indices]:
    """Return row, first column and end column of each run of true pixels, in reading order."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), bool)
    padded[:, 1:-1] = mask
    changes = np.flatnonzero(padded[:, 1:] != padded[:, :-1])  # of each run its start, then its end
    rows, columns = np.divmod(changes, mask.shape[1] + 1)
    return rows[::2], columns[::2], columns[1::2]


def _touching(rows: Indices, starts: Indices, ends: Indices, width: int) -> tuple[Indices, Indices]:
    """Return the pairs of runs in neighbouring rows that touch."""
    line = width + 2  # so that the end of a row lies before the start of the next
    first = np.searchsorted(rows * line + ends, (rows + 1) * line + starts)
    last = np.searchsorted(rows * line + starts, (rows + 1) * line + ends, side="right")
    count = np.maximum(last - first, 0)
    above = np.repeat(np.arange(len(rows)), count)
    within = np.arange(len(above)) - np.repeat(np.cumsum(count) - count, count)
    return above, first[above] + within


def _joined(above: Indices, below: Indices, n: int) -> Indices:
    """Return the component of each of n runs, numbered from 0 without gaps."""
    parent = np.arange(n)
    while True:
        lower = np.minimum(parent[above], parent[below])
        if np.array_equal(parent[above], parent[below]):
            return np.unique(parent, return_inverse=True)[1]
        np.minimum.at(parent, parent[above], lower)
        np.minimum.at(parent, parent[below], lower)
        while not np.array_equal(parent, parent[parent]):
            parent = parent[parent]
