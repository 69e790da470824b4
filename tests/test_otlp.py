"""The senders and their receipts, against a real receiver on a real socket, over HTTP and over gRPC."""

from __future__ import annotations

import base64
import itertools
import os
import socket
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from exporter.deliver import otlp_env
from exporter.deliver import responses as answers
from exporter.deliver.responses import Answer
from exporter.deliver.sender import make_sender
from tests.sink import Certificates, Reply, Sink, make_certificates

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from exporter.records import Signal

ROOT = Path(__file__).parents[1]
TIMEOUT = {"OTEL_EXPORTER_OTLP_TIMEOUT": "0.4"}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_") or name.lower().endswith("_proxy") or name.endswith("_CA_BUNDLE"):
            monkeypatch.delenv(name)


@pytest.fixture(name="certificates", scope="module")
def _certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(name="http")
def _http() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture(name="grpc")
def _grpc() -> Iterator[Sink]:
    with Sink("grpc") as sink:
        yield sink


def request(signal: Signal = "traces", items: int = 1) -> bytes:
    """An encoded request with some items."""
    if signal == "traces":
        traces = ExportTraceServiceRequest()
        spans = traces.resource_spans.add().scope_spans.add().spans
        for number in range(1, items + 1):
            spans.add(trace_id=number.to_bytes(16), span_id=number.to_bytes(8), name="task vms.clone")
        return traces.SerializeToString()
    logs = ExportLogsServiceRequest()
    records = logs.resource_logs.add().scope_logs.add().log_records
    for number in range(1, items + 1):
        records.add(trace_id=number.to_bytes(16), event_name="wok.request")
    return logs.SerializeToString()


def send(environ: Mapping[str, str], signal: Signal = "traces", body: bytes = b"") -> Answer:
    """Send one request through a fresh sender."""
    sender = make_sender(signal, environ)
    try:
        return sender.send(body or request(signal))
    finally:
        sender.close()


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_items_arrive_as_they_were_encoded(protocol: Any, signal: Signal) -> None:
    """Both signals reach a receiver over both protocols, byte for byte, and count as taken."""
    body = request(signal, 3)
    with Sink(protocol) as sink:
        answer = send(sink.environ(), signal, body)
        found = [(r.path, r.body) for r in sink.requests]

    assert (Answer("accepted"), [(f"/v1/{signal}", body)]) == (answer, found)
    assert len(sink.spans() if signal == "traces" else sink.logs()) == 3


@pytest.mark.parametrize(
    ("protocol", "compression"),
    [*itertools.product(["http", "grpc"], ["gzip", "none", ""]), ("http", "deflate")],
)
def test_compression_is_the_environments(protocol: Any, compression: str) -> None:
    """A receiver sees the configured compression, and the same items after it."""
    body = request(items=50)
    with Sink(protocol) as sink:
        answer = send(sink.environ(OTEL_EXPORTER_OTLP_COMPRESSION=compression), body=body)
        received = sink.requests[0]

    assert (Answer("accepted"), body) == (answer, received.body)
    if protocol == "http":
        assert ("" if compression == "none" else compression) == received.headers.get("content-encoding", "")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_headers_are_the_environments(protocol: Any) -> None:
    """General headers are sent, percent-decoded, and those of the signal take their place."""
    general = {"OTEL_EXPORTER_OTLP_HEADERS": "x-scope-orgid=lab,authorization=Basic%20YTpi"}
    with Sink(protocol) as sink:
        send(sink.environ(**general))
        send(sink.environ(**general, OTEL_EXPORTER_OTLP_TRACES_HEADERS="x-scope-orgid=own"))
        seen = [(r.headers.get("x-scope-orgid"), r.headers.get("authorization")) for r in sink.requests]

    assert seen == [("lab", "Basic YTpi"), ("own", None)]


