"""One OTLP request with bytes that are encoded already, and the receipt for it.

The official exporters answer only success or failure: they take a redirect and a login page for success,
never read a partial success, and keep the status and Retry-After to themselves. But they own the standard
`OTEL_EXPORTER_OTLP_*` variables, TLS, client certificates, headers and credential providers, and should go
on doing so. Here an exporter is therefore built, so that it reads the environment, and then asked for what
it has built: its `requests` session, or its gRPC channel. The bytes go through that, once, and what came
back becomes an `Answer`. Whether and when to try again is decided in `deliver`.

Three things the exporters get wrong are put right before they see the environment: an empty variable is an
unset one, a general variable completes the signal's own ones under gRPC as well, and gRPC's compression may
be `none`. Whatever they would only warn of, or find out at the first request, is refused at the start.

This is the only file that imports the exporters' packages, and it does so inside functions: grpcio costs
30 MB, and a host without it (there are no wheels for POWER and Z) exports over HTTP.
"""

from __future__ import annotations

import gzip
import os
import socket
import ssl
import threading
import zlib
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import urlsplit

from exporter.deliver.responses import Answer, grpc_answer, http_answer, printable, response, shown, trouble
from exporter.records import SIGNALS, Signal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import grpc
    import requests

RESPONSE_BYTES_MAX = 64 * 1024  # an OTLP response has some dozen bytes, Loki's longest lists a few streams
TIMEOUT_SECONDS_MAX = 600  # more is a value in milliseconds, as other languages read this variable
GRPC_RECONNECT_MILLISECONDS_MAX = 10_000  # gRPC's own 120 s would outlast an outage by two minutes
COMPRESSION_LEVEL = 1  # telemetry repeats itself: level 9 wins little and costs ten times the processor time

Protocols = Literal["http/protobuf", "grpc"]

_OPTIONS = (
    "HEADERS",
    "TIMEOUT",
    "COMPRESSION",
    "CERTIFICATE",
    "CLIENT_KEY",
    "CLIENT_CERTIFICATE",
    "INSECURE",
)
_GRPC_PATHS: Mapping[Signal, str] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}


class OtlpConfigError(Exception):
    """The environment asks for something that cannot work; the message names the variable and a remedy."""


class Sender(Protocol):
    """One destination of one signal. `endpoint` is for people: without user, password and query."""

    endpoint: str

    def send(self, body: bytes) -> Answer:
        """Send one Export...ServiceRequest.

        Blocks for the configured timeout at most; raises nothing that a backend or a network did.
        """

    def close(self) -> None:
        """Give the connection back."""


def configured(environ: Mapping[str, str]) -> dict[Signal, str]:
    """The signals that have a destination, with their endpoints as people may see them.

    A signal counts when an `OTEL_EXPORTER_OTLP_*ENDPOINT` applies to it and its `OTEL_*_EXPORTER` is not
    `none`. Raises OtlpConfigError for an exporter that is neither `otlp` nor `none`.
    Source: OpenTelemetry specification, "Exporter Selection", "OTLP Exporter Configuration".
    """
    found: dict[Signal, str] = {}
    for signal in SIGNALS:
        name = f"OTEL_{signal.upper()}_EXPORTER"
        chosen = {part.strip().lower() for part in environ.get(name, "").split(",")} - {""}
        if chosen - {"otlp", "none"}:
            raise OtlpConfigError(f"{name} knows `otlp` and `none` here, got: {printable(environ[name])}")
        _, endpoint = _setting(signal, "ENDPOINT", environ)
        if endpoint and "none" not in chosen:
            found[signal] = shown(_full_endpoint(signal, environ))
    return found


def sender(signal: Signal, environ: Mapping[str, str]) -> Sender:
    """The sender that the environment describes for one signal; does not connect yet.

    Not for several threads at once: the exporters read the process' own environment, so `environ` takes
    its place for a moment. Raises OtlpConfigError for a missing endpoint, an unknown protocol or
    compression, unreadable certificates, malformed headers or timeouts, or a package that is not installed.
    """
    protocol = validate(signal, environ)
    with _process_environment(_resolved(signal, protocol, environ)):
        try:
            if protocol == "grpc":
                return _GrpcSender(signal, _full_endpoint(signal, environ))
            return _HttpSender(signal)
        except (RuntimeError, ValueError, KeyError) as error:
            raise OtlpConfigError(f"the OTLP exporter refuses its OTEL_* variables: {error}") from error
        except AttributeError as error:
            # We stand on attributes that the exporters do not promise.
            raise OtlpConfigError(
                f"this release of the OTLP exporter is built differently ({error}); install one of 1.45"
            ) from error


