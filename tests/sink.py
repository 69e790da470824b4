"""A small, real OTLP receiver for tests and benchmarks, over HTTP and over gRPC, with or without TLS.

It listens on 127.0.0.1, decodes what arrives, and keeps every span and log record by its ids with its bytes,
so that a test can say: nothing is lost, and what came twice came with the same bytes. What it answers can be
scripted, one `Reply` a request, or left to a `judge` of the request; without either it takes everything.

    with Sink() as sink:
        sender = make_sender("traces", sink.environ())
        sink.script([Reply(status=503, headers={"Retry-After": "7"})])

By itself, `python tests/sink.py --port 4318` receives until it is interrupted, then prints its counts; with `--discard` it only counts requests and bytes, which is cheap enough for a benchmark.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import ipaddress
import json
import signal
import socket
import ssl
import struct
import threading
import zlib
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

SpanKey = tuple[bytes, bytes]
LogKey = tuple[bytes, bytes, str, str]

TRACES_PATH = "/v1/traces"
GRPC_SERVICES = {
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
}


class Reply(NamedTuple):
    """What to answer to one request. `body` None is OTLP's own response, with `rejected` and `message`.

    `fault` is a way of not answering: `hang` never answers, `half` resets the connection half way through the
    response, `drip` sends a byte now and then, `close` hangs up before a byte. `is_kept` says whether the
    items count as stored; None means: if it is a success. Over gRPC, `code` and `message` are the status, and
    `retry_after_seconds` is its RetryInfo.
    """

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes | None = None
    rejected: int = 0
    message: str = ""
    fault: Literal["", "hang", "half", "drip", "close"] = ""
    is_kept: bool | None = None
    code: str = "OK"
    retry_after_seconds: float | None = None
    is_standard_retry_info: bool = True


class Received(NamedTuple):
    """One request as it came: `headers` (or metadata) in lower case, `body` decompressed."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class Certificates(NamedTuple):
    """Paths of PEM files of a private CA, a server (localhost, 127.0.0.1) and a client."""

    ca: str
    server: str
    server_key: str
    client: str
    client_key: str


