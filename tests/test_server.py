"""The HTTP server over real sockets, with clients that behave and clients that do not."""

from __future__ import annotations

import base64
import http.client
import logging
import resource
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from exporter.http import auth as auth_module
from exporter.http import head as head_module
from exporter.http import server as server_module
from exporter.http.auth import BasicAuth, hash_password
from exporter.http.cross_site import for_own_site
from exporter.http.host_check import HostCheck, readyz_for_hosts
from exporter.http.routes import Handler, Request, Response, healthz_handler, plain
from exporter.http.server import Server, ServerError, Tls

HOST = "127.0.0.1"


def echo(request: Request) -> Response:
    """Say what was asked."""
    said = f"{request.method} {request.path} {sorted(request.query.items())} {request.headers.get('x-Test', '-')}"
    return Response(200, "text/plain", said.encode(), {"X-Own": "yes"})


def fail(request: Request) -> Response:
    """A page with a bug."""
    raise RuntimeError("a secret of the page")


ROUTES: Mapping[str, Handler] = {
    "/echo": echo,
    "/fail": fail,
    "/healthz": healthz_handler(),
    "/big": lambda _: Response(200, "text/plain", b"x" * 20_000_000),
}


@contextmanager
def serving(routes: Mapping[str, Handler] = ROUTES, **options: Any) -> Iterator[Server]:
    """A server on a free port, answering in a thread."""
    server = Server(HOST, 0, routes, **options)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(timeout=10)
        assert not thread.is_alive()


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    """A plain connection to the server."""
    with socket.create_connection((HOST, server.port), timeout=10) as connection:
        yield connection


def exchange(server: Server, sent: bytes) -> bytes:
    """All that is answered to some bytes."""
    with connected(server) as connection:
        connection.sendall(sent)
        return received(connection)