def test_each_signal_has_its_own_endpoint(http: Sink) -> None:
    """A general endpoint is a base whose path is kept; a signal's own is taken as it is."""
    environ = http.environ(
        OTEL_EXPORTER_OTLP_ENDPOINT=f"{http.endpoint}/base/",
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{http.endpoint}/otlp/v1/logs",
    )
    http.script([Reply(is_kept=False), Reply(is_kept=False)])
    send(environ, "traces")
    send(environ, "logs")

    assert [r.path for r in http.requests] == ["/base/v1/traces", "/otlp/v1/logs"]


def test_connections_are_kept(http: Sink) -> None:
    """Answers are read to their end, so that requests share one connection, whatever the answer was."""
    sender = make_sender("traces", http.environ())
    http.script([Reply(), Reply(status=503, body=b"busy" * 100), Reply(rejected=1, message="no")])
    for _ in range(4):
        sender.send(request())
    sender.close()

    assert (http.request_count, http.connections) == (4, 1)


HTML = {"Content-Type": "text/html; charset=utf-8"}
JSON = {"Content-Type": "application/json"}
PLAIN = {"Content-Type": "text/plain"}
OCTETS = {"Content-Type": "application/octet-stream"}
LOKI_BEHIND = (
    "entry with timestamp 2026-11-24 05:00:00 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp"
    " is: 2026-11-24T05:00:00Z, oldest acceptable timestamp is: 2026-11-24T06:00:00Z',\n"
    "user 'fake', total ignored: 3 out of 10 for stream: {service_name=\"kimchi\"}"
)
LOKI_OLD = (
    "entry for stream '{service_name=\"wok\"}' has timestamp too old: 2020-01-01T00:00:00Z,"
    " oldest acceptable timestamp is: 2026-11-17T06:00:00Z"
)


def rpc_status(message: str) -> bytes:
    """A google.rpc.Status with a message of less than 128 bytes (or of 300 and more, not needed here)."""
    text = message.encode()
    length = bytes((len(text),)) if len(text) < 128 else bytes((len(text) & 0x7F | 0x80, len(text) >> 7))
    return b"\x12" + length + text


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(status=204, body=b""), Answer("accepted")),
        (Reply(status=202, headers=PLAIN, body=b""), Answer("accepted")),
        (Reply(headers=JSON, body=b'{"partialSuccess":{}}'), Answer("accepted")),
        (Reply(headers=JSON, body=b"{}"), Answer("accepted")),
        (Reply(rejected=0, message="check your clock"), Answer("accepted", message="check your clock")),
        (Reply(rejected=2, message="too big"), Answer("partial", "partial", 2, message="too big")),
        (
            Reply(headers=JSON, body=b'{"partialSuccess":{"rejectedSpans":"2","errorMessage":"no"}}'),
            Answer("partial", "partial", 2, message="no"),
        ),
        (
            Reply(headers=HTML, body=b"<html>\x1b[31mLog in"),
            Answer("config", "not_otlp", message="<html> [31mLog in"),
        ),
        (Reply(headers=PLAIN, body=b"OK"), Answer("config", "not_otlp", message="OK")),
        (Reply(body=b"<html>"), Answer("config", "not_otlp", message="<html>")),
        (
            Reply(headers=JSON, body=b'{"error":"login"}'),
            Answer("config", "not_otlp", message='{"error":"login"}'),
        ),
        (Reply(headers=JSON, body=b"[" * 5000), Answer("config", "not_otlp", message="[" * 300)),
        (
            Reply(status=302, headers={"Location": "https://u:secret@sso.example/login?next=secret"}),
            Answer("config", "redirect", message="to https://sso.example/login"),
        ),
        (Reply(status=307, headers={"Location": "/v2"}), Answer("config", "redirect", message="to /v2")),
        (
            Reply(status=400, headers=PLAIN, body=b"bad span"),
            Answer("rejected", "http_400", message="bad span"),
        ),
        (Reply(status=400, body=rpc_status("bad span")), Answer("rejected", "http_400", message="bad span")),
        (Reply(status=413, headers=PLAIN, body=b"big"), Answer("rejected", "http_413", message="big")),
        (Reply(status=500, headers=PLAIN, body=b""), Answer("rejected", "http_500")),
        (Reply(status=401, headers=PLAIN, body=b""), Answer("config", "http_401")),
        (
            Reply(status=403, headers=JSON, body=b'{"message":"no"}'),
            Answer("config", "http_403", message="no"),
        ),
        (Reply(status=404, headers=PLAIN, body=b""), Answer("config", "http_404")),
        (Reply(status=410, headers=PLAIN, body=b""), Answer("config", "http_other")),
        (Reply(status=429, headers={"Retry-After": "7"}, body=b""), Answer("retry", "http_429", 0, 7.0)),
        (Reply(status=502, headers=PLAIN, body=b""), Answer("retry", "http_502")),
        (Reply(status=503, headers={"Retry-After": "-3"}, body=b""), Answer("retry", "http_503", 0, 0.0)),
        (Reply(status=503, headers={"Retry-After": "nan"}, body=b""), Answer("retry", "http_503")),
        (Reply(status=503, headers={"Retry-After": "soon"}, body=b""), Answer("retry", "http_503")),
        (Reply(status=504, headers=PLAIN, body=b""), Answer("retry", "http_504")),
        (Reply(status=522, headers=PLAIN, body=b""), Answer("retry", "http_other")),
    ],
)
def test_http_answers(http: Sink, reply: Reply, expected: Answer) -> None:
    """Every kind of HTTP response has its one meaning."""
    http.script([reply])

    assert expected == send(http.environ())


