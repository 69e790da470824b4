"""OTLP over HTTP/1.1 with protobuf: one request at a time over a kept connection.

A request ends at one deadline, from the first connection attempt to the last byte of the response.
The timeouts of HTTP libraries are for each read: a server that sends one byte a second could hold
the thread for hours, and so could a proxy that answers CONNECT in that way. So this is written on a
socket with a deadline, and of `http.client` it uses the parser of responses. (Name resolution has
the operating system's own time limit.)

Certificates are read again for each new connection, so that renewed ones need no reload.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import http
import http.client
import os
import ssl
import time
import zlib
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from exporter import __version__
from exporter.deliver.deadline_socket import DeadlineSocket
from exporter.deliver.http_errors import (
    CertificateFileError,
    InvalidResponseError,
    NotHttpError,
    ProxyError,
    TransportError,
    failure,
)
from exporter.deliver.probe import tls_of
from exporter.deliver.responses import Answer, http_answer, printable, shown

if TYPE_CHECKING:
    from exporter.deliver.otlp_env import OtlpSettings

RESPONSE_BYTES_MAX = (
    4 * 1024 * 1024
)  # an OTLP response has some dozen bytes, Loki's longest lists thousands of entries
JOINED_BYTES_MAX = 16 * 1024  # one packet more costs less than a copy of a larger body
COMPRESSION_LEVEL = 1  # telemetry repeats itself: level 9 gains little and costs ten times the processor time
SYSTEM_STORES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
)
PORTS = {"http": 80, "https": 443}
_PATH_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"  # those of a URL that are sent as they are


class HttpSender:
    """Sends requests of one signal to one URL."""

    def __init__(self, settings: OtlpSettings) -> None:
        self.endpoint = shown(settings.endpoint)
        self._settings = settings
        self._target = _Target.of(settings.endpoint)
        self._proxy = _Target.of(settings.proxy) if settings.proxy else None
        self._head = self._request_head()
        self._connection: DeadlineSocket | None = None

    def _request_head(self) -> bytes:
        """Return the request line and all headers but Content-Length."""
        target, settings = self._target, self._settings
        is_forwarded = self._proxy is not None and not settings.is_secure
        url = f"http://{target.authority}{target.path}" if is_forwarded else target.path
        headers = {
            "host": target.authority,
            "user-agent": f"wok-exporter/{__version__}",
            "accept-encoding": "identity",
        }
        if target.credentials:
            headers["authorization"] = target.credentials
        if is_forwarded and self._proxy is not None and self._proxy.credentials:
            headers["proxy-authorization"] = self._proxy.credentials
        headers |= dict(settings.headers)
        headers["content-type"] = "application/x-protobuf"
        if settings.compression != "none":
            headers["content-encoding"] = settings.compression
        lines = [f"POST {url} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "content-length: "]).encode("ascii")

    def send(self, body: bytes) -> Answer:
        """See `Sender`."""
        if self._settings.compression == "gzip":
            body = gzip.compress(body, COMPRESSION_LEVEL, mtime=0)
        elif self._settings.compression == "deflate":
            body = zlib.compress(body, COMPRESSION_LEVEL)
        end = time.monotonic() + self._settings.timeout_seconds
        try:
            answer, is_reusable = self._exchange(body, end)
        except (OSError, http.client.HTTPException, ValueError, TransportError) as error:
            answer, is_reusable = self._diagnosed(failure(error), error), False
        if not is_reusable:
            self.close()
        return answer

    def _diagnosed(self, answer: Answer, error: Exception) -> Answer:
        """Look behind a connection that was closed without a response: is the backend's port for
        something else?
        """
        if (
            not isinstance(error, ConnectionResetError | BrokenPipeError)
            or self._proxy is not None
            or self._connection is None
        ):
            return answer
        if self._connection.has_received:
            return answer
        match tls_of(self._target.host, self._target.port):
            case "none":
                return answer
            case "h2" if self._settings.is_secure:
                return Answer(
                    "config", "needs_grpc", message="the backend hangs up on HTTP/1.1, and offers HTTP/2"
                )
            case _ if self._settings.is_secure:
                return answer
        return Answer("config", "needs_tls", message="the backend hangs up on plain HTTP, and offers TLS")

    def _exchange(self, body: bytes, end: float) -> tuple[Answer, bool]:
        """Send one request and read its response; return also whether the connection can be used
        again.
        """
        if self._connection is not None and self._connection.is_stale():
            self.close()
        if self._connection is None:
            self._connection = self._connect(end)
        connection = self._connection
        connection.end = end
        head = b"%b%d\r\n\r\n" % (self._head, len(body))
        if len(body) <= JOINED_BYTES_MAX:
            connection.send_all(head + body)
        else:
            connection.send_all(head)
            connection.send_all(body)
        connection.acknowledge_at_once()
        response = http.client.HTTPResponse(connection, method="POST")  # type: ignore[arg-type]  # it needs makefile
        try:
            _begin(response, connection)
            content = _read_content(response)
            is_whole = response.isclosed()
            answer = http_answer(self._settings.signal, response.status, response.headers, content)
            if response.status == http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED and self._proxy:
                raise ProxyError("the proxy demands credentials (HTTP 407)", is_config=True)
        finally:
            response.close()
        return answer, is_whole and not response.will_close

    def _connect(self, end: float) -> DeadlineSocket:
        """Return a new connection to the backend, through the proxy if there is one, with TLS if
        asked for.
        """
        proxy, target = self._proxy, self._target
        if proxy is not None and proxy.scheme != "http":
            kind = "SOCKS" if proxy.scheme.startswith("socks") else f"{printable(proxy.scheme)}://"
            raise ProxyError(
                f"{shown(self._settings.proxy)} is a {kind} proxy, which is not supported", is_config=True
            )
        nearest = proxy or target
        context = _tls_context(self._settings) if self._settings.is_secure else None
        with contextlib.ExitStack() as opened:
            try:
                connection = DeadlineSocket.connect(nearest.host, nearest.port, end)
                opened.callback(connection.close)
                if proxy is not None and context is not None:
                    _open_tunnel(connection, target, proxy)
            except (OSError, http.client.HTTPException, NotHttpError) as error:
                if proxy is None:
                    raise
                why = failure(error)
                raise ProxyError(
                    f"{shown(self._settings.proxy)}: {why.message or why.reason}", is_config=False
                ) from error
            if context is not None:
                connection.start_tls(context, target.host)
            opened.pop_all()
        return connection

    def close(self) -> None:
        """See `Sender`."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Target(NamedTuple):
    """A URL taken apart: `authority` is host and port as a Host header has them."""

    scheme: str
    host: str
    port: int
    authority: str
    path: str
    credentials: str

    @classmethod
    def of(cls, url: str) -> _Target:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host = host if host.isascii() else host.encode("idna").decode("ascii")
        name = f"[{host}]" if ":" in host else host
        port = parts.port or PORTS.get(parts.scheme, 80)
        credentials = ""
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            credentials = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
        path = quote(parts.path or "/", _PATH_CHARACTERS)
        if parts.query:
            path += "?" + quote(parts.query, _PATH_CHARACTERS)
        return cls(
            parts.scheme.lower(),
            host,
            port,
            name if parts.port is None else f"{name}:{port}",
            path,
            credentials,
        )


