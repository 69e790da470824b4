"""The dashboards as Grafana's own published parts read them: grammars of LogQL and TraceQL, transformations of tables.

Grafana itself is not built here: its licence does not fit this project.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.compose_files import data_sources
from tests.dashboards import DASHBOARDS, filled, loaded, panels
from tests.program import installed

EXAMINE = Path(__file__).parent / "grafana/examine.cjs"
LANGUAGES = {"loki": "logql", "tempo": "traceql"}
VALUES = {"app": "kimchi", "operation": "vms.clone"}
NUMBER = 7.0


class Table(NamedTuple):
    """A panel that joins its queries into one table."""

    title: str
    frames: list[dict[str, Any]]
    transformations: list[dict[str, Any]]

    @property
    def columns(self) -> list[str]:
        """The columns that the panel wants to show, in order."""
        positions = self.transformations[-1]["options"]["indexByName"]
        return sorted(positions, key=lambda name: int(positions[name]))


def examined(
    parts: Path,
    queries: Sequence[tuple[str, str]] = (),
    tables: Sequence[Table] = (),
    numbers: Sequence[Mapping[str, Any]] = (),
) -> Any:
    """Return what Grafana's parts say of queries, tables and single numbers."""
    asked = {
        "queries": queries,
        "numbers": numbers,
        "tables": [{"frames": one.frames, "transformations": one.transformations} for one in tables],
    }
    done = subprocess.run(
        [installed("node"), EXAMINE, parts],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def queries() -> list[tuple[str, str]]:
    """Every LogQL and TraceQL of the dashboards and data sources, with their variables filled in."""
    found = [
        (LANGUAGES[target["datasource"]["type"]], filled(target.get("expr") or target["query"], VALUES))
        for path in DASHBOARDS
        for panel in panels(loaded(path))
        for target in panel["targets"]
        if target["datasource"]["type"] in LANGUAGES
    ]
    logs = data_sources()["wok-tempo"]["jsonData"]["tracesToLogsV2"]["query"]
    trace = logs.replace("${__tags}", 'service_name="kimchi"').replace("${__trace.traceId}", "0af7")
    return [*found, ("logql", trace)]


def frame(target: dict[str, Any], alone: bool) -> dict[str, Any]:
    """Return what Prometheus answers to a query of a table: a row for each of two hosts."""
    (labels,) = set(re.findall(r"\bby \(([^)]*)\)", target["expr"])[:1])
    value = "Value" if alone else f"Value #{target['refId']}"
    # histogram_quantile consumes the bounds
    names = [name for label in labels.split(",") if (name := label.strip()) != "le"]
    fields = [{"name": "Time", "type": "time", "values": [1, 1]}]
    fields += [{"name": name, "type": "string", "values": [f"{name}1", f"{name}2"]} for name in names]
    return {
        "refId": target["refId"],
        "fields": [*fields, {"name": value, "type": "number", "values": [NUMBER] * 2}],
    }


def tables() -> list[Table]:
    """Every panel of the dashboards that transforms what its queries return."""
    return [
        Table(
            panel["title"],
            [frame(target, alone=len(panel["targets"]) == 1) for target in panel["targets"]],
            panel["transformations"],
        )
        for path in DASHBOARDS
        for panel in panels(loaded(path))
        if panel.get("transformations")
    ]


def test_every_query_is_in_the_grammar(grafana_parts: Path) -> None:
    """Grafana's parsers of LogQL and TraceQL find no error in a query, and would find one."""
    asked = queries()
    broken = [("logql", '{service_name="kimchi"} |= | x'), ("traceql", "{ span.wok.app = && }")]
    errors = examined(grafana_parts, [*asked, *broken])["errors"]

    assert {language for language, _ in asked} == {"logql", "traceql"}
    assert [query for query, found in zip(asked, errors, strict=False) if found] == []
    assert all(errors[-2:])


def test_every_table_is_one_with_its_columns_in_order(grafana_parts: Path) -> None:
    """Grafana's merge and organize make one table of a panel's queries: its columns in order, no times, a row for each host."""
    asked = tables()
    made = examined(grafana_parts, tables=asked)["tables"]

    assert asked
    for table, frames in zip(asked, made, strict=True):
        (fields,) = frames
        assert [name for name, _ in fields] == table.columns, table.title
        assert {len(values) for _, values in fields} == {2}, table.title
        assert next(values for name, values in fields if name.startswith("Value")) == [NUMBER, NUMBER]


def test_a_number_without_series_is_grey_and_no_zero(grafana_parts: Path) -> None:
    """Where nothing is known, no panel shows a number or a colour that means something; a 0 that is known has its colour."""
    stats = [panel for path in DASHBOARDS for panel in panels(loaded(path)) if panel["type"] == "stat"]
    asked = [{"config": panel["fieldConfig"]["defaults"], "values": [None, 0]} for panel in stats]
    made = examined(grafana_parts, numbers=asked)["numbers"]

    assert stats
    for panel, (unknown, zero) in zip(stats, made, strict=True):
        title = panel["title"]
        assert unknown == [panel["fieldConfig"]["defaults"]["noValue"], "#8e8e8e"], title
        assert not any(character.isdigit() for character in unknown[0]), title
        assert zero[1] != unknown[1], title
        assert zero[0][0].isdigit() or panel["fieldConfig"]["defaults"]["unit"] == "dateTimeFromNow", title


def test_links_name_columns_of_their_table() -> None:
    """A link from a row to the details of its task uses columns that the transformed table has."""
    for path in DASHBOARDS:
        for panel in panels(loaded(path)):
            wanted = set(re.findall(r"__data\.fields\.(\w+)", json.dumps(panel)))
            positions = [
                one["options"]["indexByName"]
                for one in panel.get("transformations", [])
                if one["id"] == "organize"
            ]
            assert wanted <= {name for one in positions for name in one}, panel["title"]