@pytest.mark.parametrize(
    ("headers", "body", "reason", "rejected"),
    [
        (OCTETS, rpc_status(LOKI_OLD), "loki_too_old", 1),
        (PLAIN, LOKI_BEHIND.encode(), "loki_too_old", 3),
        (PLAIN, LOKI_OLD.replace("too old", "too new").encode(), "loki_too_new", 1),
    ],
)
def test_loki_refuses_times_after_taking_the_rest(
    http: Sink, headers: dict[str, str], body: bytes, reason: str, rejected: int
) -> None:
    """Loki's 400 for times is a partial success with the number that it names; for spans it is none."""
    http.script([Reply(status=400, headers=headers, body=body)] * 2)
    logs = send(http.environ(), "logs")
    traces = send(http.environ(), "traces")

    assert ("partial", reason, rejected) == logs[:3]
    assert traces[:2] == ("rejected", "http_400")


LOKI_LONG = (
    "3 errors like: "
    + LOKI_OLD
    + "; 2 errors like: Max entry size '262144' bytes exceeded for stream '{a=\"b\"}' while adding an entry"
)


@pytest.mark.parametrize(
    ("words", "reason", "rejected"),
    [
        (f"1 errors like: {LOKI_OLD}", "loki_too_old", 1),
        (f"7 errors like: {LOKI_OLD}", "loki_too_old", 7),
        (f"1 error like: {LOKI_OLD}", "loki_too_old", 1),
        (LOKI_LONG, "loki_too_old", 5),
        (f"2 errors like: {LOKI_OLD.replace('too old', 'too new')}", "loki_too_new", 2),
        ("4 errors like: Max entry size '262144' bytes exceeded", "loki_invalid", 4),
        ("user 'a', total ignored: 3 out of 5 for stream: {a=\"b\"}", "loki_invalid", 3),
        (f"2 errors like: {LOKI_BEHIND}", "loki_too_old", 6),
        (f"{LOKI_BEHIND}; {LOKI_BEHIND}", "loki_too_old", 6),
        (f"{LOKI_OLD}\n{LOKI_OLD}", "loki_too_old", 2),
    ],
)
def test_lokis_groups_are_counted_as_it_says(http: Sink, words: str, reason: str, rejected: int) -> None:
    """Loki's distributor groups equal errors and its ingester sums them: the number of entries is theirs."""
    http.script([Reply(status=400, headers=PLAIN, body=words.encode())])

    assert send(http.environ(), "logs")[:3] == ("partial", reason, rejected)


