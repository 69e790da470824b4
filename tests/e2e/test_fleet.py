"""The collectors of a fleet, for real: the committed files of deploy/fleet/collector in a real OpenTelemetry Collector, fed by the real exporter."""

from __future__ import annotations

import re
import secrets
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from exporter.simulate.busy import busy
from tests.e2e.gateways import (
    DECISION_SECONDS,
    TOKEN,
    Gateway,
    Sampler,
    gateway,
    measured,
    sampler,
)
from tests.e2e.servers import until
from tests.program import SAME, Running, environ, free_port, run, running
from tests.sink import Certificates, Sink, SpanKey, make_certificates
from tests.test_fleet import inputs

SECONDS = 60.0
"""For anything that must happen."""
QUIET_SECONDS = 3 * DECISION_SECONDS + 2
"""After which nothing more comes: the decision, and two flushes of a second."""
PERCENT = 10
REQUESTS = 3_000
FULL_BYTES = 300_000
"""Less than the kept spans are, and more than the least batch."""
CANARY = "hunter2-Canary"
FORMS = (
    "password={}",
    "--passphrase='{}'",
    '{{"secret": "{}"}}',
    '{{\\"apikey\\": \\"{}\\"}}',
    "{{u'passwd': u'{}'}}",
    "iscsi://ada:{}@storage/",
    "Authorization: Basic {}",
    "authorization=Bearer {}",
    "sent Bearer aaaaaaaaaaaaaaaa{}",
    "-----BEGIN PRIVATE KEY-----\n{}",
)
"""Texts with a place for a secret."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def write(log: Path, *, requests: int, per_second: float) -> None:
    """Write the log of a simulated Wok; it ends a little before now."""
    start = datetime.now(UTC) - timedelta(seconds=requests / per_second, minutes=10)
    lines = busy("json", start=start.replace(microsecond=0), requests=requests, per_second=per_second, seed=7)
    log.write_bytes(b"".join(line.data + b"\n" for line in lines))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some minutes of a busy simulated Wok."""
    path = tmp_path_factory.mktemp("log") / "user-requests.data"
    write(path, requests=REQUESTS, per_second=30.0)
    return path


@pytest.fixture(scope="module")
def sent(log: Path) -> tuple[dict[SpanKey, Span], set[object]]:
    """What the exporter makes of the log: all spans, and the keys of all log records."""
    with Sink() as sink:
        replay(log, sink.environ())
        return parsed(sink), set(sink.logs())


@dataclass(frozen=True, slots=True)
class Fleet:
    """A gateway before two samplers, each of which has a backend of its own, and a receiver of log records."""

    gateway: Gateway
    backends: tuple[Sink, Sink]
    loki: Sink
    tier: tuple[Sampler, ...]

    def spans(self) -> dict[SpanKey, Span]:
        return parsed(self.backends[0]) | parsed(self.backends[1])

    def accepted(self) -> float:
        """How many spans the samplers have taken."""
        return sum(measured(one.metrics_port, "otelcol_receiver_accepted_spans") for one in self.tier)


@contextmanager
def fleet(program: Path, folder: Path, certificates: Certificates) -> Iterator[Fleet]:
    with ExitStack() as stack:
        first, second = (stack.enter_context(Sink("grpc")) for _ in range(2))
        loki = stack.enter_context(Sink())
        tier = tuple(
            stack.enter_context(sampler(program, folder / f"sampler{i}", certificates, to=sink.port))
            for i, sink in enumerate((first, second))
        )
        entrance = stack.enter_context(
            gateway(
                program,
                folder / "gateway",
                certificates,
                samplers=[one.port for one in tier],
                loki=loki.endpoint,
            )
        )
        yield Fleet(entrance, (first, second), loki, tier)


def sample(daemon: Running, name: str, labels: str) -> float:
    """Return the sum of an exporter's metric over the series that have some label."""
    page = daemon.get("/metrics")[1]
    found = re.findall(rf"^{name}(?:{{([^}}]*)}})? (\S+)$", page, re.MULTILINE)
    return sum(float(one) for known, one in found if labels in known)


