"""The format `folder`: archives of picture files, with a folder for each class or an index."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.archives import sources
from pipeline.archives.sources import Read, parts, shown
from pipeline.config import PipelineError, paths
from pipeline.config.data_schema import Data, Folder
from pipeline.data.dataset import Images
from pipeline.reading.mapped import mapped
from pipeline.reading.prepared import image_shape
from pipeline.reading.published import Published, is_test
from serve.decoding.decode import decode
from serve.imaging.errors import ImageError
from serve.imaging.preparation import Preparation

MOST_BYTES = 64_000_000  # of a picture's file
MOST_PIXELS = 64_000_000  # of a picture
_TOLD = 5  # names in a message


class Labelled(NamedTuple):
    """A picture's name in its archive, its label there, and its group."""

    name: str
    label: str
    group: str


def read(folder: Path, data: Data, preparation: Preparation) -> Published:
    """Read and prepare all pictures; a PipelineError names what is wrong with the archives."""
    where, group = data.folder or Folder(), data.split.group
    pictures: list[Labelled] = []
    labels: list[int] = []
    own_test = 0

    def images() -> Iterator[Images]:
        nonlocal own_test
        for file in sorted(data.files, key=is_test):
            with sources.opened(folder / file, MOST_BYTES) as (there, content):
                found = labelled(there, content, where, group, folder / file)
                labels.extend(_place(each, data, folder / file) for each in found)
                names = [each.name for each in found]
                yield from _images(names, content, preparation, folder / file)
            pictures.extend(found)
            own_test += len(found) * is_test(file)

    stored = mapped(images(), image_shape(preparation), paths.processed(data.name).parent)
    groups = [each.group for each in pictures if group]
    names = [each.name for each in pictures]
    return Published(stored, np.array(labels, np.uint8), own_test, names, groups)


def labelled(
    names: list[str], content: Read, where: Folder, group: str | None, file: Path
) -> list[Labelled]:
    """Return the pictures of an archive, sorted; PipelineError if one has no label or group."""
    if where.index:
        return _indexed(_index(content, where, file), set(map(_plain, names)), group, where, file)
    group_of = _pattern(group) if group else lambda name: ""
    top = parts(where.path) if where.path else []
    inside = [name for name in names if parts(name)[: len(top)] == top]
    if not inside:
        tops = sorted({parts(name)[0] for name in names})
        raise PipelineError(
            f"{file} has no pictures in folder.path {where.path}, but in {_some(tops)}"
        )
    found = []
    for name in inside:
        below = parts(name)[len(top) :]
        if len(below) == 1:
            raise PipelineError(
                f"{file}: {shown(name)} is in no folder of a class: move it to one, or remove it"
            )
        found.append(Labelled(name, below[0], group_of(name)))
    return found


def _plain(name: str) -> str:
    return "/".join(parts(name))


def _index(content: Read, where: Folder, file: Path) -> list[dict[str, str]]:
    name = _plain(f"{where.path}/{where.index}").removeprefix("/")
    table = content(name)
    if isinstance(table, str):
        raise PipelineError(f"{file}: the index {name} cannot be read: {table}")
    try:
        return list(csv.DictReader(io.StringIO(table.decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise PipelineError(f"{file}: the index {name} is no CSV in UTF-8: {error}") from None


def _indexed(
    rows: list[dict[str, str]], names: set[str], group: str | None, where: Folder, file: Path
) -> list[Labelled]:
    columns = list(rows[0]) if rows else []
    pattern = bool(group) and group not in columns and "(" in str(group)
    wanted = ["file", "label", *([group] if group and not pattern else [])]
    for column in wanted:
        if column not in columns:
            raise PipelineError(
                f"{file}: the index {where.index} has no column {column}, but "
                f"{', '.join(map(str, columns)) or 'no rows'}"
            )
    group_of = _pattern(str(group)) if pattern else None
    found = []
    for row in rows:
        name = _plain(f"{where.path}/{row['file']}").removeprefix("/")
        if name not in names:
            raise PipelineError(
                f"{file}: the index {where.index} names {shown(name)}, which is no picture there"
            )
        value = group_of(name) if group_of else row[group] if group else ""
        found.append(Labelled(name, row["label"], value))
    return sorted(found)


def _pattern(group: str) -> Callable[[str], str]:
    """Return what finds the group in a picture's name."""
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise PipelineError(
            f"data.split.group {group} is no regular expression: {error}: write it between '…'"
        ) from None

    def found(name: str) -> str:
        if match := pattern.search(name):
            return str(match[1] if pattern.groups else match[0])
        raise PipelineError(f"data.split.group {group} finds no group in {shown(name)}")

    return found


def _place(picture: Labelled, data: Data, file: Path) -> int:
    name = (data.folder or Folder()).names.get(picture.label, picture.label)
    if name not in data.classes:
        raise PipelineError(
            f"{file}: {shown(picture.name)} is of {shown(picture.label)}, which is no class: add "
            f"it to `classes` in conf/data/{data.name}.yaml, give its class under `folder.names`, "
            "or leave it out"
        )
    return data.classes.index(name)


def _images(
    names: list[str], content: Read, preparation: Preparation, file: Path
) -> Iterator[Images]:
    """Yield the images; in the end a PipelineError names the pictures that cannot be read."""
    bad = []
    for name, made in zip(names, _made(names, content, preparation), strict=True):
        if isinstance(made, str):
            bad.append(f"{shown(name)} ({made})")
        else:
            yield made
    if bad:
        count = f"{len(bad)} pictures" if len(bad) > 1 else "a picture"
        raise PipelineError(f"{file}: {count} cannot be read: {_some(bad)}: repair or remove them")


def _made(names: list[str], content: Read, preparation: Preparation) -> Iterator[Images | str]:
    for name in names:
        found = content(name)
        if isinstance(found, str):
            yield found
            continue
        try:
            picture = decode(found, max_pixels=MOST_PIXELS, channels=preparation.channels)
            yield preparation(picture.pixels).image
        except ImageError as error:
            yield str(error)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return ", ".join(names[:_TOLD]) + more
