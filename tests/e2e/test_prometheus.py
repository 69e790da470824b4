"""What a real Prometheus has of the exporter: every metric of the contract, and exemplars that lead to a trace in Jaeger."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

import pytest

from exporter.metrics.definitions import FAMILIES
from tests.e2e.servers import Jaeger, Server, fetch, jaeger, prometheus, until
from tests.e2e.wok import Wok
from tests.program import SAME, environ, running
from tests.sink import Received, Reply, Sink

SCRAPE = """\
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: wok
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
SEEN_SECONDS = 60.0


class Scene(NamedTuple):
    """A Prometheus that scrapes an exporter whose traces go to a Jaeger."""

    prometheus: Server
    jaeger: Jaeger
    failed_trace: str


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, jaeger_program: Path) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("prometheus")
    wok = Wok(folder / "wok.log")
    # A backend for log records that is away at first, then refuses one, then is away again.
    answers = chain([Reply(status=503), Reply(rejected=1, message="one too many")], repeat(Reply(status=503)))

    def answer(_: Received) -> Reply:
        return next(answers)

    with jaeger(folder, jaeger_program) as backend, Sink() as logs:
        logs.judge = answer
        env = environ(
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"http://127.0.0.1:{backend.http}/v1/traces",
            OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{logs.endpoint}/v1/logs",
        )
        with running(
            "run", "--log", wok.log, "--state", folder / "state", "--listen", "127.0.0.1:0", *SAME,
            said=folder / "said", env=env,
        ) as exporter:  # fmt: skip
            config = folder / "prometheus.yml"
            config.write_text(SCRAPE.format(port=exporter.port))
            with prometheus(folder, config) as server:
                yield Scene(server, backend, work(wok))
                assert exporter.process.poll() is None, exporter.said


def work(wok: Wok) -> str:
    """Let clones begin and end, well and badly and twice, one stay, a line be garbage; return a failed one's trace id."""
    clones = [wok.clone(f"guest-{i}") for i in range(4)]
    time.sleep(2.5)
    wok.end(clones[0])
    wok.end(clones[1], failed=True)
    wok.garbage()
    time.sleep(3.5)
    wok.end(clones[1], failed=True)
    wok.end(clones[2])
    return clones[1].trace_id


def test_every_metric_of_the_contract_is_there(scene: Scene) -> None:
    """Prometheus knows every family by its type and help, and has a sample of each."""

    def lacking() -> list[str]:
        told = scene.prometheus.get("/api/v1/targets/metadata", match_target='{job="wok"}')["data"]
        known = {entry["metric"]: (entry["type"], entry["help"]) for entry in told}
        found = []
        for family in FAMILIES:
            # OpenMetrics names a counter without its `_total`
            name = family.name.removesuffix("_total") if family.type == "counter" else family.name
            if known.get(name) != (family.type, family.help):
                found.append(f"{family.name} is {known.get(name)} for Prometheus")
            series = f"{family.name}_count" if family.type == "histogram" else family.name
            answer = scene.prometheus.get("/api/v1/query", query=series)["data"]["result"]
            if not answer:
                found.append(f"{series} has no sample")
            elif {*answer[0]["metric"]} - {"__name__", "job", "instance"} != {*family.labels}:
                found.append(f"{series} has the labels {answer[0]['metric']}")
        return found

    until(lambda: not lacking(), SEEN_SECONDS, lacking)


def test_an_exemplar_leads_to_the_trace_in_jaeger(scene: Scene) -> None:
    """The trace id of the duration's exemplar in Prometheus is that of the failed clone, and Jaeger has that trace."""

    def exemplars() -> list[dict[str, str]]:
        now = time.time()
        query = 'wok_task_duration_seconds_bucket{outcome="failure"}'
        series = scene.prometheus.get(
            "/api/v1/query_exemplars", query=query, start=str(now - 600), end=str(now + 60)
        )["data"]
        return [one["labels"] for entry in series for one in entry["exemplars"]]

    until(lambda: bool(exemplars()), SEEN_SECONDS, lambda: scene.prometheus.said[-2000:])
    assert {"trace_id": scene.failed_trace} in exemplars()
    status, body = fetch(f"{scene.jaeger.api.url}/api/traces/{scene.failed_trace}")
    assert status == 200, body
    assert "task vms.clone" in body


def test_counters_say_what_happened(scene: Scene) -> None:
    """Prometheus counts the clones as they ended, the repeat once, and the one that still runs."""
    expected = {
        'wok_tasks_started_total{operation="vms.clone"}': 4,
        'wok_tasks_finished_total{operation="vms.clone",outcome="success"}': 2,
        'wok_tasks_finished_total{operation="vms.clone",outcome="failure"}': 1,
        'wok_task_repeats_total{operation="vms.clone"}': 1,
        'wok_tasks_in_progress{operation="vms.clone"}': 1,
        'wok_exporter_lines_total{result="rejected"}': 1,
        'wok_exporter_rejected_by_backend_total{signal="logs",reason="partial"}': 1,
    }

    def counted() -> dict[str, float]:
        answers = {
            query: scene.prometheus.get("/api/v1/query", query=f"sum({query})")["data"]["result"]
            for query in expected
        }
        return {query: float(answer[0]["value"][1]) for query, answer in answers.items() if answer}

    until(lambda: counted() == expected, SEEN_SECONDS, counted)
