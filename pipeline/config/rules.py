"""Rules in `conf/` that no stage composes: promotion gates, retraining triggers, feedback."""

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import CONF, PipelineError
from pipeline.config.schema import T, checked


def load(file: str, schema: type[T]) -> T:
    """Return `conf/<file>` as a dataclass `schema`; PipelineError names a wrong key or type."""
    try:
        if not (CONF / file).exists():
            raise PipelineError(f"conf/{file} is missing")
        merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(CONF / file))
        assert isinstance(merged, DictConfig)
        return checked(merged, schema, f"conf/{file}")
    except OmegaConfBaseException as error:
        raise PipelineError(f"conf/{file}: {str(error).splitlines()[0]}") from error