def _begin(response: http.client.HTTPResponse, connection: DeadlineSocket) -> None:
    """Read the head of a response."""
    start = connection.reader.peek(1)
    if start and not start.startswith(b"H"):
        raise NotHttpError(start)
    response.begin()
    while http.HTTPStatus.SWITCHING_PROTOCOLS < response.status < http.HTTPStatus.OK:
        # Early hints and the like come before the response; `http.client` only skips 100.
        response.headers = None  # type: ignore[assignment]  # begin() reads the next head then
        response.begin()


def _read_content(response: http.client.HTTPResponse) -> bytes:
    """Read the body, decompressed; only the beginning of one that is longer than any backend's."""
    lengths = set(response.headers.get_all("Content-Length", ()))
    if not response.chunked and not all(
        text.isascii() and text.isdigit() and len(text) < 19 for text in lengths
    ):
        raise InvalidResponseError(f"the response has an invalid Content-Length: {' '.join(lengths)}")
    if len(lengths) > 1:
        raise InvalidResponseError("the response has more than one Content-Length")
    try:
        content = response.read(RESPONSE_BYTES_MAX)
    except ValueError as error:
        raise InvalidResponseError(f"the response has an invalid chunk: {error}") from error
    if response.length and len(content) < RESPONSE_BYTES_MAX:
        raise http.client.IncompleteRead(content, response.length)
    if response.headers.get("Content-Encoding", "").strip().lower() in ("gzip", "x-gzip"):
        # Not asked for, but some proxies compress everything.
        try:
            content = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(content, RESPONSE_BYTES_MAX)
        except zlib.error as error:
            raise InvalidResponseError(f"the response is not the gzip that it says: {error}") from error
    return content


def _open_tunnel(connection: DeadlineSocket, target: _Target, proxy: _Target) -> None:
    """Ask a proxy for a connection to the backend."""
    name = f"[{target.host}]" if ":" in target.host else target.host
    lines = [f"CONNECT {name}:{target.port} HTTP/1.1", f"host: {name}:{target.port}"]
    if proxy.credentials:
        lines.append(f"proxy-authorization: {proxy.credentials}")
    connection.send_all("\r\n".join([*lines, "", ""]).encode("ascii"))
    response = http.client.HTTPResponse(connection, method="CONNECT")  # type: ignore[arg-type]  # it needs makefile
    try:
        _begin(response, connection)
    finally:
        response.close()
    if not 200 <= response.status < 300:
        raise ProxyError(
            f"the proxy refuses CONNECT (HTTP {response.status} {response.reason})",
            is_config=response.status < 500,
        )


def _tls_context(settings: OtlpSettings) -> ssl.SSLContext:
    """Return what to trust and what to show, from the files as they are now."""
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
        if not settings.ca and not any(ssl.get_default_verify_paths()[:2]):
            # OpenSSL was built on another distribution: look where this one may have its
            # certificates.
            context.load_verify_locations(next(filter(os.path.exists, SYSTEM_STORES), None))
        if settings.client_chain:
            context.load_cert_chain(settings.client_chain, settings.client_key or None, password="")
    except (OSError, ValueError, TypeError) as error:
        raise CertificateFileError(str(error)) from error
    return context
