"""A small HTTP server for scrapes, probes and a page: GET and HEAD, a few routes, hostile clients.

One thread, in `serve`, accepts connections, reads the heads of requests and sends the answers, for
all clients at once and without ever waiting for one of them. Handlers run in other threads. What
can go wrong with a server that stands open for years, and what is done about it:

* a client that connects and says nothing, or one byte now and then: it holds no thread, and is
  closed after HEAD_SECONDS;
* a client that reads its answer slowly, or not at all: it holds no thread, and is closed after
  `exchange_seconds`;
* more clients than connections are kept: the address with the most connections loses its oldest;
* more requests than threads: a bounded number waits, the addresses take turns, others are answered
  with 503;
* slow pages: `priority_paths` (scrapes and probes) have threads of their own;
* guessed passwords: a hash is computed in one thread of its own (`auth.py`);
* endless headers: a request is at most 16 KiB;
* no file descriptors left: accepting pauses instead of spinning.

There is one request a connection: a scrape comes every few seconds, and idle connections are not
worth keeping.
"""

from __future__ import annotations

import logging
import resource
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from ipaddress import ip_address, ip_network

from exporter.http.auth import BasicAuth
from exporter.http.connection import Connection, Wait
from exporter.http.errors import ServerError
from exporter.http.fair_queue import Job, Workers
from exporter.http.head import Parsed, parse, render
from exporter.http.listener import listen
from exporter.http.routes import TEXT, Handler, Request, Response, Routes, plain
from exporter.http.tls import Certificate, Tls

__all__ = ["Server", "ServerError", "Tls"]

THREADS_MAX = 8
"""For pages: two people with a browser need four."""

PRIORITY_THREADS = 4
"""For scrapes and probes: two Prometheus servers and a probe."""

WAITING_MAX = 64
"""Requests that wait for a thread, of pages and of scrapes each."""

GUESSES_WAITING_MAX = 32
"""Passwords that wait for their hash: some 50 ms each."""

HEAD_SECONDS = 5.0
"""From accept to the end of the request's head, the TLS handshake included."""

EXCHANGE_SECONDS = 10.0
"""From accept to the last byte of the answer: Prometheus' default scrape timeout."""

ENDING_SECONDS = 1.0
"""How long a client may take to close its side after the answer."""

CONNECTIONS_MAX = 512
CONNECTIONS_MAX_TLS = 256
"""Open connections. OpenSSL keeps some 100 KiB for each."""

UNSENT_BYTES_MAX = 32 * 1024 * 1024
"""Answers that slow clients have not read yet. Beyond, the address with the
most loses its oldest.
"""

ACCEPTED_AT_ONCE = 64
ACCEPT_PAUSE_SECONDS = 0.2
"""Without file descriptors the listening socket stays readable: do not spin on it."""

ANSWER_SECONDS = 2.0
"""How long answers under way may take after `close`."""

LOOK_SECONDS = 0.1
"""How often connections that have had their time are looked for."""

_log = logging.getLogger(__name__)


