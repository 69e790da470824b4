"""The Grafana dashboards: generated, complete, with queries for existing data only."""

from __future__ import annotations

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models import units

from deploy.grafana.__main__ import DASHBOARDS as MADE
from deploy.grafana.__main__ import FOLDER
from exporter.metrics.definitions import FAMILIES
from tests.dashboards import (
    DASHBOARDS,
    ROOT,
    Query,
    filled,
    labels_named,
    loaded,
    marks,
    panels,
    placeholders,
    queries,
    rules,
    selectors,
)
from tests.program import installed

BUILT_IN = {"__range": "24h", "__rate_interval": "5m"}
CHOSEN = {"job": "wok", "instance": ".+", "app": "kimchi", "operation": "vms.clone"}
VALUES = BUILT_IN | CHOSEN
OF_PROMETHEUS = {"up": ("job", "instance"), "ALERTS": ("alertname", "alertstate", "app", "operation")}
OF_TARGETS = {"job", "instance"}
EACH = pytest.mark.parametrize(
    "dashboard", [loaded(path) for path in DASHBOARDS], ids=lambda found: found["uid"]
)
ALL_QUERIES = [query for path in DASHBOARDS for query in queries(loaded(path)) + marks(loaded(path))]


def sample_names() -> dict[str, tuple[str, ...]]:
    """The names of a family's samples with their labels."""
    names: dict[str, tuple[str, ...]] = {}
    for doc in FAMILIES:
        if doc.type == "histogram":
            names |= {f"{doc.name}_bucket": (*doc.labels, "le")}
            names |= {f"{doc.name}_{part}": doc.labels for part in ("sum", "count")}
        else:
            names[doc.name] = doc.labels
    return names


def family_of(name: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", name)


@pytest.mark.parametrize("name", sorted(MADE))
def test_generating_again_gives_the_same(name: str) -> None:
    """The committed files match the code. `make dashboards` writes them again."""
    assert (FOLDER / name).read_text("utf-8") == MADE[name]()


def test_every_committed_dashboard_is_generated() -> None:
    """Every committed dashboard is generated."""
    assert {path.name for path in DASHBOARDS} == set(MADE)


@EACH
def test_the_sdk_reads_back_what_it_wrote(dashboard: Any) -> None:
    """Grafana's own types read the file without losing or adding anything."""
    # Not at the head: before deploy.grafana has imported it, the SDK warns.
    from grafana_foundation_sdk.cog.encoder import JSONEncoder  # noqa: PLC0415
    from grafana_foundation_sdk.cog.plugins import register_default_plugins  # noqa: PLC0415
    from grafana_foundation_sdk.models.dashboard import Dashboard  # noqa: PLC0415

    register_default_plugins()
    again = json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))
    for link in again["links"]:
        del link["placement"]  # as the generator does

    assert again == dashboard


@EACH
def test_every_panel_says_what_it_shows(dashboard: Any) -> None:
    """Every panel has a title, a description that is a sentence, a unit, a data
    source and a query.
    """
    mute = [
        panel["title"]
        for panel in panels(dashboard)
        if not (
            panel["title"]
            and panel["description"].endswith((".", ")"))
            and panel["fieldConfig"]["defaults"]["unit"]
            and panel["datasource"]["uid"].startswith("$")
            and panel["targets"]
        )
    ]

    assert mute == []


@EACH
def test_grafana_knows_every_unit(dashboard: Any) -> None:
    """Every unit of panels and columns exists in Grafana."""
    known = {
        value for name, value in vars(units).items() if not name.startswith("_") and isinstance(value, str)
    }
    used = {panel["fieldConfig"]["defaults"]["unit"] for panel in panels(dashboard)} | {
        one["value"]
        for panel in panels(dashboard)
        for override in panel["fieldConfig"].get("overrides") or []
        for one in override["properties"]
        if one["id"] == "unit"
    }

    assert used - known == set()


