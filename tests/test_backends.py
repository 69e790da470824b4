"""The running daemon beside backends that reject, lie, or speak something else."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.program import Running, environ, free_port, request_line, running, wait_until
from tests.sink import Received, Reply, Sink

USERS = [f"good{i}" for i in range(10)] + [f"bad{i}" for i in range(10)] + [f"good{i}" for i in range(10, 30)]
BAD = {uuid.uuid5(uuid.NAMESPACE_URL, name).bytes for name in USERS if name.startswith("bad")}


@contextmanager
def following(tmp_path: Path, env: dict[str, str], names: list[str]) -> Iterator[Running]:
    """The daemon on a log of these users, with traces alone."""
    log = tmp_path / "user-requests.data"
    log.write_bytes(b"".join(request_line(time.time() - 900 + i, name) for i, name in enumerate(names)))
    more = environ(**env, OTEL_LOGS_EXPORTER="none") if "OTEL_LOGS_EXPORTER" not in env else environ(**env)
    arguments = ("run", "--log", log, "--state", tmp_path / "state", "--listen", f"127.0.0.1:{free_port()}")
    with running(*arguments, "--start-at", "beginning", said=tmp_path / "said", env=more) as daemon:
        yield daemon


def status_of(daemon: Running) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.get("/api/status")[1])["delivery"][0]
    return found


def has_bad(received: Received) -> bool:
    request = ExportTraceServiceRequest.FromString(received.body)
    spans = [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
    return any(span.trace_id in BAD for span in spans)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_good_spans_pass_ten_rejected_ones(tmp_path: Path, protocol: Literal["http", "grpc"]) -> None:
    """Ten adjacent spans that a backend rejects are set aside within seconds, and the good ones behind arrive."""
    with Sink(protocol) as sink:
        sink.judge = lambda received: (
            Reply(400, code="INVALID_ARGUMENT", body=b"") if has_bad(received) else None
        )
        with following(tmp_path, sink.environ(), USERS) as daemon:
            wait_until(lambda: len(sink.spans()) >= 30)
            wait_until(lambda: status_of(daemon)["waiting"] == 0)
            metrics = daemon.get("/metrics")[1]
            status = status_of(daemon)

    reason = "http_400" if protocol == "http" else "grpc_invalid_argument"
    assert f'wok_exporter_rejected_by_backend_total{{reason="{reason}",signal="traces"}} 10.0' in metrics
    assert 'wok_exporter_delivered_total{signal="traces"} 30.0' in metrics
    assert (status["reason"], status["held"]) == ("", False)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(
            headers={"Content-Type": "application/json"}, body=b'{"partialSuccess": {"rejectedSpans": 1e999}}'
        ),
        Reply(headers={"Content-Type": "text/html"}, body=b""),
        Reply(headers={"Content-Length": "abc"}, body=b""),
        Reply(headers={"Content-Length": "12, 13"}, body=b"<html>"),
    ],
)
def test_a_lying_backend_is_named_and_nothing_is_lost(tmp_path: Path, reply: Reply) -> None:
    """A success that is none counts nothing as delivered and blames no disk; the data stays queued."""
    with Sink() as sink:
        sink.judge = lambda _: reply
        with following(tmp_path, sink.environ(), ["ada", "bob"]) as daemon:
            wait_until(lambda: bool(status_of(daemon)["reason"]))
            status, metrics = status_of(daemon), daemon.get("/metrics")[1]
            code = daemon.stop()
        said = daemon.said

    assert (status["reason"], status["held"], status["waiting"]) == ("not_otlp", True, 2)
    assert "disk" not in status["remedy"]
    assert 'wok_exporter_delivered_total{signal="traces"} 0.0' in metrics
    assert ("Traceback" in said, code) == (False, 0)


def test_a_wrong_port_is_named_on_the_page(tmp_path: Path) -> None:
    """HTTP to a gRPC port is shown with the setting to change, in /readyz and in the API."""
    with Sink("grpc") as sink:
        env = sink.environ(OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")
        with following(tmp_path, env, ["ada"]) as daemon:
            wait_until(lambda: bool(status_of(daemon)["reason"]))
            status, ready = status_of(daemon), daemon.get("/readyz")[1]

    assert (status["reason"], status["held"]) == ("needs_grpc", True)
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in ready


def test_a_socks_proxy_is_named_on_the_page(tmp_path: Path) -> None:
    """A SOCKS proxy of the environment is shown with its remedy, and its password is not."""
    proxy = {"ALL_PROXY": "socks5://me:secret@127.0.0.1:1", "NO_PROXY": "", "no_proxy": ""}
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"} | proxy
    with following(tmp_path, env, ["ada"]) as daemon:
        wait_until(lambda: bool(status_of(daemon)["reason"]))
        status, said = status_of(daemon), daemon.said

    assert (status["reason"], status["held"]) == ("proxy", True)
    assert "SOCKS" in status["message"]
    assert "secret" not in json.dumps(status) + said


def test_the_switch_of_opentelemetry_is_honoured(tmp_path: Path) -> None:
    """With OTEL_SDK_DISABLED=true nothing is sent, the start says so, and metrics are served."""
    with Sink() as sink, following(tmp_path, sink.environ(OTEL_SDK_DISABLED="true"), ["ada"]) as daemon:
        wait_until(lambda: "wok_requests_total{" in daemon.get("/metrics")[1])
        said = daemon.said

    assert sink.request_count == 0
    assert "sending no traces and log records: OTEL_SDK_DISABLED is true" in said


def test_lokis_count_is_ours(tmp_path: Path) -> None:
    """Of five records Loki says that it has rejected three: three are counted as rejected, two as delivered."""
    text = b"3 errors like: entry for stream '{a=\"b\"}' has timestamp too old: 2026-11-01T10:00:00Z"
    with Sink() as sink:
        sink.judge = lambda _: Reply(400, headers={"Content-Type": "text/plain"}, body=text)
        env = sink.environ(OTEL_TRACES_EXPORTER="none", OTEL_LOGS_EXPORTER="otlp")
        with following(tmp_path, env, ["a", "b", "c", "d", "e"]) as daemon:
            wait_until(lambda: 'reason="loki_too_old"' in daemon.get("/metrics")[1])
            metrics = daemon.get("/metrics")[1]

    assert 'wok_exporter_rejected_by_backend_total{reason="loki_too_old",signal="logs"} 3.0' in metrics
    assert 'wok_exporter_delivered_total{signal="logs"} 2.0' in metrics


def test_what_tempo_discards_looks_delivered(tmp_path: Path) -> None:
    """Tempo accepts spans and discards them later: no answer tells, so they count as delivered, once, and only Tempo's own counter shows it."""
    with Sink() as sink:
        sink.judge = lambda received: Reply(is_kept=not has_bad(received))
        with following(tmp_path, sink.environ(), USERS) as daemon:
            wait_until(
                lambda: f'delivered_total{{signal="traces"}} {len(USERS)}.0' in daemon.get("/metrics")[1]
            )
            status, (ready, _) = status_of(daemon), daemon.get("/readyz")
            kept = len(sink.spans())

    assert kept < len(USERS)
    assert (status["waiting"], status["reason"], ready) == (0, "", 200)
    rules = (Path(__file__).parents[1] / "deploy/prometheus/wok-backends.rules.yaml").read_text("utf-8")
    assert "tempo_discarded_spans_total" in rules
