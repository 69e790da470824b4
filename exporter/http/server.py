"""A small HTTP server for scrapes, probes and a page: GET and HEAD, a few routes, hostile clients.

What can go wrong with a server that stands open for years, and what is done about it:

* a client that connects and says nothing, or one byte now and then, or reads as slowly: every connection has
  one deadline, from its first byte (the TLS handshake included, which is made in the worker) to its last;
* more clients than threads: each connection has a thread, up to a limit; beyond it the answer is 503 at once,
  from the accepting thread, which never waits for anybody;
* endless headers: a request is at most 16 KiB;
* no file descriptors left: accepting pauses instead of spinning.

One request a connection: a scrape comes every few seconds, and idle connections would hold threads.
"""

from __future__ import annotations

import errno
import io
import logging
import socket
import socketserver
import ssl
import threading
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from exporter.http.auth import BasicAuth
from exporter.http.routes import Handler, Request, Response, Routes, plain

THREADS_MAX = 16
"""Two Prometheus servers, a probe and some people need four."""

EXCHANGE_SECONDS = 10.0
"""From accept to the last byte of the answer: Prometheus' default scrape timeout."""

REQUEST_BYTES_MAX = 16 * 1024
"""Request line and headers; Prometheus sends half a kilobyte, a browser with cookies two."""

QUERY_FIELDS_MAX = 100
BACKLOG_CONNECTIONS = 128
"""Connections that the kernel keeps until they are accepted."""

LINGER_SECONDS = 1.0
LINGERING_MAX = 64
"""A refused client is given this long to read its 503; closing at once would destroy it unread."""

POLL_SECONDS = 0.5
"""How often `serve` looks after refused connections."""

ACCEPT_PAUSE_SECONDS = 0.2
"""Without file descriptors the listening socket stays readable: do not spin on it."""

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer, whatever it is: what is served is made of a log that anybody may write into."""

_log = logging.getLogger(__name__)


class ServerError(Exception):
    """The server cannot be set up; the message names the configuration's key and the remedy."""


