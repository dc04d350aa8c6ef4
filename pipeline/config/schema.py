"""Configuration schema: the types and limits of every setting.

The dataclasses carry no defaults: values are written in `conf/` alone.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, TypeVar

from omegaconf import MISSING, DictConfig, OmegaConf

from pipeline.config.errors import PipelineError

T = TypeVar("T")

CLASSES = 10
SIDE = 28  # pixels of an image, in both directions


class Format(Enum):
    """How the raw files of a data set are laid out."""

    idx = "idx"
    csv = "csv"


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
    positive = "threads batch_size epochs model.contrast model.filters model.pool "
    positive += "optimizer.learning_rate data.feedback.least trials processes"
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
        "model.kernel": (f"from 1 to {SIDE} (an image's side)", lambda side: 1 <= side <= SIDE),
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
            if rule := _RULES.get(self.prefix + name):
                words, allowed = rule
                require(math.isfinite(value), self.prefix + name, "finite", value)
                require(allowed(value), self.prefix + name, words, value)


@dataclass
class Split:
    """Images held out of the training files; `test: 0` where there are test files."""

    validation: int = MISSING
    test: int = MISSING


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
    """A data set: its files with the SHA-256 of their decompressed bytes, and where to get them."""

    name: str = MISSING
    format: Format = MISSING
    files: dict[str, str] = MISSING
    mirrors: list[str] = MISSING
    split: Split = MISSING
    feedback: Feedback | None = MISSING


@dataclass
class Model(Section):
    """A convolution, a max-pool, blocks of 3x3 convolutions and, unless `dense` is 0, a layer.

    `blocks` lists the filters of each convolution of each block; between blocks are max-pools of 2.
    With blocks, each convolution is batch-normalised.
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

    def __post_init__(self) -> None:
        """Refuse also a pool that is larger than what the convolution leaves of an image."""
        super().__post_init__()
        side = SIDE - self.kernel + 1
        words = f"at most {side}, which a kernel of {self.kernel} leaves of an image"
        require(self.pool <= side, "model.pool", words, self.pool)
        sound = all(block and min(block) > 0 for block in self.blocks)
        require(sound, "model.blocks", "lists of positive numbers of filters", self.blocks)
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
        """Refuse also an empty list of runs, and names that break plots, tables or Git refs."""
        super().__post_init__()
        require(bool(self.runs), "runs", "at least one run of conf/run/", self.runs)
        # `$` is mathtext in plots, `[` is markup in tables, and Git refuses `..` in experiments.
        safe = re.fullmatch(r"\w([\w +.-]*\w)?", self.name) and ".." not in self.name
        require(bool(safe), "name", "letters, digits and single ` _-+.`", repr(self.name))