@EACH
def test_columns_of_tables_have_units(dashboard: Any) -> None:
    """Every value column of a table has a heading and a unit."""
    for panel in panels(dashboard):
        if panel["type"] != "table" or panel["datasource"]["type"] != "prometheus":
            continue
        told = {
            override["matcher"]["options"]: {one["id"] for one in override["properties"]}
            for override in panel["fieldConfig"]["overrides"]
        }
        refs = [target["refId"] for target in panel["targets"]]
        values = [f"Value #{ref}" for ref in refs] if len(refs) > 1 else ["Value"]
        headings = [
            one["value"]
            for override in panel["fieldConfig"]["overrides"]
            for one in override["properties"]
            if one["id"] == "displayName"
        ]

        assert all({"displayName", "unit"} <= told[value] for value in values), panel["title"]
        assert panel["options"]["sortBy"][0]["displayName"] in headings, panel["title"]


@EACH
def test_panels_stand_beside_each_other(dashboard: Any) -> None:
    """No panel overlaps another or leaves the grid, every line is full, and ids are unique."""
    places = [(panel["gridPos"], panel["title"]) for panel in dashboard["panels"]]
    cells = [
        {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        for at, _ in places
    ]
    height = max(y for found in cells for _, y in found) + 1

    assert [
        (places[i][1], places[j][1]) for i, j in combinations(range(len(cells)), 2) if cells[i] & cells[j]
    ] == []
    assert set().union(*cells) == {(x, y) for x in range(24) for y in range(height)}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@EACH
def test_what_can_be_chosen(dashboard: Any) -> None:
    """Data source, job and instance are selected in the same way on every dashboard."""
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    chosen = [variables[name] for name in ("job", "instance")]

    assert list(variables)[:3] == ["datasource", "job", "instance"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    assert all(variable["label"] for variable in variables.values())
    for variable in chosen:
        assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (True, True, ".+")
    for variable in variables.values():
        if variable["type"] == "query":
            assert variable["datasource"]["uid"] == "$datasource"
            assert variable["refresh"] == 2  # when the time changes
            assert re.fullmatch(r"label_values\(.+, \w+\)", variable["query"])


@EACH
def test_every_variable_that_is_used_exists(dashboard: Any) -> None:
    """Every name after a dollar is a variable of the dashboard or of Grafana."""
    declared = {variable["name"] for variable in dashboard["templating"]["list"]}
    grafanas = {"__range", "__rate_interval", "__data", "__url_time_range", "__all"}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard)))

    assert used - declared - grafanas == set()
    assert declared - used == set()


@EACH
def test_it_can_be_provisioned(dashboard: Any) -> None:
    """It has a fixed uid, no id and the tag, is read-only, and links to the others for the same
    time.
    """
    (link,) = dashboard["links"]

    assert re.fullmatch(r"wok-[a-z-]+", dashboard["uid"])
    assert "id" not in dashboard
    assert (dashboard["editable"], dashboard["tags"]) == (False, ["wok"])
    assert (link["type"], link["tags"], link["keepTime"], link["includeVars"]) == (
        "dashboards",
        ["wok"],
        True,
        True,
    )