def validate(signal: Signal, environ: Mapping[str, str]) -> Protocols:
    """Return the protocol that `sender` would speak, or raise what it would raise for variables and their files.

    It builds nothing and changes nothing, so that it may be called while senders are at work.
    """
    name, text = _setting(signal, "PROTOCOL", environ)
    if (text or "http/protobuf") not in ("http/protobuf", "grpc"):
        raise OtlpConfigError(f"{name} is `http/protobuf` or `grpc`, got: {printable(text)}")
    protocol: Protocols = "grpc" if text == "grpc" else "http/protobuf"
    _check(signal, protocol, environ)
    return protocol


# --- the environment ---------------------------------------------------------------------------------------


def _setting(signal: Signal, option: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The variable that decides an option, and its value; an empty one counts as unset."""
    general = f"OTEL_EXPORTER_OTLP_{option}"
    for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_{option}", general):
        if value := environ.get(name, "").strip():
            return name, value
    return general, ""


def _full_endpoint(signal: Signal, environ: Mapping[str, str]) -> str:
    name, endpoint = _setting(signal, "ENDPOINT", environ)
    is_base = name == "OTEL_EXPORTER_OTLP_ENDPOINT" and _setting(signal, "PROTOCOL", environ)[1] != "grpc"
    return f"{endpoint.removesuffix('/')}/v1/{signal}" if is_base else endpoint


def _resolved(signal: Signal, protocol: Protocols, environ: Mapping[str, str]) -> dict[str, str]:
    """The OTEL_* variables with the general ones made the signal's own."""
    variables = {
        name: value.strip() for name, value in environ.items() if name.startswith("OTEL_") and value.strip()
    }
    for option in _OPTIONS:
        variables.pop(f"OTEL_EXPORTER_OTLP_{option}", None)
        if value := _setting(signal, option, environ)[1]:
            variables[f"OTEL_EXPORTER_OTLP_{signal.upper()}_{option}"] = value
    compression = f"OTEL_EXPORTER_OTLP_{signal.upper()}_COMPRESSION"
    if protocol == "grpc" and variables.get(compression, "").lower() == "none":
        del variables[compression]
    return variables


@contextmanager
def _process_environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
    try:
        for name in before:
            del os.environ[name]
        os.environ.update(variables)
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
        os.environ.update(before)


def _check(signal: Signal, protocol: Protocols, environ: Mapping[str, str]) -> None:
    """Refuse what the exporters would only warn of, or would fail with later and less clearly."""
    name, endpoint = _setting(signal, "ENDPOINT", environ)
    if not endpoint:
        raise OtlpConfigError(f"no destination for {signal}: set {name}, e.g. to http://localhost:4318")
    try:
        parts = urlsplit(endpoint)
        is_whole = bool(parts.hostname) and (parts.port or True)
    except ValueError:
        is_whole = False
    has_scheme = "://" in endpoint
    if (has_scheme or protocol == "http/protobuf") and (
        not is_whole or parts.scheme.lower() not in ("http", "https")
    ):
        raise OtlpConfigError(f"{name} is http://host:port or https://host:port, got: {shown(endpoint)}")

    name, value = _setting(signal, "COMPRESSION", environ)
    known = ("gzip", "none") if protocol == "grpc" else ("gzip", "deflate", "none")
    if value and value.lower() not in known:
        raise OtlpConfigError(f"{name} with {protocol} is one of {', '.join(known)}, got: {printable(value)}")

    name, value = _setting(signal, "TIMEOUT", environ)
    with suppress(ValueError):
        if value and 0 < float(value) <= TIMEOUT_SECONDS_MAX:
            value = ""
    if value:
        raise OtlpConfigError(
            f"{name} is in seconds, above 0 and at most {TIMEOUT_SECONDS_MAX}, got: {printable(value)}"
        )

    name, value = _setting(signal, "HEADERS", environ)
    for part in filter(None, (part.strip() for part in value.split(","))):
        if not part.partition("=")[0].strip() or "=" not in part:
            # The value may be a secret: say which, not what.
            raise OtlpConfigError(
                f"{name} is a list of name=value, separated by commas; a part has no name or no ="
            )
    _check_files(signal, protocol, environ)


def _check_files(signal: Signal, protocol: Protocols, environ: Mapping[str, str]) -> None:
    ca_name, ca = _setting(signal, "CERTIFICATE", environ)
    chain_name, chain = _setting(signal, "CLIENT_CERTIFICATE", environ)
    key_name, key = _setting(signal, "CLIENT_KEY", environ)
    for name, path in ((ca_name, ca), (chain_name, chain), (key_name, key)):
        try:
            if path:
                with open(path, "rb"):  # noqa: PTH123  # only proves that it can be read
                    pass
        except OSError as error:
            raise OtlpConfigError(
                f"{name} names a file that cannot be read: {error.strerror}: {path}"
            ) from error
    if key and not chain:
        raise OtlpConfigError(f"{key_name} needs {chain_name} beside it")
    if chain and protocol == "grpc" and not (key and ca):
        raise OtlpConfigError(f"with grpc, {chain_name} needs {key_name} and {ca_name} beside it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if ca:
            context.load_verify_locations(ca)
        if chain:
            context.load_cert_chain(
                chain, key or None, password=""
            )  # an encrypted key must not ask a terminal
    except (ssl.SSLError, ValueError, OSError) as error:
        where = f"{chain_name} and {key_name}" if chain else ca_name
        raise OtlpConfigError(f"{where} must be PEM files without a passphrase: {error}") from error


# --- HTTP --------------------------------------------------------------------------------------------------


class _HttpSender:
    """OTLP/HTTP with protobuf, through the session of the official exporter."""

    def __init__(self, signal: Signal) -> None:
        exporter: Any
        if signal == "traces":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415  # heavy
                OTLPSpanExporter,
            )

            exporter = OTLPSpanExporter()
        else:
            from opentelemetry.exporter.otlp.proto.http._log_exporter import (  # noqa: PLC0415  # heavy
                OTLPLogExporter,
            )

            exporter = OTLPLogExporter()
        self._signal = signal
        self._url: str = exporter._endpoint  # noqa: SLF001  # see the head of the file; so the next four
        self._timeout_seconds: float = exporter._client._timeout  # noqa: SLF001
        self._headers: dict[str, str] = exporter._client._headers  # noqa: SLF001
        self._compression: str = exporter._compression.value  # noqa: SLF001
        self._session: requests.Session = exporter._client._transport._session  # noqa: SLF001
        self.endpoint = shown(self._url)
        if any(not text.isprintable() for header in self._headers.items() for text in header):
            raise OtlpConfigError(f"the OTLP headers of {signal} hold control characters")
        # An explicit `auth` keeps ~/.netrc from overwriting a configured Authorization header.
        has_user = "@" in urlsplit(self._url).netloc
        self._auth = self._session.auth or (None if has_user else _unchanged)
        self._watch = _Watch(self._session)

    def send(self, body: bytes) -> Answer:
        import requests  # noqa: PLC0415  # heavy
        import urllib3  # noqa: PLC0415  # heavy

        if self._compression == "gzip":
            body = gzip.compress(body, COMPRESSION_LEVEL, mtime=0)
        elif self._compression == "deflate":
            body = zlib.compress(body, COMPRESSION_LEVEL)
        timer = threading.Timer(self._timeout_seconds, self._watch.abort)
        timer.daemon = True
        self._watch.is_late = False
        timer.start()
        try:
            with self._session.post(
                self._url,
                data=body,
                headers=self._headers,
                timeout=self._timeout_seconds,
                allow_redirects=False,
                stream=True,
                auth=self._auth,
                # A private CA in OTEL_* must win over REQUESTS_CA_BUNDLE.
                verify=self._session.verify,
            ) as response:
                content: bytes = response.raw.read(RESPONSE_BYTES_MAX, decode_content=True)
                answer = http_answer(self._signal, response.status_code, response.headers, content)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            answer = trouble(error)
        finally:
            timer.cancel()
        return Answer("retry", "timeout") if self._watch.is_late else answer

    def close(self) -> None:
        self._session.close()


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class _Watch:
    """Ends a request that outlasts its whole timeout.

    The timeout of `requests` is for each read of the socket: a server that answers a byte a second would
    hold the thread for hours. The connection in use is noted by the pools' connection classes.
    """

    def __init__(self, session: requests.Session) -> None:
        from requests.adapters import HTTPAdapter  # noqa: PLC0415  # heavy

        self.is_late = False
        self.connection: Any = None
        watch = self

        class WatchedAdapter(HTTPAdapter):
            def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
                pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
                if "watched" not in vars(pool):
                    pool.watched = True
                    pool.ConnectionCls = watch.watched(pool.ConnectionCls)
                return pool

        for prefix, adapter in list(session.adapters.items()):
            if type(adapter) is HTTPAdapter:  # a credential provider's own adapter stays
                session.mount(prefix, WatchedAdapter())

    def watched(self, kind: Any) -> Any:
        watch = self

        class WatchedConnection(kind):  # type: ignore[misc]  # a class of either HTTP or HTTPS
            def request(self, *args: Any, **kwargs: Any) -> Any:
                watch.connection = self
                return super().request(*args, **kwargs)

        return WatchedConnection

    def abort(self) -> None:
        self.is_late = True
        sock = getattr(self.connection, "sock", None)
        if sock is not None:
            with suppress(OSError):  # it may be gone already
                # Past SSLSocket.shutdown, which would take the TLS state from under the reading thread.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


# --- gRPC --------------------------------------------------------------------------------------------------


class _GrpcSender:
    """OTLP/gRPC, through the channel of the official exporter."""

    def __init__(self, signal: Signal, endpoint: str) -> None:
        options: Any = (
            ("grpc.max_reconnect_backoff_ms", GRPC_RECONNECT_MILLISECONDS_MAX),
            # Connections of an earlier channel, with their back-off, are not to be shared.
            ("grpc.use_local_subchannel_pool", 1),
        )
        try:
            from opentelemetry.exporter.otlp.proto.grpc._log_exporter import (  # noqa: PLC0415  # heavy
                OTLPLogExporter,
            )
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415  # heavy
                OTLPSpanExporter,
            )
        except ImportError as error:
            raise OtlpConfigError(
                "OTEL_EXPORTER_OTLP_PROTOCOL=grpc needs a package that is not installed: "
                "opentelemetry-exporter-otlp-proto-grpc; install it, or use http/protobuf"
            ) from error
        kind: Any = OTLPSpanExporter if signal == "traces" else OTLPLogExporter
        self._exporter = kind(channel_options=options)
        self._signal = signal
        self._timeout_seconds: float = self._exporter._timeout  # noqa: SLF001  # see the head of the file
        self._metadata: tuple[tuple[str, str], ...] = tuple(self._exporter._headers)  # noqa: SLF001  # same
        self.endpoint = shown(endpoint)
        self._export = self._stub()

    def _stub(self) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        channel: grpc.Channel = self._exporter._channel  # noqa: SLF001  # see the head of the file
        # Without serializers bytes go in and bytes come out.
        return channel.unary_unary(_GRPC_PATHS[self._signal], None, None)

    def send(self, body: bytes) -> Answer:
        import grpc  # noqa: PLC0415  # 30 MB, and not installed everywhere

        try:
            content = self._export(body, timeout=self._timeout_seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                # As the official exporter does: a channel that has failed may stick to a dead address.
                self._exporter._channel.close()  # noqa: SLF001  # see the head of the file
                self._exporter._initialize_channel_and_stub()  # noqa: SLF001  # same
                self._export = self._stub()
            return grpc_answer(self._signal, error)
        return response(self._signal, content, "application/x-protobuf")

    def close(self) -> None:
        self._exporter.shutdown()