class Sink:
    """The receiver; a context manager. `needs_client` asks for a certificate of the same CA (mTLS)."""

    def __init__(
        self,
        protocol: Literal["http", "grpc"] = "http",
        *,
        certificates: Certificates | None = None,
        needs_client: bool = False,
        port: int = 0,
        discards: bool = False,
    ) -> None:
        self.requests: list[Received] = []
        self.request_count = 0
        self.byte_count = 0
        self.connections = 0
        self.closing = threading.Event()
        self.discards = discards
        self._protocol = protocol
        self._certificates = certificates
        self._needs_client = needs_client
        self.judge: Callable[[Received], Reply | None] = lambda _: None
        self._replies: deque[Reply] = deque()
        self._spans: defaultdict[SpanKey, list[bytes]] = defaultdict(list)
        self._logs: defaultdict[LogKey, list[bytes]] = defaultdict(list)
        self._lock = threading.Lock()
        self._server: Any = None
        self.port = port

    def __enter__(self) -> Self:
        if self._protocol == "grpc":
            self._start_grpc()
        else:
            self._start_http()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        if self._protocol == "grpc":
            self._server.stop(None).wait()
            self._executor.shutdown()
        else:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    @property
    def endpoint(self) -> str:
        return f"{'https' if self._certificates else 'http'}://127.0.0.1:{self.port}"

    def environ(self, **more: str) -> dict[str, str]:
        """Return the OTEL_* variables that lead here, and `more`."""
        protocol = "grpc" if self._protocol == "grpc" else "http/protobuf"
        found = {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        if self._certificates:
            found["OTEL_EXPORTER_OTLP_CERTIFICATE"] = self._certificates.ca
        return found | more

    def script(self, replies: Iterable[Reply]) -> None:
        """Queue answers, one a request; after them, everything is taken again."""
        self._replies.extend(replies)

    def spans(self) -> dict[SpanKey, list[bytes]]:
        """Return all stored spans by (trace id, span id): their bytes, once for every arrival."""
        with self._lock:
            return {key: list(found) for key, found in self._spans.items()}

    def logs(self) -> dict[LogKey, list[bytes]]:
        """Return all stored log records by (trace id, span id, event name, log.record.uid), likewise."""
        with self._lock:
            return {key: list(found) for key, found in self._logs.items()}

    def counts(self) -> dict[str, int]:
        return {
            "requests": self.request_count,
            "bytes": self.byte_count,
            "spans": len(self._spans),
            "logs": len(self._logs),
            "repeats": sum(len(v) - 1 for found in (self._spans, self._logs) for v in found.values()),
            "conflicts": sum(len(set(v)) > 1 for found in (self._spans, self._logs) for v in found.values()),
        }

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Count a request, store its items if its reply says so, and return that reply."""
        with self._lock:
            self.request_count += 1
            self.byte_count += len(body)
            if self.discards:
                return Reply()
            received = Received(path, headers, body)
            self.requests.append(received)
            reply = self._replies.popleft() if self._replies else self.judge(received) or Reply()
            is_success = 200 <= reply.status < 300 and reply.code == "OK" and not reply.fault
            if reply.is_kept if reply.is_kept is not None else is_success:
                self._store(path, body)
            return reply

    def _store(self, path: str, body: bytes) -> None:
        if path == TRACES_PATH:
            traces = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
            for span in (s for r in traces.resource_spans for scope in r.scope_spans for s in scope.spans):
                self._spans[span.trace_id, span.span_id].append(span.SerializeToString())
            return
        logs = logs_service_pb2.ExportLogsServiceRequest.FromString(body)
        for record in (
            one for r in logs.resource_logs for scope in r.scope_logs for one in scope.log_records
        ):
            uid = next((a.value.string_value for a in record.attributes if a.key == "log.record.uid"), "")
            key = (record.trace_id, record.span_id, record.event_name, uid)
            self._logs[key].append(record.SerializeToString())

    def _start_http(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.sink = self
        if self._certificates:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificates.server, self._certificates.server_key)
            if self._needs_client:
                context.load_verify_locations(self._certificates.ca)
                context.verify_mode = ssl.CERT_REQUIRED
            self._server.context = context
        self.port = self._server.server_address[1]
        # A short poll, so that leaving a test does not take half a second.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def _start_grpc(self) -> None:
        import grpc  # noqa: PLC0415  # 30 MB, and not installed everywhere

        self._executor = ThreadPoolExecutor(4)
        self._server = grpc.server(self._executor, options=(("grpc.so_reuseport", 0),))
        self._server.add_generic_rpc_handlers(_grpc_handlers(self))
        address = f"127.0.0.1:{self.port}"
        if self._certificates is None:
            self.port = self._server.add_insecure_port(address)
        else:
            c = self._certificates
            credentials = grpc.ssl_server_credentials(
                [(_read(c.server_key), _read(c.server))],
                _read(c.ca) if self._needs_client else None,
                self._needs_client,
            )
            self.port = self._server.add_secure_port(address, credentials)
        self._server.start()


def response_bytes(signal_name: str, reply: Reply) -> bytes:
    """OTLP's own response to a request of a signal."""
    if not reply.rejected and not reply.message:
        return b""
    if signal_name == "traces":
        traces = trace_service_pb2.ExportTraceServiceResponse()
        traces.partial_success.rejected_spans = reply.rejected
        traces.partial_success.error_message = reply.message
        return traces.SerializeToString()
    logs = logs_service_pb2.ExportLogsServiceResponse()
    logs.partial_success.rejected_log_records = reply.rejected
    logs.partial_success.error_message = reply.message
    return logs.SerializeToString()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    sink: Sink
    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.sink.connections += 1
        if self.context is None:
            super().finish_request(request, client_address)
            return
        # The handshake belongs into the connection's own thread.
        with contextlib.suppress(OSError), self.context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        match self.headers.get("Content-Encoding"):
            case "gzip":
                body = zlib.decompress(body, zlib.MAX_WBITS | 16)
            case "deflate":
                body = zlib.decompress(body)
        sink = self.server.sink
        reply = sink.take(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        if reply.fault in ("hang", "close"):
            if reply.fault == "hang":
                sink.closing.wait()
            self.close_connection = True
            return
        signal_name = "traces" if self.path == TRACES_PATH else "logs"
        content = response_bytes(signal_name, reply) if reply.body is None else reply.body
        headers = {"Content-Type": "application/x-protobuf"} | dict(reply.headers)
        if reply.fault:
            self._misbehave(reply.fault)
            return
        self.send_response(reply.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _misbehave(self, fault: str) -> None:
        self.close_connection = True
        if fault == "half":
            self.wfile.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 99\r\n\r\n12"
            )
            # With a linger of 0 closing is a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        with contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 60_000:
                self.wfile.write(bytes((byte,)))
                if self.server.sink.closing.wait(0.02):
                    return

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _grpc_handlers(sink: Sink) -> list[Any]:
    import grpc  # noqa: PLC0415  # 30 MB, and not installed everywhere

    def answer(signal_name: str, body: bytes, context: Any) -> bytes:
        headers = {k: v for k, v in context.invocation_metadata() if isinstance(v, str)}
        reply = sink.take(f"/v1/{signal_name}", headers, body)
        if reply.fault:
            sink.closing.wait()
        if reply.code != "OK":
            context.set_trailing_metadata(_retry_info(reply))
            context.abort(grpc.StatusCode[reply.code], reply.message)
        return response_bytes(signal_name, reply) if reply.body is None else reply.body

    def handler(signal_name: str, service: str) -> Any:
        # Without serializers bytes come in and bytes go out.
        method = grpc.unary_unary_rpc_method_handler(lambda body, context: answer(signal_name, body, context))
        return grpc.method_handlers_generic_handler(service, {"Export": method})

    return [handler(signal_name, service) for signal_name, service in GRPC_SERVICES.items()]


def _retry_info(reply: Reply) -> tuple[tuple[str, bytes], ...]:
    from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped]  # noqa: PLC0415  # with grpc
        RetryInfo,
    )
    from google.rpc.status_pb2 import (  # type: ignore[import-untyped]  # noqa: PLC0415  # with grpc
        Status,
    )

    if reply.retry_after_seconds is None:
        return ()
    info = RetryInfo()
    info.retry_delay.FromNanoseconds(int(reply.retry_after_seconds * 1e9))
    if not reply.is_standard_retry_info:
        return (("google.rpc.retryinfo-bin", info.SerializeToString()),)
    status = Status()
    status.details.add().Pack(info)
    return (("grpc-status-details-bin", status.SerializeToString()),)


