"""What a source of labelled pictures holds: where it is, its classes, and every picture's facts."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.archives import sources
from pipeline.archives.sources import Read, parts
from pipeline.config import PipelineError
from pipeline.config.terminal import Bar
from pipeline.data.dataset import Images
from pipeline.reading.folder import MOST_PIXELS, Labelled
from serve.decoding.decode import decode
from serve.imaging.errors import ImageError

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
# A picture is in colour if a hundredth of it has channels that differ by more than JPEG's noise.
_COLOUR, _COLOURED = 32, 0.01

Size = tuple[int, int]  # width, height


class Seen(NamedTuple):
    """A picture that was decoded. `digest`: of its pixels, (32,) uint8."""

    name: str
    label: str
    size: Size
    coloured: bool
    digest: Images


class Survey(NamedTuple):
    """All pictures of a source; of the unreadable ones the name and the reason."""

    pictures: list[Seen]
    unreadable: list[tuple[str, str]]

    @property
    def counts(self) -> Counter[str]:
        """The number of pictures of each label."""
        return Counter(picture.label for picture in self.pictures)

    @property
    def copies(self) -> list[list[Seen]]:
        """The pictures that are there more than once, each list of the same pixels."""
        same = defaultdict(list)
        for picture in self.pictures:
            same[picture.digest.tobytes()].append(picture)
        return [found for found in same.values() if len(found) > 1]


def located(path: str) -> tuple[Path, str]:
    """Return a folder or an archive, and the folder in the archive: `x.zip/inner` has one.

    It is a PipelineError if there is neither.
    """
    place = Path(path).expanduser()
    for source in (place, *place.parents):
        if source.is_dir() and source == place:
            return source, ""
        if source.is_file():
            if not source.name.lower().endswith(sources.ENDINGS):
                raise PipelineError(f"{source} is no folder, and no {', '.join(sources.ENDINGS)}")
            inner = place.relative_to(source).as_posix()
            return source, "" if inner == "." else inner
    raise PipelineError(f"{path} does not exist: name a folder, a .zip or a .tar of pictures")


def class_folder(names: Sequence[str], inner: str, path: str) -> str:
    """Return the folder of the classes' folders: the deepest one that holds all pictures.

    It is a PipelineError if the pictures are in no folders, or in those of splits.
    """
    top = parts(inner) if inner else []
    folders = [parts(name)[:-1] for name in names]
    folders = [folder for folder in folders if folder[: len(top)] == top]
    if not folders:
        tops = sorted({parts(name)[0] for name in names})[:5]
        raise PipelineError(f"{path} has no pictures; at the top are {', '.join(tops)}")
    levels = takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False))
    common = [level[0] for level in levels]
    if common in folders:
        where = "/".join(common) or "its top"
        raise PipelineError(
            f"{path} has pictures that are in no folder of a class, in {where}: put the pictures of"
            " each class in a folder, or name a CSV with the columns file and label: --index FILE"
        )
    below = {folder[len(common)].lower() for folder in folders}
    if below <= _SPLITS:
        raise PipelineError(
            f"{path} has the folders {', '.join(sorted(below))}, which are no classes: name one of "
            "them, or put all pictures of a class in one folder; the pipeline splits them"
        )
    return "/".join(common)


def survey(pictures: Sequence[Labelled], read: Read) -> Survey:
    """Decode every picture."""
    found = Survey([], [])
    with Bar("pictures", len(pictures)) as bar:
        for picture in pictures:
            seen = _seen(picture, read(picture.name))
            if isinstance(seen, Seen):
                found.pictures.append(seen)
            else:
                found.unreadable.append((picture.name, seen))
            bar.step()
    return found


def _seen(picture: Labelled, content: bytes | str) -> Seen | str:
    if isinstance(content, str):
        return content
    try:
        decoded = decode(content, max_pixels=MOST_PIXELS, channels=3)
    except ImageError as error:
        return str(error)
    pixels = decoded.pixels
    coloured = np.mean(np.ptp(pixels, axis=2) > _COLOUR) > _COLOURED
    digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).digest()
    return Seen(
        picture.name, picture.label, decoded.size, bool(coloured), np.frombuffer(digest, np.uint8)
    )