def replay(log: Path, variables: Mapping[str, str]) -> None:
    done = run("replay", log, *SAME, env=environ(**variables))
    assert done.returncode == 0, done.stderr


def parsed(sink: Sink) -> dict[SpanKey, Span]:
    return {key: Span.FromString(found[0]) for key, found in sink.spans().items()}


def value(span: Span, key: str) -> AnyValue:
    return next((one.value for one in span.attributes if one.key == key), AnyValue())


def must_be_kept(span: Span) -> bool:
    return (
        span.status.code == Status.STATUS_CODE_ERROR
        or value(span, "http.response.status_code").int_value == 202
        or span.name.startswith("task ")
    )


def post(to: Gateway, path: str, body: bytes) -> None:
    """Send a hand-made request through the gateway's front door."""
    request = urllib.request.Request(
        f"https://127.0.0.1:{to.http}{path}",
        data=body,
        headers={"Content-Type": "application/x-protobuf", "Authorization": f"Bearer {TOKEN}"},
    )
    trusted = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=to.ca))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), trusted)
    with opener.open(request, timeout=30) as answer:
        assert answer.status == 200


def knock(port: int, ca: str) -> None:
    """Come to a TLS port without a certificate of one's own; return when it has hung up. Raises ssl.SSLError."""
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        # In TLS 1.3 a refusal comes with the first read.
        while secured.recv(1024):
            pass


def made(name: str, *, trace: bytes, is_error: bool = False, **attributes: str | int) -> Span:
    """Return a hand-made span of now."""
    now = time.time_ns()
    span = Span(
        trace_id=trace,
        span_id=secrets.token_bytes(8),
        name=name,
        start_time_unix_nano=now,
        end_time_unix_nano=now,
    )
    for key, one in attributes.items():
        told = AnyValue(int_value=one) if isinstance(one, int) else AnyValue(string_value=one)
        span.attributes.append(KeyValue(key=key.replace("__", "."), value=told))
    if is_error:
        span.status.code = Status.STATUS_CODE_ERROR
    return span


def traces(spans: list[Span]) -> bytes:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.extend(spans)
    return request.SerializeToString()


def test_failed_tasks_arrive_with_their_requests_and_the_rest_is_sampled(
    collector_program: Path,
    certificates: Certificates,
    log: Path,
    sent: tuple[dict[SpanKey, Span], set[object]],
    tmp_path: Path,
) -> None:
    """Through two tiers come every task with its request and every failure, unchanged; a tenth of the rest; all log records."""
    spans, records = sent
    kept = {key for key, span in spans.items() if must_be_kept(span)}
    failed = {key for key, span in spans.items() if span.status.code == Status.STATUS_CODE_ERROR}
    requests = {(span.trace_id, span.parent_span_id) for key in failed if (span := spans[key]).parent_span_id}
    assert len(failed) > 40 and requests <= kept  # noqa: PT018  # the premise of it all
    with fleet(collector_program, tmp_path, certificates) as tiers:
        replay(log, tiers.gateway.environ())
        until(lambda: kept <= tiers.spans().keys(), SECONDS, lambda: len(kept - tiers.spans().keys()))
        until(lambda: records <= tiers.loki.logs().keys(), SECONDS)
        time.sleep(QUIET_SECONDS)
        arrived = tiers.spans()
        assert set(tiers.loki.logs()) == records
        assert all(arrived[key] == spans[key] for key in arrived), "a clean span was changed"
        assert failed | requests <= arrived.keys()
        # Within four standard deviations of the binomial distribution.
        rest = len(spans) - len(kept)
        share = len(arrived.keys() - kept)
        expected, deviation = rest * PERCENT / 100, (rest * PERCENT / 100 * (1 - PERCENT / 100)) ** 0.5
        assert abs(share - expected) < 4 * deviation, f"{share} of {rest}"
        # By trace id: both samplers had work, and no trace was at both.
        first, second = ({trace for trace, _ in backend.spans()} for backend in tiers.backends)
        assert len(first) > 200 and len(second) > 200 and not first & second  # noqa: PT018  # one claim
        assert tiers.accepted() == len(spans)


