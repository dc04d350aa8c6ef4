"""Configuration schema of a data set: `conf/data/<name>.yaml`."""

import re
from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from pipeline.config.section import Section, require

MAX_CLASSES = 256  # labels are stored as bytes


class Format(Enum):
    """How the raw files of a data set are laid out."""

    idx = "idx"  # MNIST's four files
    csv = "csv"  # rows of pixels and a label
    npz = "npz"  # arrays of images and labels
    folder = "folder"  # a zip, tar or folder of image files: a folder per class, or an index


class Preparation(Enum):
    """How a picture becomes the models' input: see `serve.imaging.preparation`."""

    digit = "digit"
    fit = "fit"
    crop = "crop"


@dataclass
class Split:
    """Images held out of the training files; `test: 0` where there are test files.

    `group`: a column of the index, or a regular expression whose group in a picture's path is its
    group, such as a writer. Pictures of a group are in one split.
    """

    validation: int = MISSING
    test: int = MISSING
    group: str | None = None


@dataclass
class Input(Section):
    """Size of the models' input: pixels, and 1 channel (grey) or 3 (colour)."""

    prefix = "data.input."

    height: int = MISSING
    width: int = MISSING
    channels: int = MISSING


@dataclass
class Folder:
    """Where in an archive the pictures are, and which class each has.

    `path`: the folder of the classes' folders. `index`: a CSV in that folder with the columns
    `file` and `label`. `names`: the class of a folder or label, where they differ.
    """

    path: str = ""
    index: str | None = None
    names: dict[str, str] = field(default_factory=dict)


@dataclass
class Changes(Section):
    """Random changes of training images that depend on the data set.

    The share of the images that are mirrored; the largest change of brightness, contrast and
    saturation, as a share. `repeat`: how often an epoch shows each image, changed anew each time;
    a data set of few images needs as many steps as one of many.
    """

    prefix = "data.augmentation."

    flip: float | None = None
    colour: float | None = None
    repeat: int | None = None


@dataclass
class Feedback(Section):
    """Users' feedback as training data: which export, and how much of it trains."""

    prefix = "data.feedback."

    sha256: str | None = MISSING
    held_out: float = MISSING
    largest_share: float = MISSING
    least: int = MISSING


@dataclass
class Data:
    """A data set: its files with the SHA-256 of their decompressed bytes, and where to get them.

    `classes`: the labels, in the order of the models' outputs. `preparation`: of a picture to an
    image of the size `input`. `registered_model`: where its champions go; null for nowhere.
    `gates`: limits in place of those of `conf/register.yaml`.
    """

    name: str = MISSING
    format: Format = MISSING
    classes: list[str] = MISSING
    input: Input = MISSING
    preparation: Preparation = MISSING
    files: dict[str, str] = MISSING
    mirrors: list[str] = MISSING
    split: Split = MISSING
    feedback: Feedback | None = MISSING
    registered_model: str | None = MISSING
    folder: Folder | None = None
    augmentation: Changes = field(default_factory=Changes)
    gates: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse classes that no model could tell apart, and digits of another size."""
        distinct = len(set(self.classes)) == len(self.classes) and all(self.classes)
        require(distinct, "data.classes", "distinct, not empty labels", self.classes)
        known = 2 <= len(self.classes) <= MAX_CLASSES
        require(known, "data.classes", f"from 2 to {MAX_CLASSES} labels", len(self.classes))
        digit = self.preparation is Preparation.digit
        words = "28x28 pixels of 1 channel for preparation=digit"
        require(not digit or self.shape == (28, 28, 1), "data.input", words, self.shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.input.height, self.input.width, self.input.channels

    @property
    def labels(self) -> list[int] | list[str]:
        """The classes as answers name them: whole numbers if all of them are."""
        numbers = [int(name) for name in self.classes if re.fullmatch(r"0|-?[1-9]\d*", name)]
        return numbers if len(numbers) == len(self.classes) else self.classes

    @property
    def digits(self) -> bool:
        """Whether these are the ten digits, as MNIST has them: what is known of digits applies."""
        return self.preparation is Preparation.digit and self.labels == list(range(10))
