"""A whole dashboard: rows, variables, links, annotations, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from deploy.grafana.expressions import CHOSEN, metric
from deploy.grafana.panels import BAD, PROMETHEUS, WARNING

COLUMNS = 24
"""The width of Grafana's grid."""
TAG = "wok"
"""All dashboards with this tag are linked to each other."""
ALL = dashboard.VariableOption(text="All", value="$__all")


class Row(NamedTuple):
    """A heading with panels below it, from left to right, wrapped at the end of the grid."""

    title: str
    panels: Sequence[dashboard.Panel]


def rendered(
    title: str,
    uid: str,
    description: str,
    rows: Sequence[Row],
    *,
    variables: Sequence[build.QueryVariable | build.DatasourceVariable] = (),
    from_time: str = "now-24h",
) -> str:
    """Return a dashboard's JSON; `variables` come after data source, job and instance."""
    whole = (
        build.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .time(from_time, "now")
        .refresh("1m")
        .timezone("browser")
        .variables([source("datasource", "Data source", "prometheus", "Prometheus"), *_chosen(), *variables])
        .annotations(_marks())
        .link(
            build.DashboardLink("Wok")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
        .build()
    )
    whole.panels = list(_placed(rows))
    data = json.loads(json.dumps(whole, cls=JSONEncoder))
    for link in data["links"]:
        # The SDK puts every link into a menu that is closed; without this it stands at the top.
        del link["placement"]
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def source(name: str, label: str, kind: str, text: str) -> build.DatasourceVariable:
    """Return the selection of a data source: `wok-<kind>` by default, else the
    first of that kind.
    """
    chosen = dashboard.VariableOption(text=text, value=f"wok-{kind}")
    return build.DatasourceVariable(name).label(label).type(kind).current(chosen)


def one_of(name: str, label: str, description: str, query: str) -> build.QueryVariable:
    """Return the selection of one value, without All."""
    return _query_variable(name, label, description, query).multi(False).include_all(False)


def _chosen() -> list[build.QueryVariable]:
    job = _query_variable(
        "job", "Job", "The scrape jobs of Wok exporters.", "label_values(wok_exporter_build_info, job)"
    )
    instance = _query_variable(
        "instance",
        "Instance",
        "The exporters, one per host with Wok.",
        'label_values(wok_exporter_build_info{job=~"$job"}, instance)',
    )
    return [
        variable.multi(True).include_all(True).all_value(".+").current(ALL) for variable in (job, instance)
    ]


def _query_variable(name: str, label: str, description: str, query: str) -> build.QueryVariable:
    return (
        build.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(PROMETHEUS)
        .query(query)
        .definition(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    )


def _marks() -> list[Builder[dashboard.AnnotationQuery]]:
    failures = metric("wok_tasks_finished_total", 'outcome="failure"')
    return [
        _mark(
            "Failed tasks",
            # The step is the annotation's own: Grafana has no interval of a panel to go by.
            f"sum by (instance, app, operation) (increase({failures}[2m])) > 0",
            BAD,
            "{{operation}} failed",
            "{{app}} on {{instance}}",
        ),
        _mark(
            "Firing alerts",
            f'ALERTS{{alertname=~"Wok.+",alertstate="firing",{CHOSEN}}}',
            WARNING,
            "{{alertname}}",
            "{{app}} {{operation}} on {{instance}}",
        ).enable(False),
    ]


def _mark(name: str, expression: str, colour: str, title: str, text: str) -> build.AnnotationQuery:
    return (
        build.AnnotationQuery()
        .name(name)
        .datasource(PROMETHEUS)
        .enable(True)
        .icon_color(colour)
        .expr(expression)
        .step("60s")
        .title_format(title)
        .text_format(text)
        .tag_keys("instance,app")
    )


def _placed(rows: Sequence[Row]) -> Iterator[dashboard.Panel | dashboard.RowPanel]:
    number, y = 0, 0
    for row in rows:
        number += 1
        yield dashboard.RowPanel(
            title=row.title, id_val=number, grid_pos=dashboard.GridPos(h=1, w=COLUMNS, x=0, y=y)
        )
        x, y, line_height = 0, y + 1, 0
        for panel in row.panels:
            place = panel.grid_pos
            assert place is not None, "a panel knows how large it is"
            if x + place.w > COLUMNS:
                x, y, line_height = 0, y + line_height, 0
            number += 1
            panel.id_val, place.x, place.y = number, x, y
            x, line_height = x + place.w, max(line_height, place.h)
            yield panel
        y += line_height