def test_the_sizes_that_the_sizing_begins_with(tmp_path: Path) -> None:
    """A span and a log record are about as large, and a host has about as many series, as deploy/fleet/README.md says."""
    known = inputs()
    log = tmp_path / "user-requests.data"
    write(log, requests=500, per_second=0.1)
    with Sink() as sink:
        replay(log, sink.environ())
        for path, items, name in (
            ("/v1/traces", sink.spans(), "span_bytes"),
            ("/v1/logs", sink.logs(), "record_bytes"),
        ):
            size = sum(len(one.body) for one in sink.requests if one.path == path) / len(items)
            assert 0.7 < size / known[name] < 1.4, f"{name}: {size}"
    with running(
        "run", "--log", log, "--state", tmp_path / "state", "--listen", "127.0.0.1:0", *SAME,
        said=tmp_path / "said", env=environ(),
    ) as daemon:  # fmt: skip
        until(lambda: sample(daemon, "wok_requests_total", "") == 500, SECONDS)
        page = daemon.get("/metrics")[1]
        series = len(re.findall(r"^\w+[ {]", page, re.MULTILINE))
        assert 0.3 < series / known["series"] < 1.4, series


def test_a_task_that_fails_hours_after_its_request_was_dropped_is_kept(
    collector_program: Path, certificates: Certificates, tmp_path: Path
) -> None:
    """A late failed span is judged for itself, although the sampler has dropped the trace before; a late harmless one is not kept."""
    with fleet(collector_program, tmp_path, certificates) as tiers:
        early = [
            made("POST kimchi x", trace=secrets.token_bytes(16), http__response__status_code=200)
            for _ in range(60)
        ]
        post(tiers.gateway, "/v1/traces", traces(early))
        until(lambda: tiers.accepted() == len(early), SECONDS)
        time.sleep(QUIET_SECONDS)
        dropped = {span.trace_id for span in early} - {trace for trace, _ in tiers.spans()}
        assert len(dropped) > 30
        late = [made("task x", trace=trace, is_error=True, wok__task__outcome="failure") for trace in dropped]
        harmless = [made("other", trace=trace) for trace in dropped]
        post(tiers.gateway, "/v1/traces", traces(harmless))
        time.sleep(QUIET_SECONDS)
        post(tiers.gateway, "/v1/traces", traces(late))
        expected = {(span.trace_id, span.span_id) for span in late}
        until(lambda: expected <= tiers.spans().keys(), SECONDS, tiers.spans)
        assert not {(span.trace_id, span.span_id) for span in harmless} & tiers.spans().keys()


def test_nothing_is_lost_while_backends_are_away_and_collectors_are_killed(
    collector_program: Path,
    certificates: Certificates,
    log: Path,
    sent: tuple[dict[SpanKey, Span], set[object]],
    tmp_path: Path,
) -> None:
    """What the gateway acknowledged outlives SIGKILL of gateway and sampler, with samplers, Loki and Tempo away in turn."""
    spans, records = sent
    kept = {key for key, span in spans.items() if must_be_kept(span)}
    with Sink("grpc") as backend, Sink() as loki:
        tempo_port, loki_port, sampler_port = backend.port, loki.port, free_port()

    def entrance() -> AbstractContextManager[Gateway]:
        loki_endpoint = f"http://127.0.0.1:{loki_port}"
        return gateway(
            collector_program, tmp_path / "g", certificates, samplers=[sampler_port], loki=loki_endpoint
        )

    def tier() -> AbstractContextManager[Sampler]:
        return sampler(collector_program, tmp_path / "s", certificates, to=tempo_port, port=sampler_port)

    # Nobody is behind the gateway.
    with entrance() as first:
        replay(log, first.environ(protocol="grpc"))
        first.server.process.kill()
    # The sampler is there, Tempo and Loki are not: what is kept moves into the sampler's queue.
    with tier() as away:
        with entrance() as second:
            until(
                lambda: measured(away.metrics_port, "otelcol_receiver_accepted_spans") >= len(spans),
                SECONDS,
            )
            time.sleep(QUIET_SECONDS)
            second.server.process.kill()
        assert measured(away.metrics_port, "otelcol_exporter_sent_spans") == 0
        away.server.process.kill()
    # All are there.
    with Sink("grpc", port=tempo_port) as backend, Sink(port=loki_port) as loki, tier(), entrance():
        until(lambda: kept <= backend.spans().keys(), SECONDS, lambda: len(kept - backend.spans().keys()))
        until(lambda: records <= loki.logs().keys(), SECONDS, lambda: len(records - loki.logs().keys()))
        assert backend.counts()["conflicts"] == 0
        assert loki.counts()["conflicts"] == 0


