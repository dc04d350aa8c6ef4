"""A data set as its files have it: prepared images with their classes, not split yet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.config import PipelineError
from pipeline.config.data_schema import Data
from pipeline.data.dataset import Images, Labels


class Published(NamedTuple):
    """A data set in the order of its files; the last `own_test` images are its test set.

    `images`: (n, h, w) or (n, h, w, 3) uint8, prepared. `labels`: (n,), places in the classes.
    `names`: the files of the pictures, if each has one. `groups`: the group of each picture, if
    those of a group stay together.
    """

    images: Images
    labels: Labels
    own_test: int
    names: Sequence[str] = ()
    groups: Sequence[str] = ()

    def name(self, place: int) -> str:
        """Return what to call an image in a message."""
        return self.names[place] if self.names else f"image {place}"


def is_test(file: str) -> bool:
    """Return whether a raw file holds the test set, by its name."""
    return file.startswith(("test", "t10k"))


def places(labels: NDArray[Any], data: Data, file: Path) -> Labels:
    """Return the places of labels in the classes of the data set, (n,).

    A label is the name of a class, or its place if no class is named by a number. A PipelineError
    names a label that is neither.
    """
    known = {name: place for place, name in enumerate(data.classes)}
    if not any(name.isdigit() for name in data.classes):
        known |= {str(place): place for place in range(len(data.classes))}
    different, inverse = np.unique(np.strings.strip(np.asarray(labels, str)), return_inverse=True)
    for label in different:
        if str(label) not in known:
            raise PipelineError(
                f"{file}: label {label} is none of the {len(data.classes)} classes "
                f"({data.classes[0]} to {data.classes[-1]}): add it to `classes` in "
                f"conf/data/{data.name}.yaml, or leave its images out"
            )
    found = np.array([known[str(label)] for label in different], np.uint8)
    return found[inverse.reshape(-1)]


def require_classes(published: Published, data: Data, folder: Path) -> None:
    """Refuse a class without an image."""
    counts = np.bincount(published.labels, minlength=len(data.classes))
    if empty := [name for name, count in zip(data.classes, counts, strict=True) if not count]:
        where = f"; its folder would be {_folder_of(empty[0], data)}" if published.names else ""
        raise PipelineError(
            f"{folder}: no image of class {', '.join(empty)}{where}: add some, or take the class "
            f"out of `classes` in conf/data/{data.name}.yaml"
        )


def _folder_of(name: str, data: Data) -> str:
    path, names = (data.folder.path, data.folder.names) if data.folder else ("", {})
    label = next((label for label, other in names.items() if other == name), name)
    return f"{path.rstrip('/')}/{label}/".removeprefix("/")