def test_links_from_rows_lead_to_a_dashboard_and_its_variables() -> None:
    """A table row links to an existing dashboard, with variables that it has."""
    there = {found["uid"]: found for found in map(loaded, DASHBOARDS)}
    links = [
        one["value"][0]["url"]
        for found in there.values()
        for panel in panels(found)
        for override in panel["fieldConfig"].get("overrides") or []
        for one in override["properties"]
        if one["id"] == "links"
    ]

    assert links
    for url in links:
        uid, _, query = url.removeprefix("/d/").partition("?")
        names = {variable["name"] for variable in there[uid]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", query)) | set(re.findall(r"\{(\w+):queryparam", query)) <= names


@pytest.mark.parametrize("query", ALL_QUERIES, ids=lambda query: query.place)
def test_a_query_heeds_what_is_chosen(query: Query) -> None:
    """Every selector uses job and instance, and only labels that its metric has."""
    names = sample_names() | OF_PROMETHEUS
    recorded = {rule.name for rule in rules() if not rule.is_alert}
    found = selectors(filled(query.expression, VALUES))
    labels = OF_TARGETS | {label for one in found for label in names.get(one.name, ("app", "operation"))}

    assert found
    for selector in found:
        assert selector.name in names.keys() | recorded
        assert (selector.matchers["job"], selector.matchers["instance"]) == ("wok", ".+")
        if selector.name in names:
            assert set(selector.matchers) <= {*names[selector.name], *OF_TARGETS}
    assert labels_named(query.expression) | set(placeholders(query.legend)) <= labels | {"le", "alertname"}


@pytest.mark.parametrize("query", ALL_QUERIES, ids=lambda query: query.place)
def test_a_counter_is_asked_for_its_growth(query: Query) -> None:
    """Counters are used in rate() or increase(), or compared with their past."""
    counters = {doc.name for doc in FAMILIES if doc.type != "gauge"}
    for selector in re.finditer(r"(\w+)\((wok_\w+)\{[^}]*\}\[([^]]+)\]", query.expression):
        if family_of(selector[2]) in counters:
            window = {
                "rate": ("$__rate_interval",),
                "increase": (
                    "$__rate_interval",
                    "$__range",
                    "2m" if "annotation" in query.place else "$__range",
                ),
                "max_over_time": ("$__range",),
                "last_over_time": ("1h",),
            }
            assert selector[3] in window[selector[1]]
    without_ranges = re.sub(r"\w+\(wok_\w+\{[^}]*\}\[[^]]+\]", "", query.expression)
    bare = {family_of(name) for name in re.findall(r"(wok_\w+)\{", without_ranges)} & counters
    # That a request was ever counted is asked without asking for how many.
    assert bare <= ({"wok_requests_total"} if " unless on (job, instance) " in query.expression else set())


def test_every_family_is_shown() -> None:
    """Every metric is on a dashboard."""
    shown = {
        family_of(one.name) for query in ALL_QUERIES for one in selectors(filled(query.expression, VALUES))
    }

    assert {doc.name for doc in FAMILIES} - shown == set()


def test_traces_and_log_records_are_asked_by_what_they_carry() -> None:
    """Queries to Tempo and Loki use attributes that exist (docs/attributes.md)."""
    carried = set(
        re.findall(r"^\| `([a-z_.]+)` \|", (ROOT / "docs/attributes.md").read_text("utf-8"), re.MULTILINE)
    )
    of_loki = {name.replace(".", "_") for name in carried} | {"service_namespace"}
    targets = [target for path in DASHBOARDS for panel in panels(loaded(path)) for target in panel["targets"]]
    of_traces = [target["query"] for target in targets if target["datasource"]["type"] == "tempo"]
    of_logs = [target["expr"] for target in targets if target["datasource"]["type"] == "loki"]

    assert len(of_traces) == len(of_logs) == 2
    for query in of_traces:
        assert set(re.findall(r"span\.([a-z_.]+)", query)) <= carried
    for query in of_logs:
        assert set(re.findall(r"(\w+)(?:=~|!=|=)\"", query)) <= of_loki


def test_promtool_understands_every_query(tmp_path: Path) -> None:
    """Promtool accepts every query, with values for the variables."""
    promtool = installed("promtool")
    made = [
        {"record": f"query:{number}", "expr": filled(query.expression, VALUES)}
        for number, query in enumerate(ALL_QUERIES)
    ]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": made}]}), encoding="utf-8")
    checked = subprocess.run(
        [promtool, "check", "rules", path], capture_output=True, text=True, check=False, timeout=60
    )

    assert checked.returncode == 0, checked.stderr
    assert f"{len(ALL_QUERIES)} rules found" in checked.stdout
