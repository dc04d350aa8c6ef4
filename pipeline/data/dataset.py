"""The data set: MNIST's file format (IDX), and the splits that every later stage reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from pipeline.config import PipelineError
from pipeline.storage.files import write_arrays

Images = NDArray[np.uint8]
Labels = NDArray[np.uint8]

CLASSES = 10
SIDE = 28

_IDX_UBYTE = 0x08


def read_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """Return the array in an IDX file of unsigned bytes: (n, 28, 28) images or (n,) labels.

    The format: two zero bytes, the type, the number of dimensions, each dimension as a big-endian
    32-bit count, the data (http://yann.lecun.com/exdb/mnist/, "The IDX file format").

    Raises:
        PipelineError: wrong magic number, or not the announced number of bytes.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _IDX_UBYTE:
        raise PipelineError(
            f"{name}: no IDX file of unsigned bytes (its magic number is {content[:4].hex()})"
        )
    end = 4 + 4 * content[3]
    if len(content) < end:
        raise PipelineError(f"{name}: ends within its header")
    shape = tuple(int(n) for n in np.frombuffer(content[4:end], ">u4"))
    expected = math.prod(shape)
    if len(content) - end != expected:
        raise PipelineError(
            f"{name}: announces {shape} = {expected} bytes of data, holds {len(content) - end}"
        )
    return np.frombuffer(content, np.uint8, offset=end).reshape(shape)


def write_idx(array: NDArray[np.uint8]) -> bytes:
    """Return the IDX file of an array of unsigned bytes; the inverse of `read_idx`."""
    header = bytes([0, 0, _IDX_UBYTE, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()


@dataclass(frozen=True)
class Split:
    """Part of a data set.

    `images`: (n, 28, 28) uint8, digit bright on dark. `labels`: (n,) uint8.
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
    """

    train: Split
    validation: Split
    test: Split
    feedback: Split | None = None


NAMES = ("train", "validation", "test")
FEEDBACK = "feedback"
_ARRAYS = ("images", "labels", "index")


def save(splits: Splits, path: Path) -> None:
    """Write the splits as one uncompressed `.npz`; equal arrays give equal bytes."""
    names = NAMES if splits.feedback is None else (*NAMES, FEEDBACK)
    arrays = {
        f"{name}_{array}": getattr(getattr(splits, name), array)
        for name in names
        for array in _ARRAYS
    }
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


def _opened(path: Path) -> NpzFile:
    try:
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: python -m pipeline.preprocess") from None