class Tls(NamedTuple):
    """Paths of a certificate chain and its key, in PEM; both are read again when they change."""

    certificate: Path
    key: Path


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens from the moment it is made; `serve` answers, in the thread that calls it, until `close`.

    A handler of `routes` that raises is logged and answered with 500. With `auth`, all
    paths but `public_paths` ask for it. Raises ServerError when it cannot listen or read its certificate.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = BACKLOG_CONNECTIONS
    timeout = POLL_SECONDS

    def __init__(
        self,
        host: str,
        port: int,
        routes: Routes,
        *,
        tls: Tls | None = None,
        auth: BasicAuth | None = None,
        public_paths: Collection[str] = (),
        threads_max: int = THREADS_MAX,
        exchange_seconds: float = EXCHANGE_SECONDS,
    ) -> None:
        self.routes = routes
        self._prefixes = sorted((path for path in routes if path.endswith("*")), key=len, reverse=True)
        self.auth = auth
        self.public_paths = frozenset(public_paths)
        self._exchange_seconds = exchange_seconds
        self._tls = _Certificate(tls) if tls else None
        self._threads_max = threads_max
        self._free_threads = threading.Semaphore(threads_max)
        self._lingering: deque[tuple[float, socket.socket]] = deque()
        self._closing = threading.Event()
        self._is_serving = False
        if not 0 <= port <= 65535:
            # The resolver would take such a number modulo 65536.
            raise _cannot_listen(host, port, OverflowError("no such port"))
        try:
            family, _, _, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self.address_family = family
            super().__init__((str(address[0]), int(address[1])), _Connection)
        except (OSError, OverflowError) as error:
            raise _cannot_listen(host, port, error) from error

    def handler(self, path: str) -> Handler | None:
        """Return the handler of a path, None where there is nothing."""
        own = None if path.endswith("*") else self.routes.get(path)
        prefixes = (prefix for prefix in self._prefixes if path.startswith(prefix[:-1]))
        return own or next((self.routes[prefix] for prefix in prefixes), None)

    @property
    def port(self) -> int:
        """The port it listens on, also when it was asked for port 0."""
        return int(self.socket.getsockname()[1])

    def serve(self) -> None:
        """Answer until `close` is called from another thread, then stop listening."""
        self._is_serving = True
        try:
            while not self._closing.is_set():
                self.handle_request()
                self._close_lingering()
        finally:
            self.server_close()

    def close(self) -> None:
        """Let `serve` end; answers under way are not waited for."""
        self._closing.set()
        # Wakes a `serve` that waits for a connection; the thread that waits must be the one that closes.
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        if not self._is_serving:
            self.server_close()

    def drain(self, seconds: float) -> None:
        """Wait, after `close`, until the answers under way are given; at most so long."""
        end = time.monotonic() + seconds
        for _ in range(self._threads_max):
            if not self._free_threads.acquire(timeout=max(0.0, end - time.monotonic())):
                return

    def server_close(self) -> None:
        """Close the listening socket and what lingers."""
        super().server_close()
        self._close_lingering(at_once=True)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        try:
            return self.socket.accept()
        except OSError:
            self._closing.wait(ACCEPT_PAUSE_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread, or refuse it."""
        if not self._free_threads.acquire(blocking=False):
            self._refuse(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            # The system has no thread for us.
            self._free_threads.release()
            self._refuse(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a connection, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free_threads.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Make the TLS handshake, if any, and the exchange."""
        deadline = time.monotonic() + self._exchange_seconds
        request.settimeout(self._exchange_seconds)
        if self._tls is None:
            self._exchange(request, deadline, client_address)
            return
        with self._tls.context().wrap_socket(request, server_side=True) as secured:
            self._exchange(secured, deadline, client_address)

    def _exchange(self, connection: socket.socket, deadline: float, client_address: Any) -> None:
        wire: Any = _DeadlineStream(connection, deadline)
        _Connection(wire, client_address, self)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's signature
        """Keep clients' troubles (resets, timeouts, bad handshakes) out of the log."""
        _log.debug("connection from %s failed", client_address, exc_info=True)

    def _refuse(self, request: socket.socket) -> None:
        if self._tls is not None:
            self.shutdown_request(request)
            return
        request.setblocking(False)
        try:
            request.send(_BUSY)
            request.shutdown(socket.SHUT_WR)
        except OSError:
            request.close()
        else:
            self._lingering.append((time.monotonic() + LINGER_SECONDS, request))

    def _close_lingering(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        while self._lingering and (
            at_once or len(self._lingering) > LINGERING_MAX or self._lingering[0][0] <= now
        ):
            self._lingering.popleft()[1].close()


_BUSY = (
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
    + "".join(f"{name}: {value}\r\n" for name, value in SECURITY_HEADERS.items())
    + "Content-Length: 23\r\nRetry-After: 5\r\nConnection: close\r\n\r\ntoo many requests now\r\n"
).encode("ascii")


def _cannot_listen(host: str, port: int, error: Exception) -> ServerError:
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, socket.gaierror | OverflowError) or number == errno.EADDRNOTAVAIL:
        remedy = "set `listen` to an address of this host and a port from 1 to 65535"
    elif number == errno.EADDRINUSE:
        remedy = "stop the program that uses it, or set `listen` to another port"
    elif number == errno.EACCES:
        remedy = "set `listen` to a port above 1023"
    else:
        remedy = "set `listen` to another address"
    reason = error.strerror if isinstance(error, OSError) else error
    return ServerError(f"cannot listen on {host}:{port}: {reason}; {remedy}")


class _Certificate:
    """A TLS context that follows its files: certificates are renewed every few weeks."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        try:
            self._read_at = self._changed_at()
            self._context = self._load()
        except (OSError, ValueError) as error:
            raise ServerError(
                f"cannot read the certificate {tls.certificate} and its key {tls.key}: {error};"
                " set `tls_certificate` and `tls_key` to PEM files that belong together"
            ) from error

    def context(self) -> ssl.SSLContext:
        """Return the context for the next connection; files that cannot be read now leave the old one."""
        try:
            changed_at = self._changed_at()
            if changed_at != self._read_at:
                self._read_at = changed_at
                self._context = self._load()
        except (OSError, ValueError):
            _log.warning("the new certificate in %s cannot be used; the old one stays", self._tls.certificate)
        return self._context

    def _changed_at(self) -> tuple[int, int]:
        return self._tls.certificate.stat().st_mtime_ns, self._tls.key.stat().st_mtime_ns

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Without a password to ask for, an encrypted key is an error rather than a prompt.
        context.load_cert_chain(self._tls.certificate, self._tls.key, password=lambda: "")
        return context


class _TooLargeError(Exception):
    """The request line and headers are larger than REQUEST_BYTES_MAX."""


class _DeadlineStream(io.RawIOBase):
    """A connection with one deadline for everything, and a bound on what is read."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._readable_bytes = REQUEST_BYTES_MAX

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._readable_bytes <= 0:
            raise _TooLargeError
        self._limit_time()
        count = self._connection.recv_into(memoryview(buffer)[: self._readable_bytes])
        self._readable_bytes -= count
        return count

    def write(self, data: Any) -> int:
        # `sendall` of a TLS socket would give every part a time of its own.
        rest = memoryview(data)
        while rest:
            self._limit_time()
            rest = rest[self._connection.send(rest) :]
        return len(data)

    def _limit_time(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)


class _Connection(BaseHTTPRequestHandler):
    """One request and its answer; `request` is a `_DeadlineStream`."""

    server: Server
    protocol_version = "HTTP/1.1"
    command = ""

    def setup(self) -> None:
        wire: Any = self.request
        self.rfile = io.BufferedReader(wire, 4096)
        self.wfile = wire

    def finish(self) -> None:
        self.rfile.close()

    def handle(self) -> None:
        try:
            self.handle_one_request()
        except _TooLargeError:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def do_GET(self) -> None:
        self._send(self._answer())

    def do_HEAD(self) -> None:
        self._send(self._answer())

    def _answer(self) -> Response:
        try:
            url = urlsplit(self.path)
            query = parse_qs(url.query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
        except ValueError:
            return plain(HTTPStatus.BAD_REQUEST)
        auth = self.server.auth
        is_open = auth is None or url.path in self.server.public_paths
        if auth and not (is_open or auth.accepts(self.headers.get("Authorization", ""))):
            challenge = {"WWW-Authenticate": 'Basic realm="wok-exporter", charset="UTF-8"'}
            return plain(HTTPStatus.UNAUTHORIZED, challenge)
        handler = self.server.handler(url.path)
        if handler is None:
            return plain(HTTPStatus.NOT_FOUND)
        headers: Any = self.headers
        try:
            return handler(Request(self.command, url.path, query, headers))
        except Exception:  # noqa: BLE001 - a page's bug must not take the thread, nor the reason, with it
            _log.exception("the answer to %s failed", url.path)
            return plain(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _send(self, response: Response) -> None:
        self.close_connection = True
        headers = {"Content-Type": response.content_type, "Content-Length": str(len(response.body))}
        if response.status == HTTPStatus.NOT_MODIFIED:
            # They would be of a body that is not there (RFC 9110, 15.4.5).
            headers.clear()
        headers |= {"Cache-Control": "no-store", **SECURITY_HEADERS, "Connection": "close"}
        self.send_response(response.status)
        for name, value in (headers | dict(response.headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 - the base class's signature
        """Answer what the base class found wrong, in a line of text."""
        # Until a request line has been understood the base class takes it for HTTP/0.9, without headers.
        self.request_version = self.protocol_version
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._send(plain(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"}))
        else:
            self._send(plain(HTTPStatus(code)))

    def send_response(self, code: int, message: str | None = None) -> None:
        """Begin an answer, without saying which server and which Python this is."""
        self.send_response_only(code, message)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: what clients do is not news."""
