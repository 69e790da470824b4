"""The queries of the dashboards and rules of deploy/, for tests that check them and tests that run
them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser
import yaml

ROOT = Path(__file__).parents[1]
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
RULES = sorted((ROOT / "deploy/prometheus").glob("*.rules.yaml"))


class Query(NamedTuple):
    """One query: its place, its PromQL with Grafana's variables, and the legend of its series."""

    place: str
    expression: str
    legend: str
    is_instant: bool
    is_heatmap: bool


class Selector(NamedTuple):
    """A selector of a query: a metric or a range of it, with label matchers."""

    name: str
    matchers: Mapping[str, str]
    text: str


class Rule(NamedTuple):
    """One recording or alerting rule."""

    name: str
    expression: str
    is_alert: bool


def loaded(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def panels(dashboard: Any) -> list[Any]:
    """The panels without the headings."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(dashboard: Any) -> list[Query]:
    """All PromQL of the panels of a dashboard."""
    return [
        Query(
            f"{dashboard['title']}: {panel['title']} ({target['refId']})",
            target["expr"],
            target.get("legendFormat", ""),
            bool(target.get("instant")),
            target.get("format") == "heatmap",
        )
        for panel in panels(dashboard)
        for target in panel["targets"]
        if target["datasource"]["type"] == "prometheus"
    ]


def marks(dashboard: Any) -> list[Query]:
    """All PromQL of the annotations of a dashboard."""
    return [
        Query(
            f"{dashboard['title']}: {mark['name']} (annotation)",
            mark["expr"],
            mark["titleFormat"],
            False,
            False,
        )
        for mark in dashboard["annotations"]["list"]
    ]


def filled(text: str, values: Mapping[str, str]) -> str:
    """Replace Grafana's variables with values. An unknown variable raises KeyError."""
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], text)


def rules(paths: Iterable[Path] = RULES) -> list[Rule]:
    """All rules of some files, by default of deploy/prometheus."""
    return [
        Rule(rule.get("alert") or rule["record"], rule["expr"], "alert" in rule)
        for path in paths
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
        for rule in group["rules"]
    ]


def selectors(expression: str) -> list[Selector]:
    """All selectors of an expression, without their ranges and offsets."""
    found: list[Selector] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            visit(node.vector_selector)
        elif isinstance(node, promql_parser.VectorSelector):
            matchers = {matcher.name: matcher.value for matcher in node.matchers.matchers}
            # Asked again by the matchers alone: no offset, no range.
            inner = ",".join(str(matcher) for matcher in node.matchers.matchers)
            found.append(Selector(node.name or "", matchers, f"{node.name or ''}{{{inner}}}"))

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def labels_named(expression: str) -> set[str]:
    """All labels by which an expression groups or joins."""
    lists = re.findall(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)", expression)
    return {label.strip() for found in lists for label in found.split(",") if label.strip()}


def placeholders(text: str) -> Iterator[str]:
    """The labels that a legend shows."""
    yield from re.findall(r"\{\{\s*(\w+)\s*\}\}", text)
