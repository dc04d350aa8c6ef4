"""Configuration schema, and `stage()`, which makes a stage's `main` a command.

The dataclasses carry types and limits, never defaults: values are written in `conf/` alone.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig, OmegaConf

from pipeline.config.startup import start_program

CONF = Path(__file__).parents[2] / "conf"
PARAMS = Path("params.yaml")
CLASSES = 10
SIDE = 28  # pixels of an image, in both directions


class PipelineError(Exception):
    """A failure that the user can fix; its message says how."""


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
    positive += "optimizer.learning_rate data.feedback.least"
    not_negative = "model.dense optimizer.warmup_epochs early_stopping.patience "
    not_negative += "augmentation.rotation augmentation.shift augmentation.shear"
    rates = "model.dropout model.dense_dropout"
    return {
        **dict.fromkeys(positive.split(), ("positive", lambda value: value > 0)),
        **dict.fromkeys(not_negative.split(), ("0 or positive", lambda value: value >= 0)),
        **dict.fromkeys(rates.split(), ("from 0 to 0.9", lambda rate: 0 <= rate <= 0.9)),
        "seed": ("from 0 to 2147483647", lambda seed: 0 <= seed < 2**31),
        "model.kernel": (f"from 1 to {SIDE} (an image's side)", lambda side: 1 <= side <= SIDE),
        "augmentation.zoom": ("0 or positive, and below 1", lambda zoom: 0 <= zoom < 1),
        # Something stays on both sides, and what was published outweighs feedback.
        "data.feedback.held_out": ("above 0, at most 0.9", lambda share: 0 < share <= 0.9),
        "data.feedback.largest_share": ("above 0, at most 0.5", lambda share: 0 < share <= 0.5),
    }


_RULES = _rules()


def _require(condition: bool, key: str, words: str, value: object) -> None:
    if not condition:
        raise PipelineError(f"{key} must be {words}, not {value}")


class _Section:
    """A part of the configuration; refuses numbers out of their range when it is made."""

    prefix: ClassVar[str]  # of its keys

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if rule := _RULES.get(self.prefix + name):
                words, allowed = rule
                _require(math.isfinite(value), self.prefix + name, "finite", value)
                _require(allowed(value), self.prefix + name, words, value)


@dataclass
class Split:
    """Images held out of the training files; `test: 0` where there are test files."""

    validation: int = MISSING
    test: int = MISSING


@dataclass
class Feedback(_Section):
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
class Model(_Section):
    """One convolution, one max-pool and, unless `dense` is 0, one hidden layer."""

    prefix = "model."

    contrast: float = MISSING
    filters: int = MISSING
    kernel: int = MISSING
    pool: int = MISSING
    dropout: float = MISSING
    dense: int = MISSING
    dense_dropout: float = MISSING

    def __post_init__(self) -> None:
        """Refuse also a pool that is larger than what the convolution leaves of an image."""
        super().__post_init__()
        side = SIDE - self.kernel + 1
        words = f"at most {side}, which a kernel of {self.kernel} leaves of an image"
        _require(self.pool <= side, "model.pool", words, self.pool)


@dataclass
class Optimizer(_Section):
    """The update rule and its learning rate over time."""

    prefix = "optimizer."

    name: OptimizerName = MISSING
    learning_rate: float = MISSING
    schedule: Schedule = MISSING
    warmup_epochs: float = MISSING


@dataclass
class Augmentation(_Section):
    """Largest random change of an image, either way: degrees, pixels, share of size, slant."""

    prefix = "augmentation."

    rotation: float = MISSING
    shift: float = MISSING
    zoom: float = MISSING
    shear: float = MISSING


@dataclass
class EarlyStopping(_Section):
    """Stop when `val_loss` has not improved for `patience` epochs; 0 trains to the end."""

    prefix = "early_stopping."

    patience: int = MISSING


@dataclass
class Config(_Section):
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
        _require(bool(self.runs), "runs", "at least one run of conf/run/", self.runs)
        # `$` is mathtext in plots, `[` is markup in tables, and Git refuses `..` in experiments.
        safe = re.fullmatch(r"\w([\w +.-]*\w)?", self.name) and ".." not in self.name
        _require(bool(safe), "name", "letters, digits and single ` _-+.`", repr(self.name))


def settings(config: Config) -> dict[str, Any]:
    """Return the values that decide a run's weights, besides data and code."""
    plain: Any = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    without_effect = ("runs", "run", "name")
    kept = {key: value for key, value in plain.items() if key not in without_effect}
    return kept | {"data": config.data.name}


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return `{"optimizer": {"name": …}}` as `{"optimizer.name": …}`."""
    plain: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            plain |= flat(value, f"{prefix}{key}.")
        else:
            plain[prefix + key] = value
    return plain


def arguments(typed: list[str], picks: DictConfig) -> list[str]:
    """Return overrides for Hydra: the typed ones, completed by the picks of `params.yaml`.

    Hydra refuses `run=1` ("Config group override must be a string"), so the number is quoted.
    """
    keys = {argument.partition("=")[0] for argument in typed}
    plain: Any = OmegaConf.to_container(picks)
    missing = [f"{key}={value}" for key, value in plain.items() if key not in keys]
    return [_quoted(argument) for argument in typed + missing]


def _quoted(argument: str) -> str:
    key, _, choice = argument.partition("=")
    if key != "run":
        return argument
    return "run=" + ",".join(f"'{c}'" if c.isdigit() else c for c in choice.split(","))


def resolved(composed: DictConfig, run: str) -> Config:
    """Return the composed configuration as an object.

    Raises:
        PipelineError: a value is missing or out of its range; the message names the key.
    """
    composed.run = int(run)
    if missing := OmegaConf.missing_keys(composed):
        raise PipelineError(f"no value for {', '.join(sorted(missing))} in conf/ or params.yaml")
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    return config


def stage(main: Callable[[Config], None]) -> Callable[[], None]:
    """Return a command that runs `main` on the configuration, with `key=value` overrides.

    It prints a PipelineError as one message, without a traceback.
    """

    def job(composed: DictConfig) -> None:
        try:
            main(resolved(composed, HydraConfig.get().runtime.choices["run"]))
        except PipelineError as error:
            sys.exit(f"error: {error}")

    def command() -> None:
        start_program()
        register_schema()
        sys.argv[1:] = arguments(sys.argv[1:], OmegaConf.load(PARAMS))  # type: ignore[arg-type]
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()

    return command


def register_schema() -> None:
    """Register the `schema` of `conf/config.yaml`'s defaults list with Hydra."""
    ConfigStore.instance().store(name="schema", node=Config)
