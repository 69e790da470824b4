"""A whole log in a real log backend: every record once, by its uid, and beside its span."""

from __future__ import annotations

import json
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exporter.simulate.story import story
from tests.e2e.servers import Server, fetch, until, victoria_logs
from tests.program import SAME, environ, running
from tests.sink import Sink

ARRIVES_SECONDS = 30.0


@pytest.fixture
def backend(tmp_path: Path, victoria_logs_program: Path) -> Iterator[Server]:
    with victoria_logs(tmp_path, victoria_logs_program) as started:
        yield started


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The demo's story: clones and migrations that succeed, fail and are lost."""
    path = tmp_path / "user-requests.data"
    lines = story("json", start=datetime(2026, 11, 1, 10, tzinfo=UTC))
    path.write_bytes(b"".join(line.data + b"\n" for line in lines if line.log == "requests"))
    return path


def query(backend: Server, logsql: str) -> list[dict[str, Any]]:
    """Return the rows of a LogsQL query."""
    arguments = urllib.parse.urlencode({"query": logsql, "limit": "100000"})
    status, body = fetch(f"{backend.url}/select/logsql/query?{arguments}")
    assert status == 200, body
    return [json.loads(line) for line in body.splitlines()]


def replay(log: Path, said: Path, **variables: str) -> None:
    """Replay a log to the backends that the variables name."""
    with running("replay", log, *SAME, said=said, env=environ(**variables)) as exporter:
        assert exporter.process.wait(60) == 0, exporter.said


def to(backend: Server) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{backend.url}/insert/opentelemetry/v1/logs"}


def test_every_record_arrives_once_and_a_replay_repeats_it(
    backend: Server, log: Path, tmp_path: Path
) -> None:
    """The backend has one record for each line and lost task, a second replay doubles them all, and the uid tells."""
    with Sink() as sink:
        replay(log, tmp_path / "sink", **sink.environ())
        expected = {key[3]: key[2] for key in sink.logs()}

    replay(log, tmp_path / "first", **to(backend))
    until(lambda: len(query(backend, "*")) >= len(expected), ARRIVES_SECONDS)
    rows = query(backend, "*")
    assert {row["log.record.uid"]: row["event_name"] for row in rows} == expected
    # a backend that drops the field, as Loki does, keeps the attribute
    assert {row["log.record.uid"]: row["event.name"] for row in rows} == expected
    assert len(rows) == len(expected)

    replay(log, tmp_path / "second", **to(backend))
    until(lambda: len(query(backend, "*")) >= 2 * len(expected), ARRIVES_SECONDS)
    repeated = Counter(row["log.record.uid"] for row in query(backend, "*"))
    assert set(repeated.values()) == {2}
    (uniq,) = query(backend, "* | stats count_uniq(log.record.uid) records")
    assert int(uniq["records"]) == len(expected)


def test_a_failed_task_leads_to_its_span_and_says_why(backend: Server, log: Path, tmp_path: Path) -> None:
    """A failure is found by its severity and event, and its ids are those of the span with the same error."""
    with Sink() as sink:
        traces = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{sink.endpoint}/v1/traces"}
        replay(log, tmp_path / "said", **traces, **to(backend))
        spans = {(trace.hex(), span.hex()) for trace, span in sink.spans()}

    found: list[dict[str, Any]] = []

    def arrived() -> bool:
        found[:] = query(backend, 'severity_text:ERROR event_name:"wok.task.failed"')
        return bool(found)

    until(arrived, ARRIVES_SECONDS)
    for row in found:
        assert (row["trace_id"], row["span_id"]) in spans
        assert row["wok.task.outcome"] == "failure"
        assert row["exception.message"]
        assert row["service.name"] == row["wok.app"]


def test_services_are_the_applications(backend: Server, log: Path, tmp_path: Path) -> None:
    """Records are in streams by application, as Wok's plug-ins are called."""
    replay(log, tmp_path / "said", **to(backend))
    until(lambda: bool(query(backend, "*")), ARRIVES_SECONDS)
    apps = {row["service.name"] for row in query(backend, "* | uniq by (service.name)")}

    assert {"kimchi", "wok"} <= apps
