"""Images and labels: the published formats, and the three splits that every other stage reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from pipeline.config import PipelineError
from pipeline.storage.files import replacing

Images = NDArray[np.uint8]
Labels = NDArray[np.uint8]

CLASSES = 10
SIDE = 28

_IDX_UBYTE = 0x08


def read_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """Array of an IDX file of unsigned bytes: (n, 28, 28) images or (n,) labels.

    The format: two zero bytes, the type, the number of dimensions, each dimension as a big-endian
    32-bit count, the data (http://yann.lecun.com/exdb/mnist/, "The IDX file format").

    Raises:
        PipelineError: wrong magic number, or other than the announced number of bytes.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _IDX_UBYTE:
        raise PipelineError(
            f"{name}: magic number {content[:4].hex()} is not that of an IDX file of bytes"
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
    """The IDX file of an array of unsigned bytes; the inverse of `read_idx`."""
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


@dataclass(frozen=True)
class Splits:
    """The whole data set; no image is in two of its parts.

    `feedback`: what was held out of what users told the service, where that is part of the data.
    """

    train: Split
    validation: Split
    test: Split
    feedback: Split | None = None


NAMES = ("train", "validation", "test")
FEEDBACK = "feedback"
_ARRAYS = ("images", "labels", "index")


def save(splits: Splits, path: Path) -> None:
    """Writes the splits as one uncompressed `.npz`: its bytes depend on nothing but the arrays."""
    names = NAMES if splits.feedback is None else (*NAMES, FEEDBACK)
    arrays = {
        f"{name}_{array}": getattr(getattr(splits, name), array)
        for name in names
        for array in _ARRAYS
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def load(path: Path, name: str) -> Split:
    """One part of the data set; the others stay unread: none but its user opens the test set."""
    with _opened(path) as arrays:
        return Split(*(arrays[f"{name}_{array}"] for array in _ARRAYS))


def load_feedback(path: Path) -> Split | None:
    """The part that was held out of the users' feedback, where that is part of the data."""
    with _opened(path) as arrays:
        there = f"{FEEDBACK}_labels" in arrays
    return load(path, FEEDBACK) if there else None


def _opened(path: Path) -> NpzFile:
    try:
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: python -m pipeline.preprocess") from None
