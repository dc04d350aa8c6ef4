"""The vocabulary of the dashboards: a figure, lines, a heatmap, bars and a table.

A panel is a function that makes its builder, so that each dashboard numbers its own. `runbook` is
the section of docs/RUNBOOK.md that says what to do about what the panel shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, heatmap, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import DashboardLink, FieldColor, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    DataSourceRef,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    LineInterpolation,
    ScaleDistribution,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Panel = Callable[[], Any]
Made = TypeVar("Made", stat.Panel, timeseries.Panel, heatmap.Panel, bargauge.Panel, table.Panel)
Steps = tuple[tuple[float, str], ...]  # from this value on, this colour
Words = dict[str, tuple[str, str]]  # a value, what to say instead, its colour

SOURCE = DataSourceRef("prometheus", "${datasource}")
BASE = "green"  # of values below the first step
_NEUTRAL = "blue"
_NOTHING = "–"  # noqa: RUF001  what Grafana shows for no value


def figure(
    title: str,
    about: str,
    expr: str,
    unit: str,
    *,
    steps: Steps = (),
    base: str = BASE,
    words: Words | None = None,
    name: str = "",
    runbook: str = "",
    span: int = 4,
    height: int = 4,
    decimals: int | None = None,
) -> Panel:
    """The latest value, large; `name` is a legend to show in its place."""

    def make() -> stat.Panel:
        panel = _begun(stat.Panel(), title, about, span, height, runbook)
        panel.with_target(_query(expr, name or title).instant())
        panel.unit(unit).thresholds(_thresholds(steps, base if steps or words else _NEUTRAL))
        panel.no_value(_NOTHING)
        panel.color_mode(BigValueColorMode.VALUE).graph_mode(BigValueGraphMode.NONE)
        panel.text_mode(BigValueTextMode.NAME if name else BigValueTextMode.VALUE)
        panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        if decimals is not None:
            panel.decimals(decimals)
        if words:
            panel.mappings([_mapping(words)])
        return panel

    return make


def lines(
    title: str,
    about: str,
    queries: dict[str, str],
    unit: str,
    *,
    steps: Steps = (),
    stacked: bool = False,
    most: float | None = None,
    least: float | None = 0,
    runbook: str = "",
    span: int = 12,
    stepped: bool = False,
    logarithmic: bool = False,
    decimals: int | None = None,
) -> Panel:
    """Values over time; `queries`: expressions by their legends. `steps` are dashed lines."""

    def make() -> timeseries.Panel:
        panel = _begun(timeseries.Panel(), title, about, span, 8, runbook)
        for place, (legend, expr) in enumerate(queries.items()):
            panel.with_target(_query(expr, legend, place))
        panel.unit(unit)
        panel.color_scheme(FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        panel.fill_opacity(40 if stacked else 8).line_width(1).show_points(VisibilityMode.NEVER)
        panel.legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.RIGHT)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        panel.tooltip(
            common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        )
        panel.thresholds(_thresholds(steps, "transparent"))
        if steps:
            panel.thresholds_style(
                common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
            )
        if stacked:
            panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
        if stepped:
            panel.line_interpolation(LineInterpolation.STEP_AFTER)
        if logarithmic:
            panel.scale_distribution(
                common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10)
            )
        if least is not None:
            panel.min(least)
        if most is not None:
            panel.max(most)
        if decimals is not None:
            panel.decimals(decimals)
        return panel

    return make


def heat(
    title: str, about: str, expr: str, unit: str, *, runbook: str = "", span: int = 12
) -> Panel:
    """A histogram over time; `expr` gives its buckets by `le`."""

    def make() -> heatmap.Panel:
        panel = _begun(heatmap.Panel(), title, about, span, 8, runbook)
        panel.with_target(_query(expr, "{{le}}").format(PromQueryFormat.HEATMAP))
        panel.calculate(False)
        panel.color(
            heatmap.HeatmapColorOptions()
            .mode(HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .scale(HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        panel.y_axis(heatmap.YAxisConfig().unit(unit))
        panel.cell_gap(1).filter_values(heatmap.FilterValueRange().le(1e-9))
        panel.tooltip(heatmap.HeatmapTooltip().mode(TooltipDisplayMode.SINGLE).y_histogram(True))
        panel.show_legend()
        return panel

    return make


def bars(
    title: str,
    about: str,
    queries: dict[str, str],
    unit: str,
    *,
    least: float,
    most: float | None = None,
    steps: Steps = (),
    base: str = BASE,
    words: Words | None = None,
    runbook: str = "",
    span: int = 8,
    decimals: int | None = None,
) -> Panel:
    """The latest values side by side."""

    def make() -> bargauge.Panel:
        panel = _begun(bargauge.Panel(), title, about, span, 8, runbook)
        for place, (legend, expr) in enumerate(queries.items()):
            panel.with_target(_query(expr, legend, place).instant())
        panel.unit(unit).min(least).thresholds(_thresholds(steps, base if steps else _NEUTRAL))
        panel.orientation(VizOrientation.HORIZONTAL).display_mode(BarGaugeDisplayMode.BASIC)
        # As a table, sorted: Prometheus gives the latest values in no order.
        latest = {"mode": "seriesToRows", "reducers": ["lastNotNull"]}
        panel.with_transformation(DataTransformerConfig(id_val="reduce", options=latest))
        by_name = {"sort": [{"field": "Field"}]}
        panel.with_transformation(DataTransformerConfig(id_val="sortBy", options=by_name))
        panel.reduce_options(common.ReduceDataOptions().values(True).calcs(["lastNotNull"]))
        panel.no_value(_NOTHING)
        if most is not None:
            panel.max(most)
        if decimals is not None:
            panel.decimals(decimals)
        if words:
            panel.mappings([_mapping(words)])
        return panel

    return make


def rows(
    title: str,
    about: str,
    by: dict[str, str],
    columns: dict[str, tuple[str, str, int]],
    *,
    runbook: str = "",
    span: int = 24,
) -> Panel:
    """A table with a line for each value of some labels.

    `by`: headings by label; `columns`: expression, unit and decimals by heading.
    """

    def make() -> table.Panel:
        panel = _begun(table.Panel(), title, about, span, 8, runbook)
        renamed = {**by}
        for place, (column, (expr, unit, decimals)) in enumerate(columns.items()):
            query = _query(expr, column, place).instant().format(PromQueryFormat.TABLE)
            panel.with_target(query)
            renamed[f"Value #{_letter(place)}"] = column
            properties = [("unit", unit), ("decimals", decimals)]
            panel.override_by_name(column, [DynamicConfigValue(*found) for found in properties])
        order = {name: place for place, name in enumerate(renamed)}
        panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
        panel.with_transformation(
            DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": order,
                    "renameByName": renamed,
                },
            )
        )
        panel.no_value(_NOTHING).thresholds(_thresholds((), _NEUTRAL))
        return panel

    return make


def _begun(panel: Made, title: str, about: str, span: int, height: int, runbook: str) -> Made:
    panel.title(title).description(about).datasource(SOURCE).span(span).height(height)
    if runbook:
        link = DashboardLink("What to do").type(DashboardLinkType.LINK)
        panel.links([link.url(f"${{runbook}}#{runbook}").target_blank(True)])
    return panel


def _query(expr: str, legend: str, place: int = 0) -> Dataquery:
    query = Dataquery().datasource(SOURCE).ref_id(_letter(place)).expr(expr).range()
    return query.legend_format(legend)


def _letter(place: int) -> str:
    return chr(ord("A") + place)


def _thresholds(steps: Steps, base: str) -> ThresholdsConfig:
    found = [Threshold(None, base), *(Threshold(value, colour) for value, colour in steps)]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(found)


def _mapping(words: Words) -> ValueMap:
    return ValueMap(
        {
            value: ValueMappingResult(text, colour, index=place)
            for place, (value, (text, colour)) in enumerate(words.items())
        }
    )