def received(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def get(
    server: Server, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> tuple[int, str, http.client.HTTPMessage]:
    """Ask as any client does."""
    client = http.client.HTTPConnection(HOST, server.port, timeout=10)
    try:
        client.request(method, path, headers=dict(headers or {}))
        answer = client.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        client.close()


@pytest.fixture(name="server")
def _server() -> Iterator[Server]:
    with serving() as server:
        yield server


def test_request_reaches_its_handler(server: Server) -> None:
    """A handler gets method, path, decoded query and headers; its answer comes back whole."""
    status, body, headers = get(
        server,
        "/echo?name[]=a&name[]=b%20c&empty=",
        headers={"X-TEST": "ö".encode("latin-1").decode("latin-1")},
    )

    assert (status, body) == (200, "GET /echo [('empty', ['']), ('name[]', ['a', 'b c'])] ö")
    assert dict(headers) == {
        "Content-Type": "text/plain",
        "Content-Length": str(len(body.encode())),
        "Cache-Control": "no-store",
        **head_module.SECURITY_HEADERS,
        "Connection": "close",
        "X-Own": "yes",
    }


def test_head_has_headers_only(server: Server) -> None:
    """HEAD is answered like GET, without the body."""
    answer = exchange(server, b"HEAD /echo HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 15" in head
    assert body == b""


@pytest.mark.parametrize("path", ["/", "/metrics", "/echo/", "/Echo", "/../echo", "//echo/x", "*"])
def test_unknown_paths(server: Server, path: str) -> None:
    """What is not in the table does not exist."""
    assert get(server, path)[:2] == (404, "not found\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"])
def test_other_methods(server: Server, method: str) -> None:
    """Only GET and HEAD are allowed, and the answer says so."""
    status, body, headers = get(server, "/echo", method)

    assert (status, body, headers["Allow"]) == (405, "method not allowed\n", "GET, HEAD")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET /echo HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n", 431),
        (b"GET /echo HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET /echo?" + b"a&" * 500 + b" HTTP/1.1\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (b"GET /echo HTTP/9.1\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1 x\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nHost: localhost\r\nHost: other.example\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nhost: localhost\r\nA: b\r\nHOST: localhost\r\n\r\n", 400),
        (b"GET http://other.example/echo HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET http://localhost@other.example/echo HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET http://localhost:1/echo HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET HTTP://other.example/echo HTTP/1.0\r\n\r\n", 400),
        (b"GET http://LocalHost/echo HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET //other.example/echo HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /echo HTTP/1.1\r\nAuthorization: Basic YTpi\r\nAuthorization: Basic YTpj\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Site: none\r\n\r\n", 400),
    ],
)
def test_bad_requests(server: Server, sent: bytes, status: int) -> None:
    """Oversized and malformed requests, and those for another host, get a short refusal, and the
    server lives on.
    """
    answer = exchange(server, sent)

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Python" not in answer
    assert get(server, "/healthz")[:2] == (200, "ok\n")


def test_failing_handler(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A page's bug is a 500 without its words; the log has them."""
    caplog.set_level(logging.ERROR)

    assert get(server, "/fail")[:2] == (500, "internal server error\n")
    assert "a secret of the page" in caplog.text


def test_readyz() -> None:
    """Readiness is 200, or 503 with one line for each problem; under a foreign name without their words."""
    problems: list[str] = []
    hosts = HostCheck(HOST)
    with serving({"/readyz": readyz_for_hosts(lambda: problems, hosts)}) as server:
        foreign = {"Host": "rebound.example"}
        assert get(server, "/readyz")[:2] == (200, "ready\n")
        assert get(server, "/readyz", headers=foreign)[:2] == (200, "ready\n")

        problems += ["the log\ncannot be read", "behind \ud800"]

        assert get(server, "/readyz")[:2] == (503, "the log cannot be read\nbehind ?\n")
        status, body, _ = get(server, "/readyz", headers=foreign)
        assert (status, "log" in body) == (503, False)


@pytest.mark.parametrize(
    ("site", "mode", "dest", "linked", "page"),
    [
        ("", "", "", 200, 200),
        ("same-origin", "cors", "empty", 200, 200),
        ("none", "navigate", "document", 200, 200),
        ("cross-site", "navigate", "document", 200, 403),
        ("same-site", "navigate", "document", 200, 403),
        ("cross-site", "no-cors", "image", 403, 403),
        ("cross-site", "navigate", "iframe", 403, 403),
        ("same-site", "cors", "empty", 403, 403),
        ("Cross-Site", "cors", "empty", 403, 403),
        ("made-up", "cors", "empty", 403, 403),
    ],
)
def test_requests_of_other_sites(site: str, mode: str, dest: str, linked: int, page: int) -> None:
    """What another site makes a browser ask for is refused, but links to a page may be followed."""
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
    routes = for_own_site({"/linked": ROUTES["/echo"]}, linked=True)
    routes |= for_own_site({"/page": ROUTES["/echo"]}, linked=False)
    with serving(routes) as server:
        given = {name: value for name, value in headers.items() if value}
        assert [get(server, path, headers=given)[0] for path in ("/linked", "/page")] == [linked, page]


def test_silent_clients_block_nobody() -> None:
    """Clients that connect and say nothing hold a thread each, not the server."""
    with serving(threads_max=5) as server, connected(server), connected(server), connected(server):
        for _ in range(5):
            assert get(server, "/healthz")[:2] == (200, "ok\n")


def test_slow_clients_are_closed() -> None:
    """A client that sends a byte now and then, or nothing, is closed at its deadline, without an answer."""
    with serving(exchange_seconds=0.3) as server:
        with connected(server) as silent, connected(server) as slow:
            dripping = threading.Event()

            def drip() -> None:
                while not dripping.wait(0.05):
                    try:
                        slow.send(b"G")
                    except OSError:
                        return

            thread = threading.Thread(target=drip)
            thread.start()
            closed = [_is_closed(silent), _is_closed(slow)]
            dripping.set()
            thread.join()

        assert closed == [True, True]
        assert get(server, "/healthz")[0] == 200


def _is_closed(connection: socket.socket) -> bool:
    return _rest(connection) == b""


def _rest(connection: socket.socket) -> bytes:
    try:
        return received(connection)
    except ConnectionResetError:
        return b""


def test_slow_readers_are_closed() -> None:
    """A client that does not read its answer gives its thread back at the deadline."""
    with serving(exchange_seconds=0.3, threads_max=1) as server, connected(server) as slow:
        slow.sendall(b"GET /big HTTP/1.1\r\n\r\n")
        statuses = Counter(
            get(server, "/healthz")[0] for _ in _until(lambda: get(server, "/healthz")[0] == 200)
        )

        assert set(statuses) <= {200, 503}
        assert get(server, "/healthz")[0] == 200


def _until(is_so: Callable[[], bool]) -> Iterator[None]:
    waiting = threading.Event()
    for _ in range(100):
        if is_so():
            return
        waiting.wait(0.05)
        yield
    raise AssertionError("never")


def test_beyond_the_thread_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all threads taken some requests wait; the others are answered with 503 at once."""
    monkeypatch.setattr(server_module, "WAITING_MAX", 2)
    entered, leave = threading.Event(), threading.Event()

    def wait(_: Request) -> Response:
        entered.set()
        leave.wait(10)
        return Response(200, "text/plain", b"late")

    with serving({"/wait": wait}, threads_max=1) as server, ThreadPoolExecutor(3) as pool:
        first = pool.submit(get, server, "/wait")
        entered.wait(10)
        queued = [pool.submit(get, server, "/wait") for _ in range(2)]
        for _ in _until(lambda: len(server._pages._waiting) == 2):
            pass
        refused = [get(server, "/wait") for _ in range(5)]
        leave.set()

        assert [each.result()[:2] for each in (first, *queued)] == [(200, "late")] * 3

    assert [(status, body) for status, body, _ in refused] == [(503, "too many requests now\r\n")] * 5
    assert refused[0][2]["Retry-After"] == "5"


def test_scrapes_pass_slow_pages() -> None:
    """While all threads of pages are busy, and many requests wait for them, a scrape is answered at once."""
    leave = threading.Event()

    def wait(_: Request) -> Response:
        leave.wait(10)
        return plain(HTTPStatus.OK)

    routes = {"/page": wait, "/metrics": lambda _: plain(HTTPStatus.OK)}
    with serving(routes, threads_max=2) as server, ThreadPoolExecutor(20) as pool:
        pages = [pool.submit(get, server, "/page") for _ in range(20)]
        for _ in _until(lambda: len(server._pages._waiting) == 18):
            pass
        begin = time.monotonic()

        assert get(server, "/metrics")[0] == 200
        assert time.monotonic() - begin < 1
        leave.set()
        assert {page.result()[0] for page in pages} == {200}


@pytest.fixture(name="many_descriptors")
def _many_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 4000:
        pytest.skip("a thousand clients need more file descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _scrape_seconds(server: Server, headers: Mapping[str, str] | None = None) -> list[float]:
    seconds = []
    for _ in range(5):
        begin = time.monotonic()
        assert get(server, "/metrics", headers=headers)[0] == 200
        seconds.append(time.monotonic() - begin)
    return seconds


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("sent", [b"", b"GET /metrics HT", b"GET /page HTTP/1.1\r\n\r\n"])
def test_a_scrape_beside_a_thousand_clients(sent: bytes) -> None:
    """1,000 clients of one address that are silent, stop within a head, or do not read: scrapes take under 1 s."""
    page = b"x" * 8_000_000
    routes = {
        "/metrics": lambda _: Response(200, "text/plain", b"wok 1\n" * 1000),
        "/page": lambda _: Response(200, "text/plain", page),
    }
    with serving(routes) as server, ExitStack() as stack:
        for _ in range(1000):
            client = stack.enter_context(socket.create_connection((HOST, server.port), timeout=10))
            with suppress(OSError):
                client.sendall(sent)

        assert max(_scrape_seconds(server)) < 1
        assert len(server._connections) <= server_module.CONNECTIONS_MAX


@pytest.mark.usefixtures("many_descriptors")
def test_a_scrape_over_tls_beside_silent_clients(tmp_path: Path) -> None:
    """1,000 clients that never begin their TLS handshake do not keep a scrape away."""
    with serving(tls=certificate(tmp_path, "one")) as server, ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(socket.create_connection((HOST, server.port), timeout=10))
        begin = time.monotonic()

        assert secure(server, "/healthz") == (200, "CN=one")
        assert time.monotonic() - begin < 1


def test_a_scrape_beside_guessed_passwords(tmp_path: Path) -> None:
    """Clients that guess a new password each time wait for one thread; who is known does not wait for it."""
    file = tmp_path / "auth"
    file.write_text(f"ada:{hash_password('secret')}")
    over = threading.Event()

    def guess(server: Server, client: int) -> Counter[int]:
        statuses: Counter[int] = Counter()
        while not over.is_set():
            with suppress(OSError, http.client.HTTPException):
                statuses[get(server, "/metrics", headers=basic(f"ada:{client}.{statuses.total()}"))[0]] += 1
        return statuses

    routes = {"/metrics": lambda _: plain(HTTPStatus.OK)}
    with serving(routes, auth=BasicAuth.load(file)) as server, ThreadPoolExecutor(50) as pool:
        assert get(server, "/metrics", headers=basic("ada:secret"))[0] == 200
        guesses = [pool.submit(guess, server, client) for client in range(50)]
        for _ in _until(lambda: len(server._guesses._waiting) > 10):
            pass
        seconds = _scrape_seconds(server, basic("ada:secret"))
        over.set()
        statuses: Counter[int] = Counter()
        for each in guesses:
            statuses += each.result()

    assert max(seconds) < 1
    assert set(statuses) == {401, 503}


def basic(credentials: str) -> dict[str, str]:
    """The header of a user and a password."""
    return {"Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}


def test_a_page_under_way_is_finished_at_the_end() -> None:
    """Closing stops listening at once, and gives an answer that is under way its time."""
    entered = threading.Event()

    def slow(_: Request) -> Response:
        entered.set()
        time.sleep(0.5)
        return Response(200, "text/plain", b"whole")

    with serving({"/slow": slow}) as server, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(get, server, "/slow")
        entered.wait(10)
        server.close()

        assert answer.result()[:2] == (200, "whole")


def test_thousand_scrapes_at_once() -> None:
    """A thousand scrapes from fifty clients at once are each answered, with 200 or 503, by at most 16 threads."""
    together, busiest = [0], [0]
    lock = threading.Lock()

    def page(_: Request) -> Response:
        with lock:
            together[0] += 1
            busiest[0] = max(busiest[0], together[0])
        body = "".join(f'wok_x{{n="{n}"}} 1\n' for n in range(200)).encode()
        with lock:
            together[0] -= 1
        return Response(200, "text/plain", body)

    with serving({"/metrics": page}) as server, ThreadPoolExecutor(50) as pool:
        statuses = Counter(pool.map(lambda _: get(server, "/metrics")[0], range(1000)))

    assert set(statuses) <= {200, 503}
    assert statuses.total() == 1000
    assert statuses[200] > 100
    assert busiest[0] <= server_module.PRIORITY_THREADS


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system refuses a thread the client gets 503, and the slot is free again."""
    with serving(threads_max=1) as server:
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        refused = get(server, "/healthz")[0]
        monkeypatch.setattr(threading.Thread, "start", start)

        assert (refused, get(server, "/healthz")[0]) == (503, 200)


def certificate(directory: Path, name: str) -> Tls:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    directory.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    tls = Tls(directory / "certificate.pem", directory / "key.pem")
    tls.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    tls.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return tls


def secure(server: Server, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Ask over TLS; return the status and the name in the server's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    client = http.client.HTTPSConnection(HOST, server.port, timeout=10, context=context)
    try:
        client.request("GET", path, headers=dict(headers or {}))
        assert isinstance(client.sock, ssl.SSLSocket)
        presented = client.sock.getpeercert(binary_form=True)
        status = client.getresponse().status
    finally:
        client.close()
    assert presented is not None
    name = x509.load_der_x509_certificate(presented).subject.rfc4514_string()
    return status, name


def test_tls(tmp_path: Path) -> None:
    """TLS answers; a client that is silent or speaks plain HTTP stops neither it nor anybody else."""
    with (
        serving(tls=certificate(tmp_path, "one"), exchange_seconds=1) as server,
        connected(server),
        connected(server) as plain,
    ):
        plain.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")

        assert b"200" not in _rest(plain)
        assert secure(server, "/healthz") == (200, "CN=one")


def test_tls_over_the_thread_limit(tmp_path: Path) -> None:
    """Beyond the thread limit a TLS client is closed, and the server goes on."""
    with serving(tls=certificate(tmp_path, "one"), threads_max=1, exchange_seconds=0.5) as server:
        with connected(server) as silent, connected(server) as refused:
            assert _is_closed(refused)
            assert _is_closed(silent)

        def is_free() -> bool:
            with suppress(OSError):
                return secure(server, "/healthz")[0] == 200
            return False

        for _ in _until(is_free):
            pass


def test_renewed_certificate_is_taken(tmp_path: Path) -> None:
    """A renewed certificate is used from the next connection on; a broken one leaves the old in place."""
    tls = certificate(tmp_path, "one")
    with serving(tls=tls) as server:
        names = [secure(server, "/healthz")[1]]
        certificate(tmp_path, "two")
        names.append(secure(server, "/healthz")[1])
        tls.certificate.write_text("broken")
        names.append(secure(server, "/healthz")[1])
        tls.key.unlink()
        names.append(secure(server, "/healthz")[1])

    assert names == ["CN=one", "CN=two", "CN=two", "CN=two"]


def test_unusable_certificate(tmp_path: Path) -> None:
    """A certificate that is missing, no PEM, or not the key's names the keys of the configuration."""
    one, two = certificate(tmp_path / "one", "one"), certificate(tmp_path / "two", "two")
    broken = tmp_path / "broken.pem"
    broken.write_text("broken")
    for tls in (
        Tls(tmp_path / "missing", one.key),
        Tls(broken, one.key),
        Tls(one.certificate, two.key),
    ):
        with pytest.raises(ServerError, match="set `tls_certificate` and `tls_key`"):
            Server(HOST, 0, ROUTES, tls=tls)


def test_auth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a password file every path asks for it, known or not, except the public ones."""
    monkeypatch.setattr(auth_module, "SCRYPT_N", 16)
    file = tmp_path / "auth"
    file.write_text(f"ada:{hash_password('secret')}")
    right, wrong = (
        {"Authorization": f"Basic {base64.b64encode(f'ada:{password}'.encode()).decode()}"}
        for password in ("secret", "guess")
    )
    with serving(auth=BasicAuth.load(file), public_paths=["/healthz"]) as server:
        refused = get(server, "/echo", headers=wrong)

        assert refused[:2] == (401, "unauthorized\n")
        assert refused[2]["WWW-Authenticate"] == 'Basic realm="wok-exporter", charset="UTF-8"'
        assert [get(server, path)[0] for path in ("/echo", "/unknown", "/healthz")] == [401, 401, 200]
        assert [get(server, path, headers=right)[0] for path in ("/echo", "/unknown")] == [200, 404]


def test_address_in_use(server: Server) -> None:
    """Two servers on one port: the second says which key of the configuration to change."""
    with pytest.raises(
        ServerError, match=rf"^cannot listen on 127\.0\.0\.1:{server.port}: .*set `listen` to another port$"
    ):
        Server(HOST, server.port, ROUTES)


@pytest.mark.parametrize(
    ("host", "port"), [("192.0.2.1", 0), ("no.such.host.invalid", 0), (HOST, 70_000), (HOST, -1)]
)
def test_impossible_address(host: str, port: int) -> None:
    """An address that is not this host's, no address, or no port is refused with the key's name."""
    with pytest.raises(ServerError, match="set `listen` to an address of this host and a port"):
        Server(host, port, ROUTES)


def test_ipv6() -> None:
    """An IPv6 address works where the host has it."""
    try:
        server = Server("::1", 0, ROUTES)
    except ServerError:
        pytest.skip("no IPv6 here")
    server.close()

    assert server.address_family == socket.AF_INET6


def test_closing_before_serving() -> None:
    """A server that never served can be closed, and a closed one's port is free."""
    server = Server(HOST, 0, ROUTES)
    port = server.port
    server.close()
    Server(HOST, port, ROUTES).close()


def test_no_descriptors_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without file descriptors accepting pauses instead of spinning, and goes on when there are some again."""
    with serving() as server:
        pauses: list[float] = []
        accept, wait = socket.socket.accept, server._closing.wait

        def pause(seconds: float) -> bool:
            pauses.append(seconds)
            if len(pauses) == 3:
                monkeypatch.setattr(socket.socket, "accept", accept)
            return wait(0)

        def exhausted(_: socket.socket) -> tuple[socket.socket, Any]:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(server._closing, "wait", pause)
        monkeypatch.setattr(socket.socket, "accept", exhausted)

        assert get(server, "/healthz")[:2] == (200, "ok\n")
        assert pauses == [server_module.ACCEPT_PAUSE_SECONDS] * 3
