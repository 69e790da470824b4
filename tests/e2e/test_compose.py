"""The stack of deploy/compose at work: real programs with its files, and the demo's exporter through all of it."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exporter.simulate.story import story
from tests import compose_files
from tests.compose_files import COMPOSE, FOLDER, PASSWORD
from tests.e2e import compose_stack, docker_compose, servers, tools
from tests.e2e.compose_stack import INSTANCE, Places, Stack
from tests.program import SAME, environ, run, running
from tests.sink import Reply, Sink

DEMO_SECONDS = 90.0
"""The story's forty, its deliveries, and patience."""
SETTLE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Played:
    """A stack through which the demo has gone: when it began and ended, in seconds since the epoch."""

    stack: Stack
    began: float
    ended: float

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what Prometheus answers for the last moments of the demo."""
        answer = self.stack.prometheus.get("/api/v1/query", query=expression, time=f"{self.ended - 3:.3f}")
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


@pytest.fixture(scope="module", name="played")
def _played(
    collector_program: Path, jaeger_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Played]:
    """Run the stack and, as compose.yaml starts it, the demo."""
    folder = tmp_path_factory.mktemp("stack")
    service = compose_files.services()["wok-demo"]
    with compose_stack.stack(collector_program, jaeger_program, folder) as stack:
        began = time.time()
        given = compose_stack.exporter_environ(
            "wok-demo", endpoint=f"http://{stack.collector.http}", listen=stack.exporter
        )
        with running(*service["command"], said=folder / "demo.said", env=given) as demo:
            servers.until(lambda: demo.process.poll() is not None, DEMO_SECONDS, lambda: demo.said)
            assert demo.process.returncode == 0, demo.said
        ended = time.time()
        servers.until(
            lambda: len(jaeger_spans(stack)) == len(stack.tempo.spans()) > 0,
            SETTLE_SECONDS,
            lambda: (
                f"{stack.tempo.counts()}, {len(jaeger_spans(stack))} in Jaeger; {stack.collector.server.said[-2000:]}"
            ),
        )
        yield Played(stack, began, ended)


def jaeger_spans(stack: Stack) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the spans that Jaeger has of all services, by trace id and span id."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for service in stack.jaeger.server.get("/api/services")["data"] or ():
        for trace in stack.jaeger.server.get("/api/traces", service=service, limit="1000")["data"]:
            found |= {(span["traceID"], span["spanID"]): span for span in trace["spans"]}
    return found


def hexadecimal(key: tuple[bytes, bytes]) -> tuple[str, str]:
    return key[0].hex(), key[1].hex()


def test_traces_come_to_both_backends(played: Played) -> None:
    """Jaeger and Tempo's place have the same spans, among them a failed clone below its request."""
    received = played.stack.tempo.spans()
    spans = jaeger_spans(played.stack)

    assert {request.path for request in played.stack.tempo.requests} == {"/v1/traces"}
    assert {hexadecimal(key) for key in received} == set(spans)
    clones = [span for span in spans.values() if span["operationName"] == "task vms.clone"]
    failed = [span for span in clones if {"key": "error", "type": "bool", "value": True} in span["tags"]]
    assert failed
    (parent,) = failed[0]["references"][:1]
    assert parent["refType"] == "CHILD_OF"
    assert spans[parent["traceID"], parent["spanID"]]["operationName"] == "POST kimchi vms.clone"


def test_log_records_come_to_loki_with_their_traces(played: Played) -> None:
    """Loki's place gets every log record at the path of Loki's OTLP receiver, and each belongs to a trace that Tempo's place has."""
    servers.until(lambda: len(played.stack.loki.logs()) > 0, SETTLE_SECONDS)
    records = played.stack.loki.logs()
    traces = {trace for trace, _ in played.stack.tempo.spans()}

    assert {request.path for request in played.stack.loki.requests} == {"/otlp/v1/logs"}
    assert {trace for trace, *_ in records} == traces
    assert {event for _, _, event, _ in records} >= {"wok.request", "wok.task.failed", "wok.task.completed"}