def make_certificates(directory: Path, *, is_expired: bool = False) -> Certificates:
    """Write a private CA with a server's and a client's certificate; valid for a day, or until yesterday."""
    from cryptography import x509  # noqa: PLC0415  # a few tests only
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415  # same
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  # same

    directory.mkdir(parents=True, exist_ok=True)
    end = dt.datetime.now(dt.UTC) + dt.timedelta(days=-1 if is_expired else 1)

    def name(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])

    def issue(common: str, issuer: str, issuer_key: Any, key: Any) -> Any:
        is_ca = common == issuer
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(common))
            .issuer_name(name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(end - dt.timedelta(days=3))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if not is_ca:
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

    def write(stem: str, content: bytes) -> str:
        path = directory / f"{stem}.pem"
        path.write_bytes(content)
        return str(path)

    ca_key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    paths = [write("ca", issue("test ca", "test ca", ca_key, ca_key).public_bytes(pem))]
    for stem in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        paths.append(write(stem, issue(stem, "test ca", ca_key, key).public_bytes(pem)))
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        paths.append(write(f"{stem}-key", private))
    return Certificates(*paths)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123  # a path in a variable of the environment
        return file.read()


def main() -> None:
    """Receive until SIGINT or SIGTERM, then print the counts."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=4318)
    parser.add_argument("--grpc", action="store_true")
    parser.add_argument("--discard", action="store_true", help="count requests and bytes only")
    chosen = parser.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with Sink("grpc" if chosen.grpc else "http", port=chosen.port, discards=chosen.discard) as sink:
        print(f"receiving on {sink.endpoint}", flush=True)
        stopped.wait()
        print(json.dumps(sink.counts()), flush=True)


if __name__ == "__main__":
    main()
