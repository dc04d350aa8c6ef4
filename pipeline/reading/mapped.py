"""Images that may be more than memory holds: in a file without a name, read as they are used."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Images


def mapped(images: Iterable[Images], shape: tuple[int, ...], folder: Path) -> Images:
    """Return the images, each of that shape, as one array of (n, *shape) that cannot be written.

    `folder`: where there is room for them. The file is gone with the array.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    with tempfile.TemporaryFile(dir=folder) as file:
        for image in images:
            file.write(image.tobytes())
            count += 1
        file.flush()
        if not count:
            return np.empty((0, *shape), np.uint8)
        return np.memmap(file, np.uint8, "r", shape=(count, *shape))


def taken(images: Images, index: NDArray[np.int32], folder: Path) -> Images:
    """Return the images at these places: mapped if all are."""
    if not isinstance(images, np.memmap):
        return images[index]
    return mapped((images[place] for place in index), images.shape[1:], folder)
