"""Pictures that are scored: their sources, their labels, and the model's input of each."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.archives import sources as archives
from pipeline.archives.sources import Read, parts, shown
from pipeline.config import PipelineError
from pipeline.data.dataset import Images
from serve.decoding.decode import normalise_file, read_file
from serve.imaging.errors import ImageError
from serve.imaging.preparation import Preparation
from serve.settings import Settings

LIMITS = Settings.model_construct()  # the service's defaults; reads no environment

_CHUNK = 64  # pictures at a time: more make no call of the model faster


def named(sources: Sequence[Path]) -> dict[str, Path]:
    """Return the sources by name: the end of the path, as long as no two are the same.

    It is a PipelineError if a source is given twice.
    """
    paths = [source.resolve() for source in sources]
    for source, path in zip(sources, paths, strict=True):
        if paths.count(path) > 1:
            raise PipelineError(f"{source} is given twice: name each folder or .zip once")
    found = {}
    for source, path in zip(sources, paths, strict=True):
        ends = (path.parts[-length:] for length in range(1, len(path.parts) + 1))
        end = next(end for end in ends if sum(p.parts[-len(end) :] == end for p in paths) == 1)
        found[shown(str(Path(*end)))] = source
    return found


def opened(source: Path) -> AbstractContextManager[tuple[list[str], Read]]:
    """Return the pictures of a folder or an archive, within the limits of the service."""
    return archives.opened(source, LIMITS.max_image_bytes)


def labels(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Return the place of each picture's class in `classes`, by its folder; -1 if it has none.

    The folders of the classes may be in one top folder.
    """
    places = {name: place for place, name in enumerate(classes)}
    folders = [parts(name)[:-1] for name in names]
    while True:
        tops = [folder[0] if folder else "" for folder in folders]
        below = set(tops) - {""}
        if len(below) != 1 or below <= set(classes):
            return [places.get(top, -1) for top in tops]
        folders = [folder[1:] for folder in folders]


def inputs(
    names: Sequence[str], read: Read, preparation: Preparation
) -> Iterator[list[Images | str]]:
    """Yield the model's inputs, or why there is none: in order, some at a time.

    In one thread: more threads would wait for each other, and on two busy cores two processes read
    12,000 pictures no faster than one.
    """
    for start in range(0, len(names), _CHUNK):
        yield [_input(read(name), preparation) for name in names[start : start + _CHUNK]]


def _input(content: bytes | str, preparation: Preparation) -> Images | str:
    if isinstance(content, str):
        return content
    try:
        most = LIMITS.max_image_pixels
        return normalise_file(content, max_pixels=most, preparation=preparation)
    except ImageError as error:
        return str(error)


def both(content: bytes, side: int, preparation: Preparation) -> tuple[Images, Images]:
    """Return a picture as decoded, reduced to `side` pixels, and the model's input of it."""
    most = LIMITS.max_image_pixels
    reading = read_file(content, max_pixels=most, preparation=preparation)
    picture = Image.fromarray(reading.pixels)
    picture.thumbnail((side, side))
    return np.asarray(picture), reading.normalised.image
