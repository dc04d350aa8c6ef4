"""Configuration schema: the types and limits of every setting.

The dataclasses carry no defaults: values are written in `conf/` alone. What is optional there is
null: it has no effect and is not recorded.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, TypeVar

from omegaconf import MISSING, DictConfig, OmegaConf

from pipeline.config.errors import PipelineError

T = TypeVar("T")

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


class OptimizerName(Enum):
    """Optimisers that `pipeline.train` can build."""

    adam = "adam"
    adamw = "adamw"
    sgd = "sgd"


class Schedule(Enum):
    """Learning-rate schedule: from the peak to the end of training."""

    constant = "constant"
    cosine = "cosine"


class Precision(Enum):
    """Keras dtype policies: what layers compute in. Weights are float32 in all of them."""

    float32 = "float32"
    mixed_bfloat16 = "mixed_bfloat16"
    mixed_float16 = "mixed_float16"


def _rules() -> dict[str, tuple[str, Callable[[float], bool]]]:
    """Return for each key of a number what it must be, in words and as a test."""
    positive = "threads batch_size epochs model.contrast model.filters model.kernel model.pool "
    positive += "optimizer.learning_rate data.feedback.least trials processes "
    positive += "data.augmentation.repeat"
    not_negative = "model.dense optimizer.warmup_epochs early_stopping.patience "
    not_negative += "augmentation.rotation augmentation.shift augmentation.shear "
    not_negative += "augmentation.elastic pruner.startup_trials pruner.warmup_epochs"
    rates = "model.dropout model.dense_dropout"
    shares = "augmentation.stroke_width augmentation.blurred augmentation.disturbed "
    shares += "augmentation.drawn"
    return {
        **dict.fromkeys(positive.split(), ("positive", lambda value: value > 0)),
        **dict.fromkeys(not_negative.split(), ("0 or positive", lambda value: value >= 0)),
        **dict.fromkeys(rates.split(), ("from 0 to 0.9", lambda rate: 0 <= rate <= 0.9)),
        "seed": ("from 0 to 2147483647", lambda seed: 0 <= seed < 2**31),
        **dict.fromkeys(
            ("data.input.height", "data.input.width"),
            ("from 8 to 512 pixels", lambda side: 8 <= side <= 512),
        ),
        "data.input.channels": ("1 (grey) or 3 (colour)", lambda channels: channels in (1, 3)),
        "data.augmentation.flip": ("from 0 to 0.5", lambda share: 0 <= share <= 0.5),
        "data.augmentation.colour": ("from 0 to 1", lambda share: 0 <= share <= 1),
        **dict.fromkeys(shares.split(), ("from 0 to 1", lambda share: 0 <= share <= 1)),
        "augmentation.zoom": ("0 or positive, and below 1", lambda zoom: 0 <= zoom < 1),
        # Something stays on both sides, and what was published outweighs feedback.
        "data.feedback.held_out": ("above 0, at most 0.9", lambda share: 0 < share <= 0.9),
        "data.feedback.largest_share": ("above 0, at most 0.5", lambda share: 0 < share <= 0.5),
    }


_RULES = _rules()


def require(condition: bool, key: str, words: str, value: object) -> None:
    """Refuse a value that breaks a rule, with a message that names the key."""
    if not condition:
        raise PipelineError(f"{key} must be {words}, not {value}")


def checked(composed: DictConfig, schema: type[T], place: str) -> T:
    """Return a configuration, whose values are written in `place`, as an object.

    A PipelineError names the key whose value is missing or out of its range.
    """
    if missing := OmegaConf.missing_keys(composed):
        raise PipelineError(f"no value for {', '.join(sorted(missing))} in {place}")
    config = OmegaConf.to_object(composed)
    assert isinstance(config, schema)
    return config


class Section:
    """A part of the configuration; refuses numbers out of their range when it is made."""

    prefix: ClassVar[str]  # of its keys

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and (rule := _RULES.get(self.prefix + name)):
                words, allowed = rule
                require(math.isfinite(value), self.prefix + name, "finite", value)
                require(allowed(value), self.prefix + name, words, value)


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


@dataclass
class Model(Section):
    """A convolution, a max-pool, blocks of 3x3 convolutions and, unless `dense` is 0, a layer.

    `blocks` lists the filters of each convolution of each block; between blocks are max-pools of 2.
    With blocks, each convolution is batch-normalised. `residual` adds each block's input to its
    output (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016).
    """

    prefix = "model."

    contrast: float = MISSING
    filters: int = MISSING
    kernel: int = MISSING
    pool: int = MISSING
    blocks: list[list[int]] = MISSING
    dropout: float = MISSING
    dense: int = MISSING
    dense_dropout: float = MISSING
    residual: bool | None = None

    def __post_init__(self) -> None:
        """Refuse also blocks without filters."""
        super().__post_init__()
        sound = all(block and min(block) > 0 for block in self.blocks)
        require(sound, "model.blocks", "lists of positive numbers of filters", self.blocks)

    def require_fit(self, height: int, width: int) -> None:
        """Refuse what leaves nothing of an image of this size."""
        side = min(height, width)
        words = f"from 1 to {side} (an image's shorter side)"
        require(self.kernel <= side, "model.kernel", words, self.kernel)
        side -= self.kernel - 1
        words = f"at most {side}, which a kernel of {self.kernel} leaves of an image"
        require(self.pool <= side, "model.pool", words, self.pool)
        most = (side // self.pool).bit_length()  # each block but the last halves the image
        words = f"at most {most} blocks, or nothing is left of an image"
        require(len(self.blocks) <= most, "model.blocks", words, len(self.blocks))


@dataclass
class Optimizer(Section):
    """The update rule and its learning rate over time."""

    prefix = "optimizer."

    name: OptimizerName = MISSING
    learning_rate: float = MISSING
    schedule: Schedule = MISSING
    warmup_epochs: float = MISSING


@dataclass
class Augmentation(Section):
    """Random changes of the training images, and digits drawn in addition.

    The largest change of an image, either way: degrees, pixels, share of the size, slant, pixels,
    share of a pixel's width. The shares of the images that are blurred, and disturbed by grounds,
    noise and lines. The share of drawn digits, of the images of the data set.
    """

    prefix = "augmentation."

    rotation: float = MISSING
    shift: float = MISSING
    zoom: float = MISSING
    shear: float = MISSING
    elastic: float = MISSING
    stroke_width: float = MISSING
    blurred: float = MISSING
    disturbed: float = MISSING
    drawn: float = MISSING


@dataclass
class EarlyStopping(Section):
    """Stop when `val_loss` has not improved for `patience` epochs; 0 trains to the end."""

    prefix = "early_stopping."

    patience: int = MISSING


@dataclass
class Config(Section):
    """Everything that decides the output of a stage."""

    prefix = ""

    seed: int = MISSING
    threads: int = MISSING
    runs: list[int] = MISSING
    data: Data = MISSING
    run: int = MISSING
    name: str = MISSING
    model: Model = MISSING
    optimizer: Optimizer = MISSING
    batch_size: int = MISSING
    epochs: int = MISSING
    augmentation: Augmentation = MISSING
    early_stopping: EarlyStopping = MISSING
    precision: Precision = MISSING

    def __post_init__(self) -> None:
        """Refuse also too deep networks, no runs, and names that break plots, tables or refs."""
        super().__post_init__()
        self.model.require_fit(self.data.input.height, self.data.input.width)
        require(bool(self.runs), "runs", "at least one run of conf/run/", self.runs)
        # `$` is mathtext in plots, `[` is markup in tables, and Git refuses `..` in experiments.
        safe = re.fullmatch(r"\w([\w +.-]*\w)?", self.name) and ".." not in self.name
        require(bool(safe), "name", "letters, digits and single ` _-+.`", repr(self.name))
