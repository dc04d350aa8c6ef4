"""What a configuration must look like, and the door through which each stage gets it.

The dataclasses carry types and limits, never defaults: values are written in `conf/` alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig, OmegaConf

CONF = Path(__file__).parents[2] / "conf"
PARAMS = Path("params.yaml")


class PipelineError(Exception):
    """A failure that the user can mend; its message says how."""


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
    """How the learning rate goes from its peak to the end of training."""

    constant = "constant"
    cosine = "cosine"


class Precision(Enum):
    """Keras dtype policies: what layers compute in. Weights are float32 in all of them."""

    float32 = "float32"
    mixed_bfloat16 = "mixed_bfloat16"
    mixed_float16 = "mixed_float16"


def _require(condition: bool, field: str, rule: str, value: object) -> None:
    if not condition:
        raise PipelineError(f"{field} must be {rule}, not {value}")


@dataclass
class Split:
    """Images held out of the training files; `test: 0` where there are test files."""

    validation: int = MISSING
    test: int = MISSING


@dataclass
class Feedback:
    """What users told the service: which export, and how much of it trains."""

    sha256: str | None = MISSING
    held_out: float = MISSING
    largest_share: float = MISSING
    least: int = MISSING

    def __post_init__(self) -> None:
        """Refuses shares that leave nothing, or let feedback outweigh what was published."""
        for field, most in (("held_out", 0.9), ("largest_share", 0.5)):
            share = getattr(self, field)
            _require(0 < share <= most, f"data.feedback.{field}", f"above 0, at most {most}", share)
        _require(self.least > 0, "data.feedback.least", "positive", self.least)


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
class Model:
    """One convolution, one max-pool and, unless `dense` is 0, one hidden layer."""

    contrast: float = MISSING
    filters: int = MISSING
    kernel: int = MISSING
    pool: int = MISSING
    dropout: float = MISSING
    dense: int = MISSING
    dense_dropout: float = MISSING

    def __post_init__(self) -> None:
        """Refuses what no layer can be built from."""
        for field in ("contrast", "filters", "kernel", "pool"):
            _require(getattr(self, field) > 0, f"model.{field}", "positive", getattr(self, field))
        _require(self.dense >= 0, "model.dense", "0 (no hidden layer) or positive", self.dense)
        for field in ("dropout", "dense_dropout"):
            rate = getattr(self, field)
            _require(0 <= rate <= 0.9, f"model.{field}", "from 0 to 0.9", rate)


@dataclass
class Optimizer:
    """The update rule and its learning rate over time."""

    name: OptimizerName = MISSING
    learning_rate: float = MISSING
    schedule: Schedule = MISSING
    warmup_epochs: float = MISSING

    def __post_init__(self) -> None:
        """Refuses rates that cannot train."""
        rate, warmup = self.learning_rate, self.warmup_epochs
        _require(rate > 0, "optimizer.learning_rate", "positive", rate)
        _require(warmup >= 0, "optimizer.warmup_epochs", "0 or positive", warmup)


@dataclass
class Augmentation:
    """Largest random change of an image, either way: degrees, pixels, share of size, slant."""

    rotation: float = MISSING
    shift: float = MISSING
    zoom: float = MISSING
    shear: float = MISSING

    def __post_init__(self) -> None:
        """Refuses negative ranges, and a zoom that would turn the image inside out."""
        for field in ("rotation", "shift", "zoom", "shear"):
            value = getattr(self, field)
            _require(value >= 0, f"augmentation.{field}", "0 or positive", value)
        _require(self.zoom < 1, "augmentation.zoom", "below 1", self.zoom)


@dataclass
class EarlyStopping:
    """Stop when `val_loss` has not improved for `patience` epochs; 0 trains to the end."""

    patience: int = MISSING

    def __post_init__(self) -> None:
        """Refuses a negative patience."""
        _require(self.patience >= 0, "early_stopping.patience", "0 or positive", self.patience)


@dataclass
class Config:
    """Everything that decides what a stage makes."""

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
        """Refuses counts that cannot be."""
        for field in ("threads", "batch_size", "epochs"):
            _require(getattr(self, field) > 0, field, "positive", getattr(self, field))
        _require(0 <= self.seed < 2**31, "seed", "from 0 to 2147483647", self.seed)
        _require(bool(self.runs), "runs", "at least one run of conf/run/", self.runs)


def settings(config: Config) -> dict[str, Any]:
    """What decides a run's weights besides data and code, as plain values."""
    plain: Any = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    not_deciding = ("runs", "run", "name")
    kept = {key: value for key, value in plain.items() if key not in not_deciding}
    return kept | {"data": config.data.name}


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optimizer": {"name": …}}` as `{"optimizer.name": …}`."""
    plain: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            plain |= flat(value, f"{prefix}{key}.")
        else:
            plain[prefix + key] = value
    return plain


def arguments(typed: list[str], picks: DictConfig) -> list[str]:
    """Overrides for Hydra: what was typed, completed by the picks of `params.yaml`.

    Hydra refuses `run=1` ("Config group override must be a string"), so the number is quoted.
    """
    chosen = {argument.partition("=")[0] for argument in typed}
    plain: Any = OmegaConf.to_container(picks)
    missing = [f"{key}={value}" for key, value in plain.items() if key not in chosen]
    return [_quoted(argument) for argument in typed + missing]


def _quoted(argument: str) -> str:
    key, _, choice = argument.partition("=")
    if key != "run":
        return argument
    return "run=" + ",".join(f"'{c}'" if c.isdigit() else c for c in choice.split(","))


def resolved(composed: DictConfig, run: str) -> Config:
    """The composed configuration as an object.

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
    """Makes `main` a Hydra application on `conf/` that takes `key=value` overrides.

    An error that the user can mend is printed as one message, without a traceback.
    """

    def job(composed: DictConfig) -> None:
        try:
            main(resolved(composed, HydraConfig.get().runtime.choices["run"]))
        except PipelineError as error:
            sys.exit(f"error: {error}")

    def door() -> None:
        register_schema()
        sys.argv[1:] = arguments(sys.argv[1:], OmegaConf.load(PARAMS))  # type: ignore[arg-type]
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()

    return door


def register_schema() -> None:
    """Makes the `schema` of `conf/config.yaml`'s defaults list known to Hydra."""
    ConfigStore.instance().store(name="schema", node=Config)
