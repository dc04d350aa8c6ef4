"""Write `conf/data/NAME.yaml` for labelled pictures: `python -m pipeline.new_data NAME PATH`.

PATH is a folder, zip or tar with a folder for each class, or with an index. Every picture is
looked at; what was found and what to type next is printed.
"""

import argparse
import logging
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from pipeline.archives import packing, sources
from pipeline.config import PARAMS, PipelineError, environment
from pipeline.config.data_schema import Changes, Data, Folder, Format, Input, Preparation, Split
from pipeline.data.dataset import Splits
from pipeline.new_data import choices, definition, report
from pipeline.new_data.survey import Survey, class_folder, located, survey
from pipeline.reading import folder as pictures
from pipeline.reading import splits
from pipeline.reading.published import Published, is_test
from pipeline.storage.files import sha256, write

logger = logging.getLogger(__name__)


def main(arguments: list[str]) -> None:
    """Look at all pictures, write the definition, and say what to type next."""
    given = _parser().parse_args(arguments)
    file = Path(f"conf/data/{given.name}.yaml")
    _require_name(given.name)
    if (environment.root() / file).exists() and not given.force:
        raise PipelineError(f"{file} exists: choose another name, or replace it with --force")
    found, folder, source, group_of = _look(given)
    if not found.pictures:
        raise PipelineError(f"{given.path}: no picture can be read: {found.unreadable[0][1]}")
    logger.info("%s", report.found(found, given.path))

    data = _decided(given, found, folder, source)
    groups = [group_of[picture.name] for picture in found.pictures] if data.split.group else []
    parts = _split(data, found, groups)
    logger.info("%s", report.chosen(data, parts, len(set(groups))))
    write(environment.root() / file, _text(data, found, given.path))
    logger.info("\n%s", report.following(data, str(file), sound=not found.unreadable))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.new_data", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("name", metavar="NAME", help="what to call the data set: data=NAME")
    meaning = "the pictures; x.zip/inner names a folder in an archive"
    parser.add_argument("path", metavar="PATH", help=meaning)
    meaning = "a CSV in PATH with the columns file and label, in place of folders of classes"
    parser.add_argument("--index", metavar="FILE", help=meaning)
    parser.add_argument("--names", help="the classes, with commas, in the order of their folders")
    parser.add_argument("--size", type=int, help="side of the models' input in pixels")
    colours = parser.add_mutually_exclusive_group()
    colours.add_argument("--colour", action="store_const", const=3, dest="channels")
    colours.add_argument("--grey", action="store_const", const=1, dest="channels")
    kinds = [kind.value for kind in Preparation]
    parser.add_argument("--preparation", choices=kinds, default=Preparation.fit.value)
    meaning = (
        "what in a file's name is its writer or patient, or a column of the index; '' for none"
    )
    parser.add_argument("--group", metavar="REGEX", help=meaning)
    parser.add_argument("--force", action="store_true", help="replace the definition")
    return parser


def _require_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", name) or is_test(name):
        raise PipelineError(
            f"{name}: a data set's name is small letters, digits, - and _, begins with a letter, "
            "and not with test"
        )


def _look(given: argparse.Namespace) -> tuple[Survey, Folder, Path, dict[str, str]]:
    """Survey the pictures; return also where they are and, by name, the group of each."""
    source, inner = located(given.path)
    with sources.opened(source, pictures.MOST_BYTES) as (names, read):
        path = inner if given.index else class_folder(names, inner, given.path)
        folder = Folder(path, given.index)
        found = survey(pictures.labelled(names, read, folder, None, source), read)
        if given.group is None:
            given.group = choices.group(found.pictures)
        listed = pictures.labelled(names, read, folder, given.group or None, source)
    return found, folder, source, {each.name: each.group for each in listed}


def _decided(given: argparse.Namespace, found: Survey, folder: Folder, source: Path) -> Data:
    classes, folder.names = choices.classes(found.counts, given.names)
    side = given.size or choices.side(found)
    held_out = choices.held_out(found)
    name, digest = _packed(given.name, source)
    return Data(
        name=given.name,
        format=Format.folder,
        classes=classes,
        input=Input(side, side, given.channels or choices.channels(found)),
        preparation=Preparation(given.preparation),
        files={name: digest},
        mirrors=[_place(source)],
        split=Split(held_out, held_out, given.group or None),
        feedback=None,
        registered_model=given.name,
        folder=folder,
        augmentation=Changes(repeat=choices.repeat(found)),
    )


def _packed(name: str, source: Path) -> tuple[str, str]:
    """Return the name and the SHA-256 of the raw file."""
    if not source.is_dir():
        lower = source.name.lower()
        ending = max((each for each in sources.ENDINGS if lower.endswith(each)), key=len)
        return name + ending, sha256(source)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"{name}.zip"
        packing.pack(source, target)
        return target.name, sha256(target)


def _place(source: Path) -> str:
    """Return the path from the repository's root, if it is in or beside the repository."""
    root, place = environment.root(), Path(os.path.normpath(source.absolute()))
    return os.path.relpath(place, root) if place.is_relative_to(root.parent) else str(place)


def _split(data: Data, found: Survey, groups: list[str]) -> Splits:
    """Split as `preprocess` will, with digests for images; PipelineError if that is impossible."""
    splits.log.setLevel(logging.ERROR)  # the report says it in its own words
    labels = [
        (data.folder or Folder()).names.get(each.label, each.label) for each in found.pictures
    ]
    published = Published(
        np.stack([picture.digest for picture in found.pictures]),
        np.array([data.classes.index(label) for label in labels], np.uint8),
        0,
        [picture.name for picture in found.pictures],
        groups,
    )
    picks: Any = OmegaConf.load(environment.root() / PARAMS)
    return splits.split(published, data, picks.seed)


def _text(data: Data, found: Survey, path: str) -> str:
    colour = "in colour" if data.input.channels == 3 else "grey"
    title = (
        f"{len(found.pictures):,} pictures of {len(data.classes)} classes, {colour}.\nFrom {path}"
    )
    group = "the first group of this regular expression in a file's name"
    gates = {"test_accuracy": choices.LEAST_ACCURACY, "recall": choices.recall_gate(found)}
    note = group if data.split.group and "(" in data.split.group else None
    return definition.text(data, title, note, gates)