def test_prometheus_scrapes_all_that_is_there(played: Played) -> None:
    """Prometheus has what it scrapes up, and calls the exporter as targets/hosts.yaml does."""
    up = {one["metric"]["job"]: one for one in played.query("up == 1")}

    assert set(up) == {"wok", "prometheus", "alertmanager", "otelcol", "jaeger"}
    assert up["wok"]["metric"]["instance"] == INSTANCE
    assert played.query('otelcol_receiver_accepted_spans{job="otelcol"} > 0')


def test_exemplars_lead_to_traces(played: Played) -> None:
    """The trace ids of Prometheus' exemplars, by the label that Grafana's data source follows, are ones that Jaeger knows."""
    (label,) = {
        one["name"]
        for one in compose_files.data_sources()["wok-prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    }
    answer = played.stack.prometheus.get(
        "/api/v1/query_exemplars",
        query="wok_task_duration_seconds_bucket",
        start=f"{played.began - 60:.3f}",
        end=f"{played.ended + 60:.3f}",
    )
    named = {one["labels"][label] for series in answer["data"] for one in series["exemplars"]}

    assert named
    assert named <= {trace for trace, _ in jaeger_spans(played.stack)}


def test_traces_lead_to_metrics(played: Played) -> None:
    """Every query that Grafana's data source offers at a span has an answer, for the tags of a span that Jaeger has."""
    offered = compose_files.data_sources()["wok-tempo"]["jsonData"]["tracesToMetrics"]
    span = next(
        span
        for span in jaeger_spans(played.stack).values()
        if span["operationName"] == "POST kimchi vms.clone"
    )
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    matchers = ",".join(f'{tag["value"]}="{tags[tag["key"]]}"' for tag in offered["tags"])
    empty = [
        query["query"]
        for query in offered["queries"]
        if not played.query(query["query"].replace("$__tags", matchers))
    ]

    assert empty == []


def test_rules_are_evaluated(played: Played) -> None:
    """Prometheus evaluates every rule of deploy/prometheus without an error."""
    groups = played.stack.prometheus.get("/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]

    assert rules
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule.get("lastError")] == []


def test_a_failed_task_reaches_alertmanager(played: Played) -> None:
    """The clone that fails in the demo is an alert in Alertmanager, which names the host."""

    def alerts() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = played.stack.alertmanager.get("/api/v2/alerts")
        return [
            alert
            for alert in found
            if alert["labels"]["alertname"] == "WokTaskFailed"
            and alert["labels"].get("operation") == "vms.clone"
        ]

    servers.until(lambda: bool(alerts()), SETTLE_SECONDS)

    assert {alert["labels"]["instance"] for alert in alerts()} == {INSTANCE}


def test_health_checks_tell_health(played: Played) -> None:
    """The health checks of compose.yaml succeed where the service answers, and fail where nobody does."""
    urls = {
        "jaeger": played.stack.jaeger.health,
        "prometheus": played.stack.prometheus.url,
        "alertmanager": played.stack.alertmanager.url,
    }
    nobody = f"http://{compose_stack.address()}"
    wrong = {
        name: (well.returncode, ill.returncode, well.stderr)
        for name, url in urls.items()
        if (well := compose_stack.health_check(name, url)).returncode != 0
        or (ill := compose_stack.health_check(name, nobody)).returncode == 0
    }

    assert wrong == {}


def test_backends_that_are_away_lose_nothing(collector_program: Path, tmp_path: Path) -> None:
    """What came while Loki and Jaeger were away, before the collector was killed, comes to them when all are back."""
    log = tmp_path / "wok-req.log"
    log.write_bytes(simulated(4))
    jaeger, loki = compose_stack.address(), compose_stack.address()
    with Sink() as reference, Sink() as tempo:
        replayed(log, reference.endpoint)
        places = Places(f"127.0.0.1:{tempo.port}", jaeger, loki)
        with compose_stack.collector(collector_program, tmp_path, places) as first:
            replayed(log, f"http://{first.http}")
            servers.until(lambda: set(tempo.spans()) == set(reference.spans()), SETTLE_SECONDS)
            first.server.process.kill()
            first.server.process.wait()
        with (
            Sink("grpc", port=port(jaeger)) as late_jaeger,
            Sink(port=port(loki)) as late_loki,
            compose_stack.collector(collector_program, tmp_path, places) as second,
        ):
            servers.until(
                lambda: (
                    set(late_jaeger.spans()) == set(reference.spans())
                    and set(late_loki.logs()) == set(reference.logs())
                ),
                SETTLE_SECONDS,
                lambda: f"{late_jaeger.counts()} {late_loki.counts()} {second.server.said[-2000:]}",
            )

        assert reference.counts()["spans"] > 10
        assert reference.counts()["logs"] > 10


def test_what_loki_refuses_for_good_is_counted(collector_program: Path, tmp_path: Path) -> None:
    """A request that Loki answers with 400 is dropped, counted by the metric that README.md names, and holds nothing up."""
    metric = "otelcol_exporter_send_failed_log_records"
    assert f"`{metric}`" in (FOLDER / "README.md").read_text("utf-8")
    old, new = tmp_path / "old.log", tmp_path / "new.log"
    for log, seed in ((old, 1), (new, 2)):
        log.write_bytes(simulated(seed))
    with Sink() as tempo, Sink("grpc") as jaeger, Sink() as loki:
        places = Places(*(f"127.0.0.1:{sink.port}" for sink in (tempo, jaeger, loki)))
        with compose_stack.collector(collector_program, tmp_path, places) as collector:
            loki.script([Reply(status=400, body=b"entry too far behind")])
            replayed(old, f"http://{collector.http}")
            servers.until(lambda: loki.request_count == 1, SETTLE_SECONDS)
            replayed(new, f"http://{collector.http}")
            servers.until(lambda: len(loki.logs()) > 0, SETTLE_SECONDS)
            status, page = servers.fetch(f"http://{collector.metrics}/metrics")

    assert status == 200
    (value,) = re.findall(rf'^{metric}{{[^}}]*exporter="otlp_http/loki"[^}}]*}} (\S+)', page, re.MULTILINE)
    assert float(value) > 10


def simulated(seed: int) -> bytes:
    """Return the log of the story, all at once."""
    lines = story("json", start=datetime(2026, 3, 1, 9, tzinfo=UTC), seed=seed)
    return b"".join(line.data + b"\n" for line in lines if line.log == "requests")


def replayed(log: Path, endpoint: str) -> None:
    """Send a log to its end; an exit code of 0 says that all of it was acknowledged."""
    done = run("replay", log, *SAME, env=environ(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint))
    assert done.returncode == 0, done.stderr


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


def test_compose_reads_the_stack() -> None:
    """Docker Compose itself accepts the stack with all its profiles, and without a password says where to write one."""
    command = docker_compose.command()
    if command is None:
        pytest.skip(tools.docker_compose().missing() or "")

    def config(*options: str, **more: str) -> subprocess.CompletedProcess[str]:
        given = {name: value for name, value in environ().items() if name != PASSWORD}
        return subprocess.run(
            [*command, "--file", str(COMPOSE), *options, "config", "--format", "json"],
            env={**given, **more},
            cwd=FOLDER,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    whole = config("--profile", "*", **{PASSWORD: "secret"})
    refused = config()

    assert (whole.returncode, whole.stderr) == (0, "")
    assert refused.returncode != 0
    assert "README.md" in refused.stderr


def test_the_programs_accept_their_files(collector_program: Path, jaeger_program: Path) -> None:
    """The collector's and Jaeger's own checks accept the committed files as they are."""
    for executable, name in ((collector_program, "otelcol.yaml"), (jaeger_program, "jaeger.yaml")):
        done = subprocess.run(
            [executable, "validate", f"--config={FOLDER / name}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_exporter_accepts_its_settings(tmp_path: Path) -> None:
    """The exporter's own check accepts what compose.yaml sets for the profile `exporter`."""
    given = compose_stack.exporter_environ(
        "wok-exporter", endpoint="http://127.0.0.1:4318", listen="0.0.0.0:10965"
    )
    log = tmp_path / "wok-req.log"
    log.touch()
    done = run(
        *compose_files.services()["wok-exporter"]["command"],
        *("--check-config", "--log", log, "--state", tmp_path / "state"),
        env=given,
    )

    assert done.returncode == 0, done.stderr
