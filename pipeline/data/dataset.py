"""The data set in memory: the splits that `preprocess` writes and every later stage reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from pipeline.config import PipelineError
from pipeline.storage.files import write_arrays

CLASSES, SIDE = 10, 28  # of the digits, for what knows them alone

Images = NDArray[np.uint8]
Labels = NDArray[np.uint8]


def with_channels(images: Images) -> Images:
    """Return (n, h, w, channels) of images that may leave out one channel."""
    return images if images.ndim == 4 else images[..., None]


def digit_counts(labels: Labels) -> dict[str, int]:
    """Return the number of images of each digit."""
    return {str(digit): int(n) for digit, n in enumerate(np.bincount(labels, minlength=CLASSES))}


def no_images() -> Images:
    """Return (0, 28, 28)."""
    return np.empty((0, SIDE, SIDE), np.uint8)


@dataclass(frozen=True)
class Split:
    """Part of a data set.

    `images`: (n, h, w) uint8, or (n, h, w, 3) in colour, prepared as the service prepares them.
    `labels`: (n,) uint8, places in the classes of the data set.
    `index`: (n,) int32, each image's position in the files as published, test files last.
    """

    images: Images
    labels: Labels
    index: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, mask: NDArray[np.bool_]) -> Split:
        """Return the images for which `mask`, (n,), is true."""
        return Split(self.images[mask], self.labels[mask], self.index[mask])

    def joined(self, other: Split) -> Split:
        """Return the images of both, those of `other` last."""
        arrays = ((getattr(self, name), getattr(other, name)) for name in _ARRAYS)
        return Split(*map(np.concatenate, arrays))


@dataclass(frozen=True)
class Splits:
    """A whole data set; no image is in two of its parts.

    `feedback`: the users' feedback that is held out of training, if the data set has feedback.
    `nondigits`: images that are none of the digits, as users said.
    """

    train: Split
    validation: Split
    test: Split
    feedback: Split | None = None
    nondigits: Images = field(default_factory=no_images, kw_only=True)


NAMES = ("train", "validation", "test")
FEEDBACK = "feedback"
NONDIGITS = "nondigits"
_ARRAYS = ("images", "labels", "index")


def save(splits: Splits, path: Path) -> None:
    """Write the splits as one uncompressed `.npz`; equal arrays give equal bytes."""
    names = NAMES if splits.feedback is None else (*NAMES, FEEDBACK)
    arrays = {
        f"{name}_{array}": getattr(getattr(splits, name), array)
        for name in names
        for array in _ARRAYS
    }
    if len(splits.nondigits):
        arrays[NONDIGITS] = splits.nondigits
    write_arrays(path, **arrays)


def load(path: Path, name: str) -> Split:
    """Read one split; the other arrays stay unread, so that only `evaluate` opens the test set."""
    with _opened(path) as arrays:
        return Split(*(arrays[f"{name}_{array}"] for array in _ARRAYS))


def load_feedback(path: Path) -> Split | None:
    """Read the feedback that is held out of training, or None for data without feedback."""
    with _opened(path) as arrays:
        there = f"{FEEDBACK}_labels" in arrays
    return load(path, FEEDBACK) if there else None


def load_nondigits(path: Path) -> Images:
    """Read the images of which users said that they are none of the digits."""
    with _opened(path) as arrays:
        return arrays[NONDIGITS] if NONDIGITS in arrays else no_images()


def _opened(path: Path) -> NpzFile:
    try:
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: python -m pipeline.preprocess") from None
