"""Configuration schema: the types and limits of every setting.

The dataclasses carry no defaults: values are written in `conf/` alone. What is optional there is
null: it has no effect and is not recorded.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from omegaconf import MISSING, DictConfig, OmegaConf

from pipeline.config.data_schema import Data
from pipeline.config.errors import PipelineError
from pipeline.config.section import Section, require

T = TypeVar("T")


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


def checked(composed: DictConfig, schema: type[T], place: str) -> T:
    """Return a configuration, whose values are written in `place`, as an object.

    A PipelineError names the key whose value is missing or out of its range.
    """
    if missing := OmegaConf.missing_keys(composed):
        raise PipelineError(f"no value for {', '.join(sorted(missing))} in {place}")
    config = OmegaConf.to_object(composed)
    assert isinstance(config, schema)
    return config


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
