"""A clone that fails, as Jaeger tells of it: the RFC's three questions asked of a real backend."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from exporter.simulate.records import Dialect
from tests.alert_links import link_of
from tests.e2e.servers import Jaeger, fetch, jaeger, until
from tests.e2e.wok import NO_SPACE, Wok
from tests.program import SAME, Running, environ, running

DURATION_SECONDS = 3.0
"""How long the clone takes: more than the whole seconds of the log can hide."""
ARRIVES_SECONDS = 30.0


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory, jaeger_program: Path) -> Any:
    with jaeger(tmp_path_factory.mktemp("jaeger"), jaeger_program) as started:
        yield started


def endpoint(backend: Jaeger, protocol: str) -> dict[str, str]:
    """Return the variables that send traces to a Jaeger, and no log records: it takes none."""
    port = backend.grpc if protocol == "grpc" else backend.http
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_LOGS_EXPORTER": "none",
    }


@contextmanager
def exporting(wok: Wok, backend: Jaeger, folder: Path, protocol: str) -> Iterator[Running]:
    """Run the daemon on Wok's log until the end; it is ready."""
    with running(
        "run", "--log", wok.log, "--state", folder / "state", "--listen", "127.0.0.1:0", *SAME,
        said=folder / "said", env=environ(**endpoint(backend, protocol)),
    ) as exporter:  # fmt: skip
        exporter.wait_for("/readyz")
        yield exporter


def tags(span: dict[str, Any]) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def parents(span: dict[str, Any]) -> list[str]:
    return [one["spanID"] for one in span["references"] if one["refType"] == "CHILD_OF"]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("dialect", ["json", "rfc"])
def test_jaeger_tells_what_became_of_a_clone(
    backend: Jaeger, tmp_path: Path, protocol: str, dialect: Dialect
) -> None:
    """Jaeger's query API returns a failed clone as the child of its request: status, duration, error text, what went on meanwhile."""
    wok = Wok(tmp_path / "log", dialect)
    guest = f"web-{dialect}-{protocol[:4]}"
    with exporting(wok, backend, tmp_path, protocol) as exporter:
        clone = wok.clone(guest)
        time.sleep(DURATION_SECONDS / 2)
        meanwhile = [wok.start_guest(f"other-{i}-{guest}") for i in range(2)]
        time.sleep(DURATION_SECONDS / 2)
        wok.end(clone, failed=True)

        tagged = f'{{"wok.task.target_uri":"{clone.target_uri}"}}'
        found: list[dict[str, Any]] = []

        def arrived() -> bool:
            answer = backend.api.get(
                "/api/traces",
                service="kimchi",
                operation="task vms.clone",
                tags=tagged,
                lookback="1h",
                limit="5",
            )
            found[:] = answer["data"]
            return bool(found)

        until(arrived, ARRIVES_SECONDS, lambda: exporter.said)
        assert exporter.stop() == 0

    (trace,) = found
    spans = {span["operationName"]: span for span in trace["spans"]}
    assert set(spans) == {"POST kimchi vms.clone", "task vms.clone"}
    request, task = spans["POST kimchi vms.clone"], spans["task vms.clone"]
    assert parents(task) == [request["spanID"]]
    assert parents(request) == []
    if dialect == "json":
        assert trace["traceID"] == clone.trace_id
    assert tags(request)["http.response.status_code"] == 202
    assert tags(request)["user.name"] == "ada"

    assert tags(task)["error"] is True
    assert tags(task)["otel.status_code"] == "ERROR"
    assert NO_SPACE in tags(task)["otel.status_description"]
    assert tags(task)["error.type"] == "KCHVM0035E"
    assert tags(task)["wok.task.outcome"] == "failure"
    assert tags(task)["wok.task.correlation"] == "exact"
    assert abs(task["duration"] / 1e6 - DURATION_SECONDS) < 1.5

    linked = [one["traceID"] for one in task["references"] if one["refType"] == "FOLLOWS_FROM"]
    assert len(linked) == 2
    assert tags(task)["wok.task.concurrent_requests"] == 2
    if dialect == "json":
        assert linked == meanwhile
    process = trace["processes"][task["processID"]]
    assert process["serviceName"] == "kimchi"
    assert {"service.namespace", "service.instance.id", "host.name"} <= {
        tag["key"] for tag in process["tags"]
    }


