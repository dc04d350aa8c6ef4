"""From what is typed to the jobs of a sweep: what each changes, and in which file DVC writes it."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pipeline import config
from pipeline.config import Config, PipelineError, flat
from pipeline.storage import git

PICKS = ("data", "seed", "threads")  # of params.yaml; `runs` follows from `run`
# Besides settings, what decides a result: another experiment is due when one of these has changed.
DECIDING_CODE = ("dvc.yaml", "pipeline", "requirements/train.txt", "serve")
_LONGEST_NAME = 72
_RUN = re.compile(r"run='\d+'")


@dataclass(frozen=True)
class Job:
    """One experiment of a sweep.

    `overrides` are what Hydra hands to it, `typed` the settings among them, by the keys that users
    type; `changed` are those keys whose value is not already what `conf/` or `params.yaml` says.
    `digest` stands for all settings and the code.
    """

    overrides: tuple[str, ...]
    run: int
    run_name: str
    data: str
    threads: int
    typed: dict[str, Any]
    changed: tuple[str, ...]
    digest: str

    @property
    def name(self) -> str:
        """A name that Git takes: `run3-epochs=3-learning_rate=0.001-1a2b3c`."""
        parts = [f"run{self.run}"]
        for key, value in _short(self.typed).items():
            part = re.sub(r"[^\w.=+-]+", "_", f"{key}={value}").strip(".")
            if len("-".join((*parts, part, self.digest))) <= _LONGEST_NAME:
                parts.append(part)
        return "-".join((*parts, self.digest))

    @property
    def label(self) -> str:
        """What was typed for the job besides its run, for people."""
        return " ".join(f"{key}={value}" for key, value in _short(self.typed).items())

    def settings(self) -> list[str]:
        """The arguments of `dvc exp run` that make the copy's files say the same."""
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
    """The jobs of a sweep, in Hydra's order.

    Raises:
        PipelineError: an override is not one that a run has, or a value is not possible.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(typed)
        # As Hydra's sweeper does it: the last of equal keys counts, the first varies slowest.
        varied = {o.key_or_group: _values(o) for o in parsed if not o.is_hydra_override()}
        code = _code()
        found = [_job(overrides, code) for overrides in itertools.product(*varied.values())]
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise PipelineError(_readable(error)) from None
    if twice := _repeated(job.name for job in found):
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
    # Hydra refuses a number as a choice, also one that comes out of `range(1,4)`.
    if key == "run" and not all(_RUN.fullmatch(value) for value in values):
        raise PipelineError(f"{override.input_line}: list the runs by number: run=1,2,3")
    return values


def _job(overrides: tuple[str, ...], code: str) -> Job:
    chosen = dict(override.split("=", 1) for override in overrides)
    picks = [choice for choice in overrides if choice.split("=", 1)[0] in ("run", "data")]
    before, _ = _composed(picks)
    _refuse_unknown(chosen, before)
    after, resolved = _composed(list(overrides))
    before["data"] = OmegaConf.load(config.PARAMS).data
    typed = {key: after[key] for key in chosen if key != "run"}
    content = json.dumps([after, resolved.run, code], sort_keys=True).encode()
    return Job(
        overrides,
        *(resolved.run, resolved.name, after["data"], resolved.threads),
        typed,
        tuple(key for key, value in typed.items() if value != before[key]),
        hashlib.sha256(content).hexdigest()[:6],
    )


def _composed(overrides: list[str]) -> tuple[dict[str, Any], Config]:
    """The settings as users type them, and the checked object; picks are those of params.yaml."""
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


def _refuse_unknown(chosen: Iterable[str], known: dict[str, Any]) -> None:
    for key in chosen:
        if key != "run" and key not in known:
            raise PipelineError(
                f"no run has the setting {key}; the nearest is {nearest(key, known)}"
            )


def nearest(key: str, known: Iterable[str]) -> str:
    """The known key that is written most like `key`, in whole, in its last part or by initials."""
    meant: dict[str, str] = {}
    for candidate in known:
        last = candidate.rpartition(".")[2]
        initials = "".join(word[0] for word in last.split("_"))
        meant |= {initials: candidate, last: candidate} if "_" in last else {last: candidate}
    if exact := meant.get(key.rpartition(".")[2]):
        return exact
    meant |= {candidate: candidate for candidate in known}
    return meant[difflib.get_close_matches(key, meant, n=1, cutoff=0.0)[0]]


def _code() -> str:
    """Changes with every commit, and with every uncommitted change of what computes."""
    head, changed = git.git("rev-parse", "HEAD"), git.git("diff", "HEAD", "--", *DECIDING_CODE)
    return head + changed


def _short(settings: dict[str, Any]) -> dict[str, Any]:
    """The same by the last part of their keys, where that is enough to tell them apart."""
    last = [key.rpartition(".")[2] for key in settings]
    return {
        name if last.count(name) == 1 else key: value
        for name, (key, value) in zip(last, settings.items(), strict=True)
    }


def _written(value: object) -> str:
    """A value in Hydra's grammar, which DVC reads too."""
    if isinstance(value, str):
        return QuotedString(value, Quote.single).with_quotes()
    return "null" if value is None else str(value)


def _repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def _readable(error: Exception) -> str:
    """Hydra's message in one line, without its internals."""
    told = f"{error}: {error.__cause__}" if error.__cause__ else str(error)
    return " ".join(re.split(r"\n\s*(?:Config search path|full_key|See http)", told)[0].split())


def plans(found: list[Job]) -> list[dict[str, Any]]:
    """The jobs as JSON can hold them."""
    return [asdict(job) for job in found]


def job_of(plan: dict[str, Any]) -> Job:
    """The job that `plans` wrote."""
    lists = {key: tuple(plan[key]) for key in ("overrides", "changed")}
    return Job(**(plan | lists))
