"""Rules in `conf/` that no stage composes: promotion gates, retraining triggers, feedback."""

from __future__ import annotations

from typing import TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import CONF, PipelineError

T = TypeVar("T")


def load(file: str, schema: type[T]) -> T:
    """Return `conf/<file>` as an object of `schema`, a dataclass.

    Raises:
        PipelineError: a key is unknown or missing, or a value has another type; names both.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(CONF / file))
        rules = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise PipelineError(f"conf/{file}: {str(error).splitlines()[0]}") from error
    assert isinstance(rules, schema)
    return rules