@pytest.mark.parametrize("media", [PLAIN, OCTETS])
def test_a_long_rejection_of_lokis_is_read_to_its_end(http: Sink, media: dict[str, str]) -> None:
    """Of an answer of a megabyte every stream counts, and people see the beginning."""
    streams = [f"{n} errors like: {LOKI_OLD.replace('wok', 'x' * 900 + str(n))}" for n in range(1, 1001)]
    text = "; ".join(streams)
    body = text.encode() if media is PLAIN else Status(code=400, message=text).SerializeToString()
    http.script([Reply(status=400, headers=media, body=body)])
    answer = send(http.environ(), "logs")

    assert answer[:3] == ("partial", "loki_too_old", 500_500)
    assert len(answer.message) <= answers.MESSAGE_CHARACTERS_MAX


def test_retry_after_may_be_a_date(http: Sink) -> None:
    """A Retry-After with a date counts from now; one in the past is now."""
    http.script([Reply(status=503, headers={"Retry-After": formatdate(time.time() + 90, usegmt=True)})])
    http.script([Reply(status=503, headers={"Retry-After": formatdate(time.time() - 90, usegmt=True)})])
    first, second = send(http.environ()), send(http.environ())

    assert 80 < (first.retry_after_seconds or 0) <= 90
    assert second.retry_after_seconds == 0


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(rejected=2, message="too big"), Answer("partial", "partial", 2, message="too big")),
        (Reply(body=b"<html>"), Answer("config", "not_otlp", message="<html>")),
        (Reply(code="UNAVAILABLE", message="later"), Answer("retry", "grpc_unavailable", message="later")),
        (
            Reply(code="UNAVAILABLE", retry_after_seconds=7.5),
            Answer("retry", "grpc_unavailable", retry_after_seconds=7.5),
        ),
        (
            Reply(code="RESOURCE_EXHAUSTED", retry_after_seconds=7, is_standard_retry_info=False),
            Answer("retry", "grpc_resource_exhausted", retry_after_seconds=7.0),
        ),
        (Reply(code="ABORTED"), Answer("retry", "grpc_aborted")),
        (
            Reply(code="RESOURCE_EXHAUSTED", message="received message larger than max (9 vs. 4)"),
            Answer(
                "rejected", "grpc_message_too_large", message="received message larger than max (9 vs. 4)"
            ),
        ),
        (
            Reply(code="INVALID_ARGUMENT", message="bad"),
            Answer("rejected", "grpc_invalid_argument", message="bad"),
        ),
        (Reply(code="INTERNAL"), Answer("rejected", "grpc_internal")),
        (Reply(code="UNAUTHENTICATED"), Answer("config", "grpc_unauthenticated")),
        (Reply(code="PERMISSION_DENIED"), Answer("config", "grpc_permission_denied")),
    ],
)
def test_grpc_answers(grpc: Sink, reply: Reply, expected: Answer) -> None:
    """Every kind of gRPC status has its one meaning, and RetryInfo is found in both of its places."""
    grpc.script([reply])

    assert expected == send(grpc.environ())


def test_a_real_grpc_limit_is_a_refusal_of_the_size(grpc: Sink) -> None:
    """A receiver's own limit of 4 MiB for a gRPC message asks for a smaller request, not for patience."""
    answer = send(grpc.environ(), body=request(items=110_000))

    assert answer[:2] == ("rejected", "grpc_message_too_large")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("hang", "timeout"), ("drip", "timeout"), ("half", "connection"), ("close", "connection")],
)
def test_http_answers_that_never_come_whole(http: Sink, fault: Any, reason: str) -> None:
    """Silence, a byte now and then, and a connection that ends early are outages, within the timeout."""
    http.script([Reply(fault=fault, is_kept=True)])
    sender = make_sender("traces", http.environ(**TIMEOUT))
    first = sender.send(request())
    second = sender.send(request())
    sender.close()

    assert (("retry", reason), Answer("accepted")) == (first[:2], second)
    assert [len(arrivals) for arrivals in http.spans().values()] == [2]


