"""Tables that the code, `conf/` and the committed reports decide, and the OpenAPI document.

They are equal on every machine. `python -m docs.tools.derived` prints the comparison of the runs
in the working folder.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from prometheus_client.metrics import MetricWrapperBase

from docs.tools.tables import ROOT, Table
from pipeline import config
from pipeline.config import paths
from pipeline.reports import tables as comparison_table
from pipeline.storage import git
from serve.app import create_app
from serve.settings import Settings

_COMMAND = "make tables"


def variables() -> Table:
    """Return the environment variables of the service."""
    rows = [
        [f"`{name.upper()}`", _default(field), field.description or ""]
        for name, field in Settings.model_fields.items()
    ]
    return Table(_COMMAND, "", ["variable", "default", "meaning"], rows)


def _default(field: Any) -> str:  # noqa: ANN401  pydantic's own
    if field.default_factory:
        return "one for each core"
    default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
    return "" if default in ("", None) else f"`{default}`"


def metrics() -> Table:
    """Return the Prometheus metrics of the service."""
    registry = create_app(Settings.model_construct(state_dir=Path())).service.metrics._all
    # A labelled metric without samples gives its labels nowhere else.
    rows = [row for collector in registry._collector_to_names for row in _families(collector)]
    return Table(_COMMAND, "", ["metric", "type", "labels", "what"], rows)


def _families(collector: Any) -> Iterator[list[str]]:  # noqa: ANN401  duck-typed by its library
    wrapped = isinstance(collector, MetricWrapperBase)
    for family in collector.describe() if wrapped else collector.collect():
        labels = (collector if wrapped else family)._labelnames
        name = f"{family.name}_total" if family.type == "counter" else family.name
        listed = ", ".join(f"`{label}`" for label in labels)
        yield [f"`{name}`", family.type, listed, family.documentation]


def runs() -> Table:
    """Return the comparison of the runs as committed.

    A rebuild on another processor has other values until it is committed too.
    """
    return compared(git.content("show", f"HEAD:{paths.COMPARISON}"))


def compared(comparison: bytes) -> Table:
    """Return the table of a `comparison.json`."""
    columns = [title.replace("\n", " ") for title in comparison_table.COLUMNS]
    rows = list(comparison_table.rows(json.loads(comparison)).values())
    return Table("dvc repro", "", columns, rows)


def hyperparameters() -> Table:
    """Return the hyperparameters of the runs, a row for each."""
    files = sorted((ROOT / "conf" / "run").glob("*.yaml"))
    settings = {
        file.stem: config.flat(cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(file))))
        for file in files
    }
    keys = dict.fromkeys(key for values in settings.values() for key in values)
    rows = [[f"`{key}`", *(f"{run[key]}" for run in settings.values())] for key in keys]
    return Table(_COMMAND, "", ["setting", *(f"run {name}" for name in settings)], rows)


def limits(file: str, *columns: str) -> Table:
    """Return key, value and comment of each limit in a settings file, or in its `gates`."""
    text = (ROOT / file).read_text().rpartition("\ngates:\n")[2]
    found = re.findall(r"^ *(\w+): ([^#\n]*?) *(?:# (.*))?$", text, re.MULTILINE)
    rows = [[f"`{key}`", value, comment] for key, value, comment in found]
    return Table(_COMMAND, "", [*columns, "meaning"], rows)


TABLES: dict[str, Callable[[], Table]] = {
    "variables": variables,
    "metrics": metrics,
    "runs": runs,
    "hyperparameters": hyperparameters,
    "gates": lambda: limits("conf/register.yaml", "gate", "limit"),
    "retrain": lambda: limits("conf/retrain.yaml", "limit", "value"),
}


def openapi() -> str:
    """Return the answer of `/openapi.json`."""
    found = create_app(Settings.model_construct()).openapi()
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(compared(paths.COMPARISON.read_bytes()).markdown())
