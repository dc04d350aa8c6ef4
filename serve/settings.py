"""The settings of the service: all environment variables that it reads."""

import ipaddress
import math
import os
import re
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from serve.sources import MODEL_NAME, NAME, SERVABLE, Source, sources

VERSION = "0.1.0"  # as in pyproject.toml, which the image does not have

_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
_SECRET = {"API_KEYS", "RATE_LIMIT_STORAGE", "MLFLOW_TRACKING_URI"}


class SettingsError(Exception):
    """Wrong environment variables; the message lists each with its meaning."""


def _cores() -> int:
    """Return the cores that this process may use, within the limit of its container."""
    linux = hasattr(os, "sched_getaffinity")
    found = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no cgroup v2, or no limit
        quota, period = map(int, _CPU_LIMIT.read_text().split())
        found = min(found, max(1, quota // period))
    return found


def _must(pattern: str, be: str) -> AfterValidator:
    """Return a validator: the whole value must match the pattern."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {be}")
        return value

    return AfterValidator(check)


Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
_servable = _must(
    SERVABLE,
    "models:/NAME@ALIAS, models:/NAME/VERSION or a folder",
)
_served = _must(
    rf"{NAME}(=(?!$)({SERVABLE}))?",
    "a name of letters, digits, . _ - or NAME=URI, as in MODEL_URI",
)
_storage = _must(r"(memory|rediss?|redis\+unix)://.*", "memory:// or redis://HOST:PORT/DB")
_collector = _must(r"(https?://.*)?", "http://HOST:PORT or https://HOST:PORT")
_origin = _must(r"\*|https?://[^/\s]+", "an origin such as https://example.com")
_header = _must(r"(?a)[\w!#$%&'*+.^`|~-]+", "the name of a header")


class Settings(BaseSettings):
    """Settings from the environment: the variable has the field's name in capitals."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore")

    model_uri: Annotated[str, _servable] = Field(
        f"models:/{MODEL_NAME}@champion",
        description="Model to serve: models:/NAME@ALIAS, models:/NAME/VERSION or a bundle folder.",
    )
    models: Annotated[tuple[Annotated[str, _served], ...], NoDecode] = Field(
        (),
        description="Models to serve, comma-separated, the first by default: names of registered"
        " models with the alias champion, or NAME=URI, URI as in MODEL_URI; if empty, MODEL_URI.",
    )
    model_precision: Literal["float32", "int8", "auto"] = Field(
        "float32",
        description="Model file to serve: float32, int8 (a quarter of the size), or auto: int8"
        " where it is as good on validation images.",
    )
    mlflow_tracking_uri: str = Field(
        "", description="Address of the MLflow registry; if empty, mlflow.db in the working folder."
    )
    state_dir: Path = Field(
        Path(".state"),
        description="Folder for everything the service writes: models, feedback, metrics.",
    )
    model_poll_seconds: float = Field(
        30, ge=0, description="Seconds between checks whether the alias moved; 0: never."
    )
    pull_seconds: float = Field(
        300,
        ge=10,
        description="Seconds that a check of the registry may take, with its download.",
    )
    api_host: str = Field("127.0.0.1", description="Address to listen on.")
    api_port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0: any free port.")
    api_workers: int = Field(
        default_factory=_cores, ge=1, le=256, description="Number of worker processes."
    )
    batch_threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Threads of a worker that infer the images of a batch; 0: one for each core"
        " that API_WORKERS leave it.",
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="API keys, comma-separated; if empty, no key is needed."
    )
    rate_limit: str = Field(
        "",
        description="Rate limits per key or address, such as 100/minute;1000/hour; if empty, none.",
    )
    rate_limit_storage: Annotated[str, _storage] = Field(
        "memory://",
        description="Storage of rate limits: memory:// or, for several workers or replicas,"
        " redis://HOST:PORT/DB.",
    )
    trusted_proxies: str = Field(
        "",
        description="Proxies whose X-Forwarded-For is trusted: addresses, comma-separated; *: all.",
    )
    cors_origins: Annotated[tuple[Annotated[str, _origin], ...], NoDecode] = Field(
        (), description="Origins whose pages may call (CORS), comma-separated; if empty, none."
    )
    cors_headers: Annotated[tuple[Annotated[str, _header], ...], NoDecode] = Field(
        (
            *("Authorization", "X-API-Key", "X-Model-Version", "X-Request-ID", "X-Requested-With"),
            "Inference-Header-Content-Length",
        ),
        description="Headers that pages of other origins may send (CORS), comma-separated; *: any.",
    )
    max_image_bytes: int = Field(
        5 * 2**20, ge=1, le=2**30, description="Largest image file, in bytes."
    )
    max_image_pixels: int = Field(
        64_000_000,
        ge=1,
        le=2**30,
        description="Largest image, in pixels; files that are decoded whole may have 16 million.",
    )
    max_batch: int = Field(256, ge=1, le=10_000, description="Most images in a batch.")
    max_body_memory: int = Field(
        64 * 2**20,
        ge=1,
        description="Bytes of all bodies that a worker holds at once; above it, it answers 503.",
    )
    max_connections: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Most open connections of a worker; the next is answered with 503 and closed.",
    )
    max_connections_per_address: int = Field(
        250,
        ge=1,
        le=1_000_000,
        description="Most open connections of a worker from one address that is no trusted proxy.",
    )
    max_wait_seconds: float = Field(
        0.5,
        gt=0,
        description="Seconds that a request may wait for its turn; above it, it is answered with"
        " 503.",
    )
    head_seconds: float = Field(
        10, gt=0, description="Seconds for a request's headers, and for the key on a WebSocket."
    )
    body_seconds: float = Field(
        60, gt=0, description="Seconds for a request's body, and for a message on a WebSocket."
    )
    idle_seconds: float = Field(
        600, gt=0, description="Seconds until a WebSocket without a message is closed."
    )
    confidence_threshold: float = Field(
        0.7, ge=0, le=1, description="Confidence below which a prediction is marked uncertain."
    )
    recent_requests: int = Field(
        8192,
        ge=1,
        le=1_000_000,
        description="Recent predictions per worker that feedback can refer to.",
    )
    feedback_max_bytes: int = Field(
        2**28,
        ge=2**16,
        le=2**40,
        description="Size up to which feedback is stored, in bytes; an entry takes about 1.2 KB.",
    )
    drain_seconds: float = Field(
        1,
        ge=0,
        le=600,
        description="Seconds after SIGTERM or Ctrl-C in which it still answers, but is not ready.",
    )
    shutdown_seconds: int = Field(
        10, ge=1, le=600, description="Seconds that requests in flight have to finish on a stop."
    )
    hang_seconds: float = Field(
        60, ge=10, description="Seconds without a sign of life after which a worker is replaced."
    )
    log_level: Annotated[Level, BeforeValidator(str.upper)] = Field(
        "INFO", description="Lowest level that is logged; requests are logged at INFO."
    )
    log_format: Literal["json", "console"] | None = Field(
        None, description="json or console; if empty, console on a terminal and json elsewhere."
    )
    commit: str = Field("unknown", description="Git commit of the code; the image sets it.")
    otel_exporter_otlp_endpoint: Annotated[str, _collector] = Field(
        "",
        description="Collector of traces (OTLP/HTTP), http://HOST:4318; if empty, no traces.",
    )

    @field_validator("models", "api_keys", "cors_origins", "cors_headers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        found = tuple(filter(None, map(str.strip, value.split(","))))
        if value and not found:  # a template without its values must not open the service
            raise ValueError("is not empty, but has no value")
        return found

    @field_validator("models")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = [each.partition("=")[0] for each in value]
        if len(set(names)) < len(names):
            raise ValueError("has a name twice")
        return value

    @field_validator("mlflow_tracking_uri")
    @classmethod
    def _absolute(cls, value: str) -> str:
        value = value or f"sqlite:///{Path.cwd() / 'mlflow.db'}"
        if value.startswith("sqlite:") and not value.startswith("sqlite:////"):
            raise ValueError("must be absolute: sqlite:////path/mlflow.db")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: str) -> str:
        for address in map(str.strip, value.split(",")):
            if address not in ("", "*"):
                ipaddress.ip_network(address)
        return value

    @field_validator("rate_limit")
    @classmethod
    def _limits(cls, value: str) -> str:
        if value:
            from limits import parse_many  # costs 0.1 s, for those who limit

            parse_many(value)
        return value

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """The models to serve, the default first."""
        return sources(self.models, self.model_uri, self.state_dir)

    @property
    def inference_threads(self) -> int:
        """Threads of this worker that infer batches; as many workers as cores have one each."""
        return self.batch_threads or max(1, _cores() // self.api_workers)

    @property
    def followed(self) -> tuple[Source, ...]:
        """The models that come from the registry."""
        return tuple(source for source in self.sources if source.registered)

    def check_seconds(self, source: Source) -> float:
        """Seconds within which a check of the registry should end well; infinite without polls."""
        polls = source.moves and self.model_poll_seconds
        return max(3 * self.model_poll_seconds, 30) if polls else math.inf


def load() -> Settings:
    """Return the settings from the environment; a SettingsError lists every wrong variable."""
    try:
        return Settings()
    except ValidationError as error:
        faults = error.errors()
    lines = ["wrong settings in the environment:"]
    for fault in faults:
        field = str(fault["loc"][0])
        name, value = field.upper(), fault["input"]
        given = name if name in _SECRET else f"{name}={value}"
        about = Settings.model_fields[field].description
        lines.append(f"  {given}: {fault['msg'].removeprefix('Value error, ')}\n    {about}")
    raise SettingsError("\n".join(lines))
