"""Parse what was typed into the jobs of a sweep: the settings that each changes, and where."""

import hashlib
import itertools
import json
import re
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pipeline import config
from pipeline.config import Config, PipelineError, flat, short
from pipeline.config.suggestions import did_you_mean
from pipeline.storage import dvc_experiments, git

PICKS = ("data", "seed", "threads")  # of params.yaml; `runs` follows from `run`
_MAX_NAME = 78  # characters
_DIGEST = 12  # hex digits, 48 bits: a million jobs of one commit collide with p = 0.002
_RUN = re.compile(r"run='\d+'")
_CHOICES = ("run", "data")  # settings that name a file of conf/


@dataclass(frozen=True)
class Job:
    """One experiment of a sweep.

    `overrides` are Hydra's arguments for it, and `typed` the settings among them. `changed` are
    the typed keys whose value differs from `conf/` or `params.yaml`. `digest` identifies all
    settings and the code.
    """

    overrides: list[str]
    run: int
    run_name: str
    data: str
    threads: int
    typed: dict[str, Any]
    changed: list[str]
    digest: str

    @property
    def name(self) -> str:
        """Name that Git accepts: `run3-epochs=3-learning_rate=0.001-1a2b3c4d5e6f`."""
        parts = [f"run{self.run}"]
        for key, value in self._shown().items():
            part = re.sub(r"[^\w.=+-]+|\.\.+", "_", f"{key}={value}").strip(".")
            if len("-".join((*parts, part, self.digest))) <= _MAX_NAME:
                parts.append(part)
        return "-".join((*parts, self.digest))

    @property
    def label(self) -> str:
        """The typed settings without the run, for display."""
        return " ".join(f"{key}={value}" for key, value in self._shown().items())

    def _shown(self) -> dict[str, Any]:
        return {name: self.typed[key] for key, name in short(self.typed).items()}

    def arguments(self) -> list[str]:
        """Return the arguments of `dvc exp run` that write the settings into the copy's files."""
        pairs = [f"runs=[{self.run}]"]
        for key in self.changed:
            value = _written(self.typed[key])
            pairs.append(f"{self._file(key)}{key.removeprefix('data.')}={value}")
        return [argument for pair in pairs for argument in ("-S", pair)]

    def _file(self, key: str) -> str:
        if key in PICKS:
            return ""
        name = f"data/{self.data}" if key.startswith("data.") else f"run/{self.run}"
        return f"conf/{name}.yaml:"


def jobs(typed: list[str]) -> list[Job]:
    """Return the jobs of a sweep, in Hydra's order; a PipelineError names a wrong key or value."""
    try:
        parsed = OverridesParser.create().parse_overrides(typed)
        # Like Hydra's sweeper: the last of equal keys counts, and the first key varies slowest.
        varied = {o.key_or_group: _values(o) for o in parsed if not o.is_hydra_override()}
        code = _code()
        found = [_job(list(overrides), code) for overrides in itertools.product(*varied.values())]
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise PipelineError(config.readable(error)) from None
    names = [job.name for job in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise PipelineError(f"two jobs of the sweep are the same: {twice}")
    return found


def _values(override: Override) -> list[str]:
    key = override.key_or_group
    if override.is_add() or override.is_force_add() or override.is_delete():
        raise PipelineError(f"{override.input_line}: keys cannot be added or deleted, only changed")
    if key == "runs":
        raise PipelineError("a job trains one run: type run=1,2,3, not runs")
    if not override.is_sweep_override():
        values = [f"{key}={override.get_value_element_as_str()}"]
    elif override.is_discrete_sweep() and override.value_type is not ValueType.GLOB_CHOICE_SWEEP:
        values = [f"{key}={value}" for value in override.sweep_string_iterator()]
    else:
        raise PipelineError(f"{override.input_line}: list the values, with commas between them")
    # Hydra refuses a number as a choice, also one from `range(1,4)`.
    if key == "run" and not all(_RUN.fullmatch(value) for value in values):
        raise PipelineError(f"{override.input_line}: list the runs by number: run=1,2,3")
    return values


def _job(overrides: list[str], code: str) -> Job:
    values = dict(override.split("=", 1) for override in overrides)
    before, _ = _composed([choice for choice in overrides if choice.split("=", 1)[0] in _CHOICES])
    for key in values:
        if key != "run" and key not in before:
            raise PipelineError(f"no run has the setting {key}{did_you_mean(key, before)}")
    settings, config_ = _composed(overrides)
    before["data"] = OmegaConf.load(config.PARAMS).data
    typed = {key: settings[key] for key in values if key != "run"}
    content = json.dumps([settings, config_.run, code], sort_keys=True).encode()
    return Job(
        overrides,
        run=config_.run,
        run_name=config_.name,
        data=settings["data"],
        threads=config_.threads,
        typed=typed,
        changed=[key for key, value in typed.items() if value != before[key]],
        digest=hashlib.sha256(content).hexdigest()[:_DIGEST],
    )


def _composed(overrides: list[str]) -> tuple[dict[str, Any], Config]:
    """Return the settings by the keys that users type, and as a checked object.

    `params.yaml` supplies the picks that were not typed.
    """
    picks: Any = OmegaConf.to_container(OmegaConf.load(config.PARAMS))
    config.register_schema()
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        completed = [f"{key}={value}" for key, value in picks.items()] + overrides
        composed = compose("config", completed, return_hydra_config=True)
    with open_dict(composed):
        choices = composed.pop("hydra").runtime.choices
    resolved = config.resolved(composed, choices["run"])
    plain: Any = OmegaConf.to_container(OmegaConf.structured(resolved), enum_to_str=True)
    del plain["runs"], plain["run"]
    # `data` is both a choice and, below it, what the choice means.
    return flat(plain) | {"data": choices["data"]}, resolved


def _code() -> str:
    """Return a text that changes with every commit and uncommitted change of deciding code."""
    head = git.git("rev-parse", "HEAD")
    return head + git.git("diff", "HEAD", "--", *dvc_experiments.deciding_files())


def _written(value: object) -> str:
    """Write a value in Hydra's grammar, which DVC reads too."""
    if isinstance(value, str):
        return QuotedString(value, Quote.single).with_quotes()
    return "null" if value is None else str(value)
