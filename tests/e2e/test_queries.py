"""Every query of every dashboard and rule, asked of a real Prometheus that scrapes a real exporter.

The exporter follows a log that grows (feed.py) and sends to receivers of which one does not take everything; wherever
a thing can go wrong, it does so once. The rules run sixty times as fast as they are written, so that an hour of theirs
is a minute here; nothing else of them is changed.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.dashboards import DASHBOARDS, RULES, Query, filled, loaded, marks, queries, rules, selectors
from tests.e2e import feed
from tests.e2e.servers import Server, prometheus, until
from tests.program import Running, environ, running
from tests.sink import Received, Reply, Sink

FASTER = 60
SLICES = 40
SLICE_SECONDS = 1.0
RATE_INTERVAL = "5s"
"""What Grafana has for a scrape a second: four of them and one more."""
PROVOKED = {
    "WokTaskFailed",
    "WokTasksLost",
    "WokTaskFailureRatioHigh",
    "WokTaskRunningLong",
    "WokLogFormatNotUnderstood",
    "WokLogForged",
    "WokExporterBackendNotTaking",
    "WokExporterRecordsRejected",
    "WokExporterDown",
}
CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["{folder}/*.rules.yaml"]
scrape_configs:
  - job_name: wok
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


@dataclass(frozen=True, slots=True)
class SignalFlags:
    """A Prometheus that has seen it all, from when to when it has, and what the backend has taken."""

    server: Server
    begin: float
    end: float
    traces: frozenset[str]

    @property
    def range(self) -> str:
        return f"{math.ceil(self.end - self.begin)}s"

    def series(self, expression: str, *, is_instant: bool = False) -> list[Any]:
        """Return the series of an answer that have a value, at the end or at any time."""
        if is_instant:
            answer = self.server.get("/api/v1/query", query=expression, time=f"{self.end}")
        else:
            answer = self.server.get(
                "/api/v1/query_range", query=expression, start=f"{self.begin}", end=f"{self.end}", step="1"
            )
        return [
            found
            for found in answer["data"]["result"]
            if any(value != "NaN" for _, value in found.get("values") or [found["value"]])
        ]

    def tasks(self) -> list[tuple[str, str]]:
        """Return the applications and operations that Task detail can be opened for, the busiest first."""
        found = self.series("sum by (app, operation) (wok_tasks_started_total) > 0", is_instant=True)
        found.sort(key=lambda one: -float(one["value"][1]))
        return [(one["metric"]["app"], one["metric"]["operation"]) for one in found]

    def answers(self, query: Query) -> list[Any]:
        """Return the answer to a query of a panel, for the first operation for which there is one."""
        tasks = self.tasks() if "$operation" in query.expression else [("", "")]
        for app, operation in tasks:
            expression = filled(query.expression, self.values(app, operation))
            if found := self.series(expression, is_instant=query.is_instant):
                return found
        return []

    def values(self, app: str, operation: str) -> dict[str, str]:
        """Return what Grafana puts in the place of its variables, with All chosen."""
        chosen = {"job": ".+", "instance": ".+", "app": app, "operation": operation}
        return chosen | {"__range": self.range, "__rate_interval": RATE_INTERVAL}


def faster(expression: str) -> str:
    """Return an expression with all its durations sixtieths of what they were."""
    pattern = re.compile(r"(?<=\[)\d+[smhdw](?=\])|(?<=offset )\d+[smhdw]")
    return pattern.sub(lambda found: sixtieth(found[0]), expression)


def sixtieth(duration: str) -> str:
    seconds = float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[duration[-1]]
    return f"{round(seconds * 1000 / FASTER)}ms"


def hurry(folder: Path) -> None:
    """Write all rules anew, sixty times as fast; no group is evaluated more than once a second."""
    folder.mkdir()
    for path in RULES:
        whole = yaml.safe_load(path.read_text("utf-8"))
        for group in whole["groups"]:
            group["interval"] = "1s"
            for rule in group["rules"]:
                rule["expr"] = faster(rule["expr"])
                if "for" in rule:
                    rule["for"] = sixtieth(rule["for"])
        (folder / path.name).write_text(yaml.safe_dump(whole), encoding="utf-8")


class Moody:
    """A backend of log records that fails three times, refuses one in each of three requests for good, then takes all until it is away."""

    def __init__(self) -> None:
        self.is_away = False
        self._replies = [Reply(status=503)] * 3
        self._replies += [Reply(rejected=1, message="this one is too old", is_kept=False)] * 3

    def __call__(self, _: Received) -> Reply | None:
        if self._replies:
            return self._replies.pop(0)
        return Reply(status=503) if self.is_away else None


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignalFlags]:
    folder = tmp_path_factory.mktemp("queries")
    log = folder / "wok-req.log"
    hurry(folder / "rules")
    mood = Moody()
    with ExitStack() as stack:
        traces, logs = (stack.enter_context(Sink()) for _ in range(2))
        logs.judge = mood
        lines = feed.lines(datetime.now(UTC))
        backlog = len(lines) // 4
        log.write_bytes(b"".join(line + b"\n" for line in lines[:backlog]))
        sending = environ(
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{traces.endpoint}/v1/traces",
            OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{logs.endpoint}/v1/logs",
        )
        arguments = [
            "--log",
            log,
            "--state",
            folder / "state",
            "--listen",
            "127.0.0.1:0",
            "--timezone",
            "UTC",
        ]
        arguments += ["--task-expiry", "15m", "--messages", "off", "--wok-error-log", "off"]
        daemon = stack.enter_context(running("run", *arguments, said=folder / "said", env=sending))
        daemon.wait_for("backlog read")
        config = folder / "prometheus.yml"
        config.write_text(CONFIG.format(folder=folder / "rules", port=daemon.port), encoding="utf-8")
        server = stack.enter_context(prometheus(folder, config))
        begin = time.time()
        until(lambda: seen(server, "wok_requests_total"), 30)
        # Two scrapes of what was there before, without which nothing can grow.
        time.sleep(2)
        grow(log, lines[backlog:], mood)
        until(lambda: is_read_to_the_end(daemon), 60)
        # The settling window of tasks, some scrapes, and the rules after them.
        time.sleep(8)
        end = time.time()
        daemon.process.kill()
        daemon.process.wait()
        until(lambda: seen(server, 'ALERTS{alertname="WokExporterDown",alertstate="firing"}'), 30)
        yield SignalFlags(server, begin, end, frozenset(trace.hex() for trace, _ in traces.spans()))


def grow(log: Path, lines: list[bytes], mood: Moody) -> None:
    """Write the rest of the log, a slice a second; rotate it half way; let the backend be away at the end."""
    size = math.ceil(len(lines) / SLICES)
    for number in range(SLICES):
        mood.is_away = number > SLICES * 3 // 4
        if number == SLICES // 2:
            log.rename(log.with_suffix(".log.1"))
        with log.open("ab") as stream:
            stream.writelines(line + b"\n" for line in lines[number * size : (number + 1) * size])
        time.sleep(SLICE_SECONDS)


def seen(server: Server, expression: str) -> bool:
    return bool(server.get("/api/v1/query", query=expression)["data"]["result"])


def is_read_to_the_end(daemon: Running) -> bool:
    return "wok_exporter_behind_bytes 0.0" in daemon.get("/metrics")[1]


NOT_PROVOKED = ("wok_exporter_log_gaps_total", "wok_exporter_state_damages_total")


def test_every_query_of_every_panel_has_data(asked: SignalFlags) -> None:
    """Each query of each panel and annotation, with its variables filled in as Grafana does, gets data back."""
    all_queries = [query for path in DASHBOARDS for query in queries(loaded(path)) + marks(loaded(path))]

    # Nothing in the log that is read here is lost or damaged: those counters are asked for their 0.
    all_queries = [
        query._replace(expression=query.expression.removesuffix(" > 0"))
        if any(name in query.expression for name in NOT_PROVOKED)
        else query
        for query in all_queries
    ]

    empty = [f"{query.place}: {query.expression}" for query in all_queries if not asked.answers(query)]

    assert not empty, "\n".join(empty)
    assert len(all_queries) > 80


def test_every_variable_has_values(asked: SignalFlags) -> None:
    """Each variable that asks Prometheus for its values finds some."""
    app, operation = asked.tasks()[0]
    empty = []
    for path in DASHBOARDS:
        for variable in loaded(path)["templating"]["list"]:
            if variable["type"] != "query":
                continue
            inner = filled(variable["query"], asked.values(app, operation))
            metric, _, label = inner.removeprefix("label_values(").removesuffix(")").rpartition(", ")
            answer = asked.server.get(f"/api/v1/label/{label}/values", **{"match[]": metric})
            if not answer["data"]:
                empty.append(f"{path.name}: {variable['name']}")

    assert empty == []


def test_everything_a_rule_reads_is_there(asked: SignalFlags) -> None:
    """Each selector of each rule names series that a real exporter has, or that another rule records."""
    empty = [
        f"{rule.name}: {selector.text}"
        for rule in rules()
        for selector in selectors(rule.expression)
        # there is no Tempo here
        if not selector.name.startswith("tempo_") and not asked.series(selector.text)
    ]

    assert not empty, "\n".join(empty)


def test_every_rule_can_be_evaluated(asked: SignalFlags) -> None:
    """Prometheus evaluates each rule without an error, and each recording rule has recorded something."""
    groups = asked.server.get("/api/v1/rules")["data"]["groups"]
    ill = [
        (rule["name"], rule["lastError"])
        for group in groups
        for rule in group["rules"]
        if rule["health"] != "ok"
    ]
    unrecorded = [rule.name for rule in rules() if not rule.is_alert and not asked.series(rule.name)]

    assert (ill, unrecorded) == ([], [])
    assert sum(len(group["rules"]) for group in groups) == len(rules())


def test_what_was_provoked_has_fired(asked: SignalFlags) -> None:
    """Each alert whose reason was brought about has fired, and what it tells could be told."""
    # a second more, for the steps are whole ones
    now = f"{time.time() + 1}"
    answer = asked.server.get(
        "/api/v1/query_range", query='ALERTS{alertstate="firing"}', start=f"{asked.begin}", end=now, step="1"
    )
    fired = {one["metric"]["alertname"] for one in answer["data"]["result"]}
    told = [
        text
        for alert in asked.server.get("/api/v1/alerts")["data"]["alerts"]
        for text in alert["annotations"].values()
    ]

    assert PROVOKED - fired == set()
    assert [text for text in told if "error expanding template" in text] == []


def test_points_in_the_heatmaps_lead_to_traces(asked: SignalFlags) -> None:
    """The exemplars of each heatmap are there, and each names a trace that the backend has."""
    heatmaps = [query for path in DASHBOARDS for query in queries(loaded(path)) if query.is_heatmap]
    app, operation = asked.tasks()[0]
    begin = asked.begin - timedelta(hours=2).total_seconds()
    for query in heatmaps:
        expression = filled(query.expression, asked.values(app, operation))
        answer = asked.server.get(
            "/api/v1/query_exemplars", query=expression, start=f"{begin}", end=f"{asked.end}"
        )
        found = {one["labels"]["trace_id"] for series in answer["data"] for one in series["exemplars"]}
        assert found, query.place
        assert found <= asked.traces, query.place
    assert len(heatmaps) == 2