class Server:
    """Listens from the moment it is made; `serve` answers, in the thread that calls it, until
    `close`.

    A handler of `routes` that raises is logged and answered with 500. With `auth`, all paths but
    `public_paths` ask for a user and a password. Raises ServerError when it cannot listen or read
    its certificate.
    """

    def __init__(
        self,
        host: str,
        port: int,
        routes: Routes,
        *,
        tls: Tls | None = None,
        auth: BasicAuth | None = None,
        public_paths: Collection[str] = (),
        priority_paths: Collection[str] = ("/metrics", "/healthz", "/readyz"),
        threads_max: int = THREADS_MAX,
        head_seconds: float = HEAD_SECONDS,
        exchange_seconds: float = EXCHANGE_SECONDS,
    ) -> None:
        self.routes = routes
        self._prefixes = sorted((path for path in routes if path.endswith("*")), key=len, reverse=True)
        self._auth = auth
        self._public_paths = frozenset(public_paths)
        self._priority_paths = frozenset(priority_paths)
        self._head_seconds = min(head_seconds, exchange_seconds)
        self._exchange_seconds = exchange_seconds
        self._certificate = Certificate(tls) if tls else None
        self._connections: dict[Connection, Wait] = {}
        self._connections_max = _connections_max(has_tls=tls is not None)
        self._answered: deque[tuple[Connection, tuple[bytes, bytes]]] = deque()
        self._in_hand = 0
        self._looked_at = 0.0
        self._closing = threading.Event()
        self._starting = threading.Lock()
        self._is_serving = False
        self._listener = listen(host, port)
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._pages = Workers("page", threads_max=threads_max, waiting_max=WAITING_MAX)
        self._scrapes = Workers("scrape", threads_max=PRIORITY_THREADS, waiting_max=WAITING_MAX)
        self._guesses = Workers("password", threads_max=1, waiting_max=GUESSES_WAITING_MAX)

    @property
    def address_family(self) -> socket.AddressFamily:
        """The family of the address it listens on."""
        return self._listener.family

    @property
    def host(self) -> str:
        """The address it listens on."""
        return str(self._listener.getsockname()[0])

    @property
    def port(self) -> int:
        """The port it listens on, also when it was asked for port 0."""
        return int(self._listener.getsockname()[1])

    def handler(self, path: str) -> Handler | None:
        """Return the handler of a path, None where there is nothing."""
        own = None if path.endswith("*") else self.routes.get(path)
        prefixes = (prefix for prefix in self._prefixes if path.startswith(prefix[:-1]))
        return own or next((self.routes[prefix] for prefix in prefixes), None)

    def serve(self) -> None:
        """Answer until another thread calls `close`, then finish the answers in progress."""
        with self._starting:
            if self._closing.is_set():
                return
            self._is_serving = True
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        try:
            while not self._closing.is_set():
                self._turn()
            self._selector.unregister(self._listener)
            self._listener.close()
            self._finish()
        finally:
            self._release()

    def close(self) -> None:
        """Let `serve` end; it stops listening at once."""
        with self._starting:
            self._closing.set()
            if not self._is_serving:
                self._release()
        self._wake()

    def _finish(self) -> None:
        end = time.monotonic() + ANSWER_SECONDS
        for workers in (self._guesses, self._pages, self._scrapes):
            workers.close()
        for connection in [each for each in self._connections if each.phase in {"handshake", "head"}]:
            self._drop(connection)
        while (self._in_hand or any(each.unsent_bytes for each in self._connections)) and (
            time.monotonic() < end
        ):
            self._turn()

    def _release(self) -> None:
        for workers in (self._guesses, self._pages, self._scrapes):
            workers.close()
        for connection in list(self._connections):
            self._drop(connection)
        self._listener.close()
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def _wake(self) -> None:
        with suppress(OSError):  # full: it is awake; closed: nobody waits any more
            self._waker.send(b"\0")

    # The loop

    def _turn(self) -> None:
        for key, _ in self._selector.select(LOOK_SECONDS if self._connections else None):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._woken:
                with suppress(BlockingIOError):
                    self._woken.recv(4096)
            elif isinstance(key.data, Connection) and key.data in self._connections:
                self._step(key.data)
        while self._answered:
            connection, answer = self._answered.popleft()
            self._in_hand -= 1
            if connection in self._connections:
                self._send(connection, answer)
        now = time.monotonic()
        if now >= self._looked_at + LOOK_SECONDS:
            self._looked_at = now
            for connection in [each for each in self._connections if each.deadline <= now]:
                self._drop(connection)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                raw, peer = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                self._closing.wait(ACCEPT_PAUSE_SECONDS)
                return
            if len(self._connections) >= self._connections_max:
                self._make_room()
            deadline = time.monotonic() + self._head_seconds
            try:
                tls = self._certificate.context() if self._certificate else None
                connection = Connection(raw, _share_of(str(peer[0])), tls, deadline)
            except (OSError, ValueError):
                raw.close()
                continue
            self._connections[connection] = "nothing"
            self._step(connection)

    def _make_room(self) -> None:
        """Drop the oldest connection of the address that has the most, but none that waits for a
        handler.
        """
        idle = [each for each in self._connections if each.phase != "answering"]
        counts = Counter(each.address for each in idle)
        if counts:
            heaviest = max(counts, key=lambda address: counts[address])
            self._drop(next(each for each in idle if each.address == heaviest))

    def _step(self, connection: Connection) -> None:
        was_writing = connection.phase == "writing"
        wait = connection.step()
        if connection.phase == "closed":
            self._drop(connection)
        elif connection.phase == "answering":
            self._wait_for(connection, "nothing")
            connection.deadline += self._exchange_seconds - self._head_seconds
            self._dispatch(connection)
        else:
            if was_writing and connection.phase == "ending":
                connection.deadline = min(connection.deadline, time.monotonic() + ENDING_SECONDS)
            self._wait_for(connection, wait)

    def _wait_for(self, connection: Connection, wait: Wait) -> None:
        before, self._connections[connection] = self._connections[connection], wait
        if before == wait:
            return
        events = selectors.EVENT_WRITE if wait == "write" else selectors.EVENT_READ
        if wait == "nothing":
            self._selector.unregister(connection)
        elif before == "nothing":
            self._selector.register(connection, events, connection)
        else:
            self._selector.modify(connection, events, connection)

    def _drop(self, connection: Connection) -> None:
        if self._connections.pop(connection) != "nothing":
            with suppress(KeyError, ValueError):  # closed already: the selector finds it by its object
                self._selector.unregister(connection)
        connection.close()

    def _send(self, connection: Connection, answer: tuple[bytes, bytes]) -> None:
        connection.send(*answer)
        self._step(connection)
        if connection.unsent_bytes:
            self._bound_unsent()

    def _bound_unsent(self) -> None:
        unsent: Counter[str] = Counter()
        for each in self._connections:
            unsent[each.address] += each.unsent_bytes
        while unsent.total() > UNSENT_BYTES_MAX:
            heaviest = max(unsent, key=lambda address: unsent[address])
            oldest = next(e for e in self._connections if e.address == heaviest and e.unsent_bytes)
            unsent[heaviest] -= oldest.unsent_bytes
            self._drop(oldest)

    # Requests

    def _dispatch(self, connection: Connection) -> None:
        if connection.is_too_large:
            refusal = plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            self._send(connection, render(refusal, is_head=False))
            return
        parsed = parse(connection.head)
        request = parsed.request
        if request is None:
            assert parsed.refusal is not None
            self._send(connection, render(parsed.refusal, is_head=parsed.is_head))
        elif self._auth is None or request.path in self._public_paths:
            self._hand_over(connection, parsed, request)
        else:
            authorization = request.headers.get("Authorization", "")
            known = self._auth.remembered(authorization)
            if known is None:
                self._in_hand += 1
                check = partial(self._check, self._auth, authorization, connection, parsed, request)
                busy = partial(self._answer, connection, parsed, _BUSY)
                self._guesses.submit(connection.address, Job(check, busy))
            elif known:
                self._hand_over(connection, parsed, request)
            else:
                self._send(connection, render(_UNAUTHORIZED, is_head=parsed.is_head))

    def _check(
        self, auth: BasicAuth, authorization: str, connection: Connection, parsed: Parsed, request: Request
    ) -> None:
        """Compute the hash of a password, in the thread for that."""
        if auth.accepts(authorization):
            self._submit(connection, parsed, request)
        else:
            self._answer(connection, parsed, _UNAUTHORIZED)

    def _hand_over(self, connection: Connection, parsed: Parsed, request: Request) -> None:
        self._in_hand += 1
        self._submit(connection, parsed, request)

    def _submit(self, connection: Connection, parsed: Parsed, request: Request) -> None:
        handler = self.handler(request.path)
        if handler is None:
            self._answer(connection, parsed, plain(HTTPStatus.NOT_FOUND))
            return
        workers = self._scrapes if request.path in self._priority_paths else self._pages
        run = partial(self._run, handler, connection, parsed, request)
        busy = partial(self._answer, connection, parsed, _BUSY)
        workers.submit(connection.address, Job(run, busy))

    def _run(self, handler: Handler, connection: Connection, parsed: Parsed, request: Request) -> None:
        """Run a handler, in a thread of its own."""
        if time.monotonic() >= connection.deadline:
            response = _BUSY  # nobody waits for it any more
        else:
            try:
                response = handler(request)
            except Exception:  # noqa: BLE001 - a page's bug must not take the thread, nor the reason, with it
                _log.exception("the answer to %s failed", ascii(request.path))
                response = plain(HTTPStatus.INTERNAL_SERVER_ERROR)
        self._answer(connection, parsed, response)

    def _answer(self, connection: Connection, parsed: Parsed, response: Response) -> None:
        """Give an answer back to the loop, from any thread."""
        try:
            answer = render(response, is_head=parsed.is_head)
        except ValueError:
            _log.exception("the headers of an answer cannot be sent")
            answer = render(plain(HTTPStatus.INTERNAL_SERVER_ERROR), is_head=parsed.is_head)
        self._answered.append((connection, answer))
        self._wake()


_BUSY = Response(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, b"too many requests now\r\n", {"Retry-After": "5"})
_UNAUTHORIZED = plain(
    HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": 'Basic realm="wok-exporter", charset="UTF-8"'}
)


def _connections_max(*, has_tls: bool) -> int:
    """Return how many connections to keep: at most half of the descriptors that the process may
    have.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX_TLS if has_tls else CONNECTIONS_MAX
    return wanted if soft == resource.RLIM_INFINITY else max(8, min(wanted, soft // 2))


def _share_of(host: str) -> str:
    """Return the key of a client's share: its address, or the /64 network for IPv6."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.version == 6 and address.ipv4_mapped is None and not address.is_loopback:
        return str(ip_network((int(address) >> 64 << 64, 64)))
    return str(address)