def test_grpc_answers_that_never_come(grpc: Sink) -> None:
    """A silent gRPC receiver is an outage, within the timeout."""
    grpc.script([Reply(fault="hang")])

    assert send(grpc.environ(**TIMEOUT))[:2] == ("retry", "timeout")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize(
    ("host", "reason"), [("127.0.0.1", "refused_connection"), ("backend.invalid", "dns")]
)
def test_a_backend_that_is_not_there(protocol: str, host: str, reason: str) -> None:
    """A closed port and an unknown name are outages, told apart."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{host}:{closed_port()}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_TIMEOUT": "5",
    }

    assert ("retry", reason) == send(environ)[:2]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_backend_that_comes_back(protocol: Any) -> None:
    """One sender sees the outage end, without waiting for a back-off of its channel."""
    port = closed_port()
    with Sink(protocol, port=port) as sink:
        environ = sink.environ()
    sender = make_sender("traces", environ)
    before = sender.send(request())
    with Sink(protocol, port=port):
        after = sender.send(request())
    sender.close()

    assert (("retry", "refused_connection"), Answer("accepted")) == (before[:2], after)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_private_ca(protocol: Any, certificates: Certificates) -> None:
    """A private CA of the environment is trusted, and without it the same server is not."""
    with Sink(protocol, certificates=certificates) as sink:
        environ = sink.environ(OTEL_EXPORTER_OTLP_TIMEOUT="5")
        trusted = send(environ)
        del environ["OTEL_EXPORTER_OTLP_CERTIFICATE"]
        untrusted = send(environ)

    assert (Answer("accepted"), ("retry", "tls")) == (trusted, untrusted[:2])


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_client_certificate(protocol: Any, certificates: Certificates) -> None:
    """A client certificate of the general variables works beside a CA of the signal's own."""
    with Sink(protocol, certificates=certificates, needs_client=True) as sink:
        environ = sink.environ(
            OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE=certificates.ca,
            OTEL_EXPORTER_OTLP_TIMEOUT="5",
        )
        without = send(environ)
        environ["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"] = certificates.client
        environ["OTEL_EXPORTER_OTLP_CLIENT_KEY"] = certificates.client_key
        answer = send(environ)

    assert (Answer("accepted"), "retry") == (answer, without.kind)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_expired_certificate(protocol: Any, tmp_path: Path) -> None:
    """An expired certificate is an outage: it is renewed some day, and nothing is lost until then."""
    with Sink(protocol, certificates=make_certificates(tmp_path, is_expired=True)) as sink:
        answer = send(sink.environ(OTEL_EXPORTER_OTLP_TIMEOUT="5"))

    assert answer[:2] == ("retry", "tls")


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_private_ca_wins_over_those_of_other_programs(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A variable of another program with another CA does not take the place of the configured one."""
    monkeypatch.setenv(name, make_certificates(tmp_path).ca)
    with Sink(certificates=certificates) as sink:
        answer = send(sink.environ())

    assert Answer("accepted") == answer


def test_proxies_of_the_environment_are_used(http: Sink) -> None:
    """A proxy of the environment is asked for the whole URL."""
    http.script([Reply(is_kept=False)])
    send({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://backend.invalid:4318", "http_proxy": http.endpoint})

    assert [r.path for r in http.requests] == ["http://backend.invalid:4318/v1/traces"]


def test_netrc_does_not_replace_configured_credentials(
    http: Sink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials of the headers, and of the URL, win over those that ~/.netrc has for the host."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login wrong password wrong\n")
    monkeypatch.setenv("NETRC", str(netrc))
    send(http.environ(OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer right"))

    assert [r.headers["authorization"] for r in http.requests] == ["Bearer right"]


def test_credentials_of_the_url_are_sent_but_not_shown(http: Sink) -> None:
    """A user and a password in the endpoint become basic authentication, and appear nowhere else."""
    environ = http.environ(OTEL_EXPORTER_OTLP_ENDPOINT=http.endpoint.replace("//", "//me:secret@"))
    sender = make_sender("traces", environ)
    sender.send(request())
    sender.close()

    shown = f"{http.endpoint}/v1/traces"
    assert (shown, shown) == (sender.endpoint, otlp_env.configured(environ)["traces"])
    assert "Basic " + base64.b64encode(b"me:secret").decode() == http.requests[0].headers["authorization"]


E = "OTEL_EXPORTER_OTLP_"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {}),
        ({f"{E}ENDPOINT": " "}, {}),
        (
            {f"{E}ENDPOINT": "http://a:4318"},
            {"traces": "http://a:4318/v1/traces", "logs": "http://a:4318/v1/logs"},
        ),
        ({f"{E}LOGS_ENDPOINT": "http://a/otlp?key=1"}, {"logs": "http://a/otlp"}),
        ({f"{E}ENDPOINT": "http://a:1/", "OTEL_TRACES_EXPORTER": "none"}, {"logs": "http://a:1/v1/logs"}),
        ({f"{E}ENDPOINT": "http://a:1/", "OTEL_LOGS_EXPORTER": "NONE"}, {"traces": "http://a:1/v1/traces"}),
        (
            {f"{E}ENDPOINT": "a:4317", f"{E}PROTOCOL": "grpc", "OTEL_LOGS_EXPORTER": "otlp"},
            {"traces": "a:4317", "logs": "a:4317"},
        ),
    ],
)
def test_configured_signals(environ: dict[str, str], expected: dict[str, str]) -> None:
    """A signal is on when an endpoint applies to it and it is not switched off."""
    assert expected == otlp_env.configured(environ)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({f"{E}ENDPOINT": ""}, f"{E}ENDPOINT"),
        ({f"{E}PROTOCOL": "http/json"}, f"{E}PROTOCOL must be `http/protobuf` or `grpc`, got: http/json"),
        ({f"{E}TRACES_PROTOCOL": "udp"}, f"{E}TRACES_PROTOCOL"),
        ({f"{E}ENDPOINT": "localhost:4318"}, f"{E}ENDPOINT must be http://host:port"),
        ({f"{E}ENDPOINT": "http://:x"}, f"{E}ENDPOINT must be http://host:port"),
        ({f"{E}ENDPOINT": "ftp://a:secret@b"}, "got: ftp://b"),
        ({f"{E}ENDPOINT": "ftp://b", f"{E}PROTOCOL": "grpc"}, f"{E}ENDPOINT must be http://host:port"),
        (
            {f"{E}COMPRESSION": "zstd"},
            f"{E}COMPRESSION with http/protobuf must be one of gzip, deflate, none",
        ),
        (
            {f"{E}COMPRESSION": "deflate", f"{E}PROTOCOL": "grpc"},
            f"{E}COMPRESSION with grpc must be one of gzip, none",
        ),
        ({f"{E}TIMEOUT": "10000"}, f"{E}TIMEOUT is in seconds"),
        ({f"{E}TIMEOUT": "nan"}, f"{E}TIMEOUT is in seconds"),
        ({f"{E}TRACES_TIMEOUT": "10s"}, f"{E}TRACES_TIMEOUT is in seconds"),
        ({f"{E}HEADERS": "secret"}, "header 1 of the list is not name=value"),
        ({f"{E}HEADERS": "a=b%0Ac"}, "control characters"),
        (
            {f"{E}CERTIFICATE": "/nowhere/ca.pem"},
            f"{E}CERTIFICATE: cannot read /nowhere/ca.pem: No such file",
        ),
        ({f"{E}CERTIFICATE": __file__}, f"{E}CERTIFICATE must be PEM"),
        ({f"{E}CLIENT_KEY": __file__}, f"{E}CLIENT_KEY needs {E}CLIENT_CERTIFICATE"),
        (
            {f"{E}CLIENT_CERTIFICATE": __file__, f"{E}PROTOCOL": "grpc"},
            f"{E}CLIENT_CERTIFICATE needs {E}CLIENT_KEY too",
        ),
        (
            {"OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": "no_such"},
            "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER is not supported",
        ),
    ],
)
def test_an_environment_that_cannot_work(environ: dict[str, str], words: str) -> None:
    """Mistakes are refused at the start, by the name of the variable, without secrets."""
    with pytest.raises(otlp_env.OtlpConfigError) as caught:
        make_sender("traces", {f"{E}ENDPOINT": "http://localhost:4318"} | environ)

    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", ["true", "TRUE", " True "])
def test_the_switch_of_opentelemetry(value: str) -> None:
    """OTEL_SDK_DISABLED=true, in any case, leaves no signal on; any other value means nothing."""
    environ = {f"{E}ENDPOINT": "http://a:4318"}

    assert otlp_env.configured(environ | {"OTEL_SDK_DISABLED": value}) == {}
    assert otlp_env.why_unconfigured(environ | {"OTEL_SDK_DISABLED": value}) == "OTEL_SDK_DISABLED is true"
    assert len(otlp_env.configured(environ | {"OTEL_SDK_DISABLED": "1"})) == 2


def test_an_unknown_exporter_is_refused() -> None:
    """OTEL_TRACES_EXPORTER has two values here."""
    with pytest.raises(otlp_env.OtlpConfigError, match="OTEL_TRACES_EXPORTER"):
        otlp_env.configured({"OTEL_TRACES_EXPORTER": "console"})


def test_the_process_environment_is_given_back(http: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Building a sender leaves os.environ as it was, and what is in it does not leak into the sender."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-leaked=1")
    before = dict(os.environ)
    send(http.environ())

    assert before == dict(os.environ)
    assert "x-leaked" not in http.requests[0].headers


def test_grpc_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a host without grpcio the error names the package and the other protocol."""
    monkeypatch.setitem(sys.modules, "grpc", None)

    with pytest.raises(otlp_env.OtlpConfigError, match=r"not installed: grpcio\. .*http/protobuf"):
        make_sender("traces", {f"{E}ENDPOINT": "http://localhost:4317", f"{E}PROTOCOL": "grpc"})


def test_http_does_without_grpc() -> None:
    """Importing costs nothing heavy, and an HTTP sender does not load grpcio."""
    script = (
        "import sys, exporter.deliver.worker, exporter.deliver.sender as sender\n"
        "heavy = {'requests', 'grpc', 'opentelemetry', 'google', 'http.client'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "sender.make_sender('logs', {'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://localhost:4318'}).close()\n"
        "assert 'grpc' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


@settings(max_examples=200)
@given(
    signal=st.sampled_from(["traces", "logs"]),
    status=st.integers(200, 599),
    media=st.sampled_from(
        ["", "application/x-protobuf", "application/json", "text/html", "application/octet-stream"]
    ),
    body=st.binary(max_size=200) | st.text(max_size=200).map(str.encode),
)
def test_no_body_is_too_strange(signal: Signal, status: int, media: str, body: bytes) -> None:
    """Whatever a server answers has a meaning, and words that are safe for a terminal."""
    headers = {"Content-Type": media, "Content-Length": str(len(body))}
    answer = answers.http_answer(signal, status, headers, body)

    assert answer.message.isprintable()
    assert len(answer.message) <= answers.MESSAGE_CHARACTERS_MAX
    assert (answer.kind in ("accepted", "partial")) <= (200 <= status < 300)


def test_an_end_among_the_headers_is_no_receipt() -> None:
    """A success without length and body may be the beginning of one, and is not taken for a receipt."""
    assert answers.http_answer("traces", 200, {}, b"") == Answer("retry", "connection")
    assert answers.http_answer("traces", 204, {}, b"") == Answer("accepted")


def test_words_are_bounded_and_printable() -> None:
    """Escapes, line breaks and marks that turn the direction of writing do not get through."""
    assert answers.printable("a\r\nb\x1b[2J\u202ec") == "a b [2J c"
    assert len(answers.printable("x" * 10_000)) == answers.MESSAGE_CHARACTERS_MAX