def test_the_link_of_an_alert_finds_the_failed_task(backend: Jaeger, tmp_path: Path) -> None:
    """The search that an alert about failed tasks links to has the failed task, and not the one that succeeded."""
    link = link_of("WokTaskFailed", "trace_url")
    query = dict(parse_qsl(urlsplit(link).query, keep_blank_values=True))
    now = int(time.time() * 1e6)
    query |= {"service": "kimchi", "operation": f"{query['operation']}vms.clone"}
    query |= {"start": str(now - 86_400_000_000), "end": str(now + 600_000_000)}
    wok = Wok(tmp_path / "log")
    with exporting(wok, backend, tmp_path, "http/protobuf") as exporter:
        bad, good = wok.clone("bad-link"), wok.clone("good-link")
        time.sleep(1)
        wok.end(bad, failed=True)
        wok.end(good)
        until(lambda: _has_spans(backend, bad.trace_id, 2), ARRIVES_SECONDS, lambda: exporter.said)
        until(lambda: _has_spans(backend, good.trace_id, 2), ARRIVES_SECONDS, lambda: exporter.said)
    found = {trace["traceID"] for trace in backend.api.get("/api/traces", **query)["data"]}

    assert bad.trace_id in found
    assert good.trace_id not in found


def test_a_clone_that_works_is_no_error(backend: Jaeger, tmp_path: Path) -> None:
    """The span of a task that succeeded has no error in Jaeger, and Jaeger's menus are Wok's applications and operations."""
    wok = Wok(tmp_path / "log")
    with exporting(wok, backend, tmp_path, "http/protobuf") as exporter:
        clone = wok.clone("fine")
        time.sleep(1)
        wok.end(clone)
        until(lambda: _has_spans(backend, clone.trace_id, 2), ARRIVES_SECONDS, lambda: exporter.said)
    spans = backend.api.get(f"/api/traces/{clone.trace_id}")["data"][0]["spans"]
    (task,) = (span for span in spans if span["operationName"] == "task vms.clone")
    assert "error" not in tags(task)
    assert "otel.status_code" not in tags(task)
    assert tags(task)["wok.task.outcome"] == "success"
    assert "kimchi" in backend.api.get("/api/services")["data"]
    assert {"POST kimchi vms.clone", "task vms.clone"} <= set(
        backend.api.get("/api/services/kimchi/operations")["data"]
    )


def test_a_repeat_is_not_seen_twice(backend: Jaeger, tmp_path: Path) -> None:
    """A whole log replayed three times into Jaeger is there once: repeats carry the same ids and bytes."""
    wok = Wok(tmp_path / "log")
    clones = [wok.clone(f"again-{i}") for i in range(5)]
    for clone in clones:
        wok.end(clone, failed=True)
    for turn in range(3):
        with running(
            "replay",
            wok.log,
            *SAME,
            said=tmp_path / f"said-{turn}",
            env=environ(**endpoint(backend, "http/protobuf")),
        ) as replay:
            assert replay.process.wait(60) == 0, replay.said
    for clone in clones:
        until(lambda one=clone: _has_spans(backend, one.trace_id, 2), ARRIVES_SECONDS)  # type: ignore[misc]
        assert len(backend.api.get(f"/api/traces/{clone.trace_id}")["data"][0]["spans"]) == 2


def _has_spans(backend: Jaeger, trace_id: str, number: int) -> bool:
    status, body = fetch(f"{backend.api.url}/api/traces/{trace_id}")
    return status == 200 and body.count('"operationName"') >= number
