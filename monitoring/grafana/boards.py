"""The three dashboards, and what they have in common: variables, links, numbering."""

from __future__ import annotations

import json
from collections.abc import Iterable

from grafana_foundation_sdk.builders.dashboard import (
    ConstantVariable,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableHide,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from monitoring.grafana import model, pipeline, service
from monitoring.grafana.panels import SOURCE, Panel

# To be replaced by where your readers find it: `python -m monitoring.grafana --runbook URL`.
RUNBOOK = "https://git.example.com/digit-platform/blob/main/docs/RUNBOOK.md"

_TAG = "digit-platform"
_SCHEMA = 41  # of Grafana 12.1; a newer Grafana brings it up by itself
_DATASOURCE = "prometheus"  # uid in provisioning/datasources/prometheus.yaml


def rendered(runbook: str = RUNBOOK) -> dict[str, str]:
    """The JSON of each dashboard by its name."""
    boards = {
        "service": _board(
            "Service",
            "Whether the service answers, how fast, and what it refuses.",
            service.ROWS,
            [_replica()],
            runbook,
            "now-3h",
        ),
        "model": _board(
            "Model",
            "What the model answers, how sure it is, and whether what it is sent has changed.",
            model.ROWS,
            [_replica(), _version("predictions_total")],
            runbook,
            "now-24h",
        ),
        "pipeline": _board(
            "Pipeline",
            "What the pipeline made last, and what the registry makes of it.",
            pipeline.ROWS,
            [_version("pipeline_version_accuracy")],
            runbook,
            "now-30d",
        ),
    }
    return {name: _text(board) for name, board in boards.items()}


def _board(
    title: str,
    about: str,
    rows: dict[str, list[Panel]],
    variables: Iterable[QueryVariable],
    runbook: str,
    since: str,
) -> Dashboard:
    board = (
        Dashboard(f"Digits: {title}")
        .uid(f"digits-{title.lower()}")
        .description(about)
        .tags([_TAG])
        .timezone("browser")
        .editable()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh("1m" if since == "now-30d" else "15s")
        .time(since, "now")
        .with_variable(
            DatasourceVariable("datasource")
            .label("Data source")
            .description("The Prometheus that scrapes the service.")
            .type("prometheus")
            .current(VariableOption(True, "Prometheus", _DATASOURCE))
        )
        .with_variable(
            ConstantVariable("runbook")
            .label("Runbook")
            .description("Where the links of panels lead.")
            .value(runbook)
        )
        .link(
            DashboardLink("Other dashboards")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([_TAG])
            .include_vars(True)
            .keep_time(True)
        )
        .link(
            DashboardLink("Runbook")
            .type(DashboardLinkType.LINK)
            .icon("doc")
            .url(runbook)
            .target_blank(True)
        )
    )
    for variable in variables:
        board.with_variable(variable)
    number = 0
    for name, panels in rows.items():
        number += 1
        board.with_row(Row(name).id(number))
        for panel in panels:
            number += 1
            board.with_panel(panel().id(number))
    return board


def _replica() -> QueryVariable:
    return _choice("replica", "Replica", 'label_values(up{job="digits"}, instance)').description(
        "Where Prometheus scrapes: one process group, in a cluster one pod."
    )


def _version(metric: str) -> QueryVariable:
    query = f"label_values({metric}, model_version)"
    return _choice("model_version", "Model version", query).description(
        "Number in the registry; the first digits of a hash where a folder is served."
    )


def _choice(name: str, label: str, query: str) -> QueryVariable:
    """A variable of several values, at first all of them."""
    return (
        QueryVariable(name)
        .label(label)
        .hide(VariableHide.DONT_HIDE)
        .datasource(SOURCE)
        .query({"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-Variable"})
        .definition(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NUMERICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(True, ["All"], ["$__all"]))
    )


def _text(board: Dashboard) -> str:
    made = board.build()
    made.schema_version = _SCHEMA
    return json.dumps(made, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