def test_a_full_sampler_holds_the_gateways(
    collector_program: Path,
    certificates: Certificates,
    log: Path,
    sent: tuple[dict[SpanKey, Span], set[object]],
    tmp_path: Path,
) -> None:
    """A sampler whose queue is full while Tempo is away drops nothing: it takes no more, and the gateway keeps the rest."""
    kept = {key for key, span in sent[0].items() if must_be_kept(span)}
    with Sink("grpc") as backend:
        tempo_port = backend.port
    with (
        Sink() as loki,
        sampler(
            collector_program, tmp_path / "s", certificates, to=tempo_port, queue_bytes=FULL_BYTES
        ) as tier,
        gateway(
            collector_program, tmp_path / "g", certificates, samplers=[tier.port], loki=loki.endpoint
        ) as entrance,
    ):
        replay(log, entrance.environ())
        until(lambda: measured(tier.metrics_port, "otelcol_exporter_queue_size") > FULL_BYTES * 0.9, SECONDS)
        time.sleep(QUIET_SECONDS)
        assert measured(tier.metrics_port, "otelcol_exporter_queue_size") <= FULL_BYTES
        with Sink("grpc", port=tempo_port) as backend:
            until(lambda: kept <= backend.spans().keys(), SECONDS, lambda: len(kept - backend.spans().keys()))


def test_a_gateway_without_memory_refuses_and_the_exporter_waits(
    collector_program: Path,
    certificates: Certificates,
    log: Path,
    sent: tuple[dict[SpanKey, Span], set[object]],
    tmp_path: Path,
) -> None:
    """What the memory limiter refuses stays in the exporter's journal, counted as an outage and not as a loss, until a gateway has room."""
    spans, records = sent
    kept = {key for key, span in spans.items() if must_be_kept(span)}
    state = ("run", "--log", log, "--state", tmp_path / "state", "--listen", "127.0.0.1:0", *SAME)
    with (
        Sink("grpc") as backend,
        Sink() as loki,
        sampler(collector_program, tmp_path / "s", certificates, to=backend.port) as tier,
    ):
        entrance = partial(
            gateway, collector_program, tmp_path / "g", certificates, samplers=[tier.port], loki=loki.endpoint
        )
        # A collector's own heap is larger than this.
        with entrance(memory_mib=2) as small:
            until(lambda: "Memory usage is above" in small.server.said, SECONDS)
            with running(*state, said=tmp_path / "said", env=environ(**small.environ())) as daemon:
                failures = partial(
                    sample, daemon, "wok_exporter_delivery_failures_total", 'reason="http_503"'
                )
                waiting = partial(sample, daemon, "wok_exporter_journal_records", 'signal="traces"')
                until(lambda: failures() >= 4 and waiting() == len(spans), SECONDS, waiting)
                assert measured(small.metrics_port, "otelcol_receiver_refused_spans") > 0
                assert daemon.stop() == 0
        assert not backend.spans()
        with (
            entrance() as roomy,
            running(*state, said=tmp_path / "said2", env=environ(**roomy.environ())) as daemon,
        ):
            until(lambda: kept <= backend.spans().keys() and records <= loki.logs().keys(), SECONDS)
            for lost in ("wok_exporter_lost_records_total", "wok_exporter_rejected_by_backend_total"):
                assert sample(daemon, lost, "") == 0
            assert daemon.stop() == 0


