"""The kinds of panels. Each panel has a title, a description, a unit and a data source.

Widths are columns of Grafana's grid, which has 24. Heights are grid units; a screen of 1080 lines
shows about 26.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from grafana_foundation_sdk.builders import (
    common,
    heatmap,
    logs,
    loki,
    prometheus,
    stat,
    table,
    tempo,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models import tempo as tempo_model
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    DataSourceRef,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TableCellHeight,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS = DataSourceRef("prometheus", "$datasource")
TEMPO = DataSourceRef("tempo", "$tempo")
LOKI = DataSourceRef("loki", "$loki")
GOOD, WARNING, BAD, NEUTRAL, UNKNOWN = "green", "orange", "red", "blue", "#8e8e8e"
NO_DATA = "No data"
TASK_URL = (
    "/d/wok-task?var-app=${__data.fields.app}&var-operation=${__data.fields.operation}"
    "&${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${__url_time_range}"
)
"""Link from a table row with app and operation to the task's details, for the same time and hosts.
"""


class Curve(NamedTuple):
    """One query of a graph, and the legend of its lines."""

    expression: str
    legend: str


class Column(NamedTuple):
    """One query of a table, with heading and unit. Values from `bad_from` on are coloured."""

    expression: str
    heading: str
    unit: str = "short"
    bad_from: float | None = None
    decimals: int | None = None


def number(
    title: str,
    description: str,
    expression: str,
    unit: str = "short",
    *,
    steps: Mapping[float, str] | None = None,
    empty: str = NO_DATA,
    decimals: int | None = None,
) -> dashboard.Panel:
    """Return a single number, at the end of the dashboard's range. `steps` are colours by lowest
    value.

    Without any series, the panel shows `empty` in grey. A green 0 would hide that nothing is known.
    """
    panel = (
        stat.Panel()
        .with_target(_instant(expression))
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .thresholds(_thresholds(steps or {}))
        .no_value(empty)
        .mappings([_no_series(empty)])
    )
    if decimals is not None:
        panel.decimals(decimals)
    return _finished(panel, title, description, unit, PROMETHEUS, width=3, height=4)


def graph(
    title: str,
    description: str,
    curves: Sequence[Curve],
    unit: str = "short",
    *,
    is_stacked: bool = False,
    bars: bool = False,
    interval: str = "",
    empty: str = "",
    width: int,
    height: int,
) -> dashboard.Panel:
    """Return lines or bars over time.

    `interval` is the shortest time per point. If it is set, lines connect points across gaps.
    """
    panel = (
        timeseries.Panel()
        .draw_style(GraphDrawStyle.BARS if bars else GraphDrawStyle.LINE)
        .fill_opacity(70 if bars else 10)
        .line_width(0 if bars else 1)
        .show_points(VisibilityMode.AUTO)
        .span_nulls(bool(interval))
        .axis_soft_min(0)
        .tooltip(
            common.VizTooltipOptions()
            .mode(TooltipDisplayMode.MULTI)
            .sort(SortOrder.DESCENDING)
            .hide_zeros(True)
        )
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
    )
    if is_stacked or bars:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if interval:
        panel.interval(interval)
    if empty:
        panel.no_value(empty)
    for ref, curve in zip(_REFS, curves, strict=False):
        target = prometheus.Dataquery().expr(curve.expression).legend_format(curve.legend).range().ref_id(ref)
        panel.with_target(target.datasource(PROMETHEUS))
    return _finished(panel, title, description, unit, PROMETHEUS, width=width, height=height)


def durations(title: str, description: str, expression: str, *, width: int, height: int) -> dashboard.Panel:
    """Return task durations as a heatmap. Its points are exemplars and link to their traces."""
    target = (
        prometheus.Dataquery()
        .expr(expression)
        .legend_format("{{le}}")
        .format(PromQueryFormat.HEATMAP)
        .exemplar(True)
        .range()
        .ref_id("A")
        .datasource(PROMETHEUS)
    )
    panel = (
        heatmap.Panel()
        .with_target(target)
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_model.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .fill("dark-orange")
            .scale(heatmap_model.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .tooltip(heatmap.HeatmapTooltip().mode(TooltipDisplayMode.SINGLE).y_histogram(True))
        .exemplars_color("rgba(80, 160, 255, 0.9)")
        .show_legend()
        # Tasks are rare: a cell that stands for little time shows nothing.
        .max_data_points(100)
        .interval("1m")
    )
    return _finished(panel, title, description, "s", PROMETHEUS, width=width, height=height)


def listing(
    title: str,
    description: str,
    labels: Mapping[str, str],
    columns: Sequence[Column],
    *,
    sort_by: str,
    empty: str,
    width: int,
    height: int,
) -> dashboard.Panel:
    """Return a table with a row for each set of `labels` (name: heading) and a column for each
    query.

    If app and operation are among the labels, an operation links to its details.
    """
    panel = table.Panel().cell_height(_SMALL).no_value(empty).filterable(True)
    for ref, column in zip(_REFS, columns, strict=False):
        panel.with_target(_instant(column.expression, ref, is_table=True))
    panel.with_transformation(dashboard.DataTransformerConfig("merge", options={}))
    # With one query Grafana calls its values `Value`, with more `Value #A` and so on.
    fields = [
        f"Value #{ref}" if len(columns) > 1 else "Value" for ref, _ in zip(_REFS, columns, strict=False)
    ]
    order = {field: at for at, field in enumerate([*labels, *fields])}
    panel.with_transformation(
        dashboard.DataTransformerConfig(
            "organize", options={"excludeByName": {"Time": True}, "indexByName": order}
        )
    )
    for label, heading in labels.items():
        panel.override_by_name(label, [_property("displayName", heading), *_link(label, labels)])
    for field, column in zip(fields, columns, strict=True):
        panel.override_by_name(field, _as(column))
    panel.sort_by([common.TableSortByFieldState().display_name(sort_by).desc(True)])
    return _finished(panel, title, description, "short", PROMETHEUS, width=width, height=height)


def traces(title: str, description: str, query: str, *, width: int, height: int) -> dashboard.Panel:
    """Return the result of a search in Tempo. A click on a trace id opens the trace."""
    target = (
        tempo.Dataquery()
        .query_type("traceql")
        .query(query)
        .table_type(tempo_model.SearchTableType.TRACES)
        .limit(50)
        .ref_id("A")
        .datasource(TEMPO)
    )
    panel = table.Panel().with_target(target).cell_height(_SMALL).no_value("No trace in this time")
    return _finished(panel, title, description, "none", TEMPO, width=width, height=height)


def records(title: str, description: str, query: str, *, width: int, height: int) -> dashboard.Panel:
    """Return log records from Loki, latest first. The details of a record link to its trace."""
    target = loki.Dataquery().expr(query).query_type("range").max_lines(200).ref_id("A").datasource(LOKI)
    panel = logs.Panel().with_target(target).show_time(True).wrap_log_message(True).enable_log_details(True)
    return _finished(panel, title, description, "none", LOKI, width=width, height=height)


_REFS = "ABCDEFGHIJ"
_SMALL = TableCellHeight.SM


def _instant(expression: str, ref: str = "A", *, is_table: bool = False) -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(expression).instant().ref_id(ref).datasource(PROMETHEUS)
    return query.format(PromQueryFormat.TABLE if is_table else PromQueryFormat.TIME_SERIES)


def _finished(
    panel: Builder[dashboard.Panel],
    title: str,
    description: str,
    unit: str,
    source: DataSourceRef,
    *,
    width: int,
    height: int,
) -> dashboard.Panel:
    made = panel.build()
    made.grid_pos = dashboard.GridPos(w=width, h=height)
    made.title, made.description, made.datasource = title, description, source
    config = made.field_config = made.field_config or dashboard.FieldConfigSource()
    config.defaults = config.defaults or dashboard.FieldConfig()
    config.defaults.unit = unit
    return made


def _thresholds(steps: Mapping[float, str]) -> build.ThresholdsConfig:
    found = [dashboard.Threshold(None, GOOD if steps else NEUTRAL)]
    found += [dashboard.Threshold(value, colour) for value, colour in sorted(steps.items())]
    return build.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(found)


def _no_series(text: str) -> dashboard.SpecialValueMap:
    options = dashboard.DashboardSpecialValueMapOptions(
        dashboard.SpecialValueMatch.NULL_AND_NAN, dashboard.ValueMappingResult(text, UNKNOWN, None, 0)
    )
    return dashboard.SpecialValueMap(options)


def _property(name: str, value: object) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue(name, value)


def _link(label: str, labels: Mapping[str, str]) -> list[dashboard.DynamicConfigValue]:
    if label != "operation" or "app" not in labels:
        return []
    return [_property("links", [{"title": "Task detail: ${__data.fields.operation}", "url": TASK_URL}])]


def _as(column: Column) -> list[dashboard.DynamicConfigValue]:
    properties = [_property("displayName", column.heading), _property("unit", column.unit)]
    if column.decimals is not None:
        properties.append(_property("decimals", column.decimals))
    if column.bad_from is not None:
        steps = [{"value": None, "color": "text"}, {"value": column.bad_from, "color": BAD}]
        properties += [
            _property("thresholds", {"mode": "absolute", "steps": steps}),
            _property("custom.cellOptions", {"type": "color-text"}),
        ]
    return properties