def test_who_has_no_token_or_no_certificate_stays_out(
    collector_program: Path, certificates: Certificates, log: Path, tmp_path: Path
) -> None:
    """A host with a wrong token is told so, over both protocols, and keeps its journal; a sampler takes from gateways only."""
    with fleet(collector_program, tmp_path, certificates) as tiers:
        protocols: dict[Literal["http/protobuf", "grpc"], str] = {
            "http/protobuf": "http_401",
            "grpc": "grpc_unauthenticated",
        }
        for protocol, reason in protocols.items():
            state = tmp_path / reason
            variables = tiers.gateway.environ(protocol=protocol, token="wrong")
            with running(
                "run", "--log", log, "--state", state, "--listen", "127.0.0.1:0", *SAME,
                said=tmp_path / f"{reason}.said", env=environ(**variables),
            ) as daemon:  # fmt: skip
                until(
                    lambda daemon=daemon, reason=reason: (
                        sample(  # type: ignore[misc]
                            daemon, "wok_exporter_delivery_failures_total", f'reason="{reason}"'
                        )
                        >= 1
                    ),
                    SECONDS,
                )
                assert sample(daemon, "wok_exporter_journal_records", 'signal="traces"') > 0
                assert daemon.stop() == 0
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            knock(tiers.tier[0].port, certificates.ca)
        assert not tiers.spans()


def test_a_planted_secret_is_masked(
    collector_program: Path, certificates: Certificates, tmp_path: Path
) -> None:
    """A secret in a key, a value, a status, an event, a resource or a body does not pass, in any of many forms; what is clean passes unchanged."""
    trace = secrets.token_bytes(16)
    clean = made(
        "task vms.clone", trace=trace, wok__task__target_uri="/plugins/kimchi/vms/token", user__name="ada"
    )
    clean.status.message = "legacy could not be cloned: no space is left in the pool default; password=[redacted] http://[redacted]@h/"
    bad = made("task vms.clone", trace=trace, is_error=True, db__password=CANARY, x__api_key=CANARY)
    bad.status.message = f"iscsiadm failed: {{u'passwd': u'{CANARY}'}}"
    for i, form in enumerate(FORMS):
        bad.attributes.append(KeyValue(key=f"form.{i}", value=AnyValue(string_value=form.format(CANARY))))
    bad.events.add(name="e").attributes.append(
        KeyValue(key="exception.message", value=AnyValue(string_value=f"secret: {CANARY}"))
    )
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.append(KeyValue(key="deploy.token", value=AnyValue(string_value=CANARY)))
    resource.scope_spans.add().spans.extend([clean, bad])
    logs = ExportLogsServiceRequest()
    lines = logs.resource_logs.add().scope_logs.add()
    for form in FORMS:
        lines.log_records.add(
            trace_id=trace, span_id=bad.span_id, body=AnyValue(string_value=form.format(CANARY))
        )
    lines.log_records.add(
        trace_id=trace, span_id=clean.span_id, body=AnyValue(string_value="ada asks for a token")
    )
    with fleet(collector_program, tmp_path, certificates) as tiers:
        post(tiers.gateway, "/v1/traces", request.SerializeToString())
        post(tiers.gateway, "/v1/logs", logs.SerializeToString())
        until(lambda: len(tiers.spans()) == 2 and tiers.loki.requests != [], SECONDS)
        bodies = [one.body for sink in (*tiers.backends, tiers.loki) for one in sink.requests]
        assert not any(CANARY.encode() in body for body in bodies), tiers.spans()
        assert tiers.spans()[trace, clean.span_id] == clean
        masked = tiers.spans()[trace, bad.span_id]
        assert masked.status.message.startswith("iscsiadm failed: {u'****")
        assert value(masked, "redaction.masked.count").int_value >= len(FORMS)
        assert "gateway.status.message" not in {one.key for one in masked.attributes}
        assert any(b"ada asks for a token" in body for body in bodies)
