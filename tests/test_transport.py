"""What is between the exporter and a backend: wrong ports, proxies, deadlines, and responses that are no HTTP."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from exporter.deliver.otlp_env import is_bypassed
from exporter.deliver.remedies import remedy_of, symptom_of
from exporter.deliver.responses import Answer
from exporter.deliver.sender import make_sender
from tests.sink import Certificates, Reply, Sink, make_certificates
from tests.test_otlp import closed_port, request

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

E = "OTEL_EXPORTER_OTLP_"


@pytest.fixture(name="certificates", scope="module")
def _certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@contextlib.contextmanager
def listening(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """Give each connection to `talk` in a thread of its own; return the port."""
    server = socket.create_server(("127.0.0.1", 0))

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            talk(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()


def saying(content: bytes) -> Callable[[socket.socket], None]:
    """Answer a request with these bytes, and hang up."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65536)

    return talk


def dripping(content: bytes, seconds: float = 0.05) -> Callable[[socket.socket], None]:
    """Answer with a byte now and then."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        for byte in content:
            connection.sendall(bytes((byte,)))
            time.sleep(seconds)

    return talk


def tunnel(connection: socket.socket) -> None:
    """An HTTP proxy that opens tunnels, to this machine whatever name is asked for."""
    head = connection.recv(65536)
    port = int(head.split(b" ")[1].rpartition(b":")[2])
    with socket.create_connection(("127.0.0.1", port)) as backend:
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")

        def copy(source: socket.socket, target: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while content := source.recv(65536):
                    target.sendall(content)
                target.shutdown(socket.SHUT_WR)

        back = threading.Thread(target=copy, args=(backend, connection), daemon=True)
        back.start()
        copy(connection, backend)
        back.join()


def send(environ: Mapping[str, str]) -> Answer:
    sender = make_sender("traces", {f"{E}TIMEOUT": "5"} | dict(environ))
    try:
        return sender.send(request())
    finally:
        sender.close()


# --- the wrong port or scheme ------------------------------------------------------------------------------

HTTP, GRPC = "http/protobuf", "grpc"


@pytest.mark.parametrize(
    ("server", "is_tls", "protocol", "scheme", "reason"),
    [
        ("http", False, HTTP, "https", "no_tls"),
        ("http", False, GRPC, "http", "needs_http"),
        ("http", False, GRPC, "https", "no_tls"),
        ("http", True, HTTP, "http", "needs_tls"),
        ("http", True, GRPC, "http", "needs_tls"),
        ("http", True, GRPC, "https", "needs_http"),
        ("grpc", False, HTTP, "http", "needs_grpc"),
        ("grpc", False, HTTP, "https", "no_tls"),
        ("grpc", False, GRPC, "https", "no_tls"),
        ("grpc", True, HTTP, "http", "needs_tls"),
        ("grpc", True, HTTP, "https", "needs_grpc"),
        ("grpc", True, GRPC, "http", "needs_tls"),
    ],
)
def test_a_wrong_port_or_scheme_is_named(
    certificates: Certificates, server: Any, is_tls: bool, protocol: str, scheme: str, reason: str
) -> None:
    """Each wrong pairing of transport and TLS with a real server is held, with the setting to change."""
    with Sink(server, certificates=certificates if is_tls else None) as sink:
        answer = send(
            {
                f"{E}ENDPOINT": f"{scheme}://127.0.0.1:{sink.port}",
                f"{E}PROTOCOL": protocol,
                f"{E}CERTIFICATE": certificates.ca,
            }
        )

    assert answer[:2] == ("config", reason)
    expected = {
        "no_tls": "http://",
        "needs_tls": "https://",
        "needs_grpc": "grpc",
        "needs_http": "http/protobuf",
    }
    assert expected[reason] in remedy_of(reason)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", ("config", "not_otlp")),
        (b"220 mail.example ESMTP\r\n", ("config", "not_otlp")),
        (
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
            ("config", "needs_tls"),
        ),
        (
            (
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 57\r\n\r\n"
                b"<html>The plain HTTP request was sent to HTTPS port</html>"
            ),
            ("config", "needs_tls"),
        ),
        (b"\x15\x03\x01\x00\x02\x02\x46", ("config", "needs_tls")),
        (bytes.fromhex("000006040000000000000500004000"), ("config", "needs_grpc")),
        (b"", ("retry", "connection")),
    ],
)
def test_what_other_programs_say_to_a_request(content: bytes, expected: tuple[str, str]) -> None:
    """Servers of other protocols are recognised by their first bytes or by their words."""
    with listening(saying(content)) as port:
        assert send({f"{E}ENDPOINT": f"http://127.0.0.1:{port}"})[:2] == expected


# --- responses that are no HTTP ----------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (OK + b"Content-Length: abc\r\n\r\n", ("config", "not_otlp")),
        (OK + b"Content-Length: -1\r\n\r\n", ("config", "not_otlp")),
        (OK + b"Content-Length: +0\r\n\r\n", ("config", "not_otlp")),
        (OK + b"Content-Length: 0, 0\r\n\r\n", ("config", "not_otlp")),
        (OK + b"Content-Length: 0\r\nContent-Length: 7\r\n\r\n", ("config", "not_otlp")),
        (OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", ("config", "not_otlp")),
        (OK + b"Content-Length: 99\r\n\r\n12", ("retry", "connection")),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", ("retry", "connection")),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", ("retry", "connection")),
        (OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", ("config", "not_otlp")),
        (OK + b"A: b\r\n" * 300 + b"\r\n", ("config", "not_otlp")),
        (OK + b"A: " + b"b" * 100_000 + b"\r\n\r\n", ("config", "not_otlp")),
        (b"HTTP/1.1 twohundred OK\r\n\r\n", ("config", "not_otlp")),
        (b"HTTP/1.1 200", ("retry", "connection")),
        (OK, ("retry", "connection")),
        (OK + b"Content-Type: text/html; charset=utf-8\r\nContent-Length: 0\r\n\r\n", ("config", "not_otlp")),
        (OK + b"Content-Type: application/xhtml+xml\r\nContent-Length: 0\r\n\r\n", ("config", "not_otlp")),
        (OK + b"Content-Type: image/png\r\nContent-Length: 0\r\n\r\n", ("config", "not_otlp")),
        (OK + b"Content-Length: 0\r\n\r\n", ("accepted", "")),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nab", ("config", "not_otlp")),
        (
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 7\r\n\r\n" * 2
            + OK
            + b"Content-Length: 0\r\n\r\n",
            ("accepted", ""),
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", ("config", "http_other")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 9 + OK + b"Content-Length: 0\r\n\r\n", ("accepted", "")),
    ],
)
def test_broken_responses(content: bytes, expected: tuple[str, str]) -> None:
    """No malformed response counts as accepted, ends the sender, or takes longer than it must."""
    begin = time.monotonic()
    with listening(saying(content)) as port:
        answer = send({f"{E}ENDPOINT": f"http://127.0.0.1:{port}"})

    assert (answer[:2], time.monotonic() - begin < 3) == (expected, True)


@pytest.mark.parametrize(
    "count",
    [
        "1e999",
        "-1e999",
        "NaN",
        "-1",
        '"-1"',
        "1.5",
        '"1e3"',
        "true",
        "[3]",
        "{}",
        '"' + "9" * 30 + '"',
        "9" * 30,
    ],
)
def test_a_count_that_is_no_number_of_items(count: str) -> None:
    """A rejected count that cannot be one is nonsense of the server's: nothing is delivered, nothing ends."""
    for name in ("rejectedSpans", "rejectedLogRecords"):
        body = b'{"partialSuccess": {"%b": %b}}' % (name.encode(), count.encode())
        reply = Reply(headers={"Content-Type": "application/json"}, body=body)
        with Sink() as sink:
            sink.script([reply])
            assert send(sink.environ())[:2] == ("config", "not_otlp")


@pytest.mark.parametrize(
    ("count", "rejected"), [('"2"', 2), ("2", 2), ("2.0", 2), ("2e0", 2), ("0", 0), ("null", 0)]
)
def test_a_count_as_json_may_write_it(count: str, rejected: int) -> None:
    """Every way in which JSON may write a count of protobuf's is understood."""
    reply = Reply(
        headers={"Content-Type": "application/json"},
        body=b'{"partialSuccess":{"rejectedSpans":%b}}' % count.encode(),
    )
    with Sink() as sink:
        sink.script([reply])
        answer = send(sink.environ())

    assert (answer.kind, answer.rejected) == ("partial" if rejected else "accepted", rejected)


# --- connections -------------------------------------------------------------------------------------------


def test_a_connection_that_was_closed_meanwhile_is_replaced() -> None:
    """A server that closes an idle connection without announcing it costs no failed request."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(OK + b"Content-Length: 0\r\n\r\n")

    with listening(talk) as port:
        sender = make_sender("traces", {f"{E}ENDPOINT": f"http://127.0.0.1:{port}"})
        answers = []
        for _ in range(5):
            answers.append(sender.send(request()))
            time.sleep(0.02)
        sender.close()

    assert answers == [Answer("accepted")] * 5


def test_connections_with_tls_are_kept(certificates: Certificates) -> None:
    """Session tickets of TLS 1.3, which come after the handshake, do not make a connection look closed."""
    with Sink(certificates=certificates) as sink:
        sender = make_sender("traces", sink.environ())
        answers = {sender.send(request()) for _ in range(5)}
        sender.close()

    assert (answers, sink.connections) == ({Answer("accepted")}, 1)


def test_an_ipv6_address_is_an_endpoint() -> None:
    """An address in brackets is connected to, and named in the Host header as it was written."""
    seen: list[bytes] = []
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 on this host")

    def answer_one() -> None:
        connection, _ = server.accept()
        with connection:
            seen.append(connection.recv(65536))
            connection.sendall(OK + b"Content-Length: 0\r\n\r\n")

    thread = threading.Thread(target=answer_one, daemon=True)
    thread.start()
    port = server.getsockname()[1]
    answer = send({f"{E}ENDPOINT": f"http://[::1]:{port}"})
    thread.join(5)
    server.close()

    assert answer == Answer("accepted")
    assert b"host: [::1]:%d\r\n" % port in seen[0]


# --- deadlines ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        OK + b"X: " + b"x" * 9999,
        OK + b"Content-Length: 9999\r\n\r\n" + b"x" * 9999,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 999,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 999,
    ],
)
def test_a_response_that_drips_ends_at_the_timeout(content: bytes) -> None:
    """However bytes arrive, in the head, in the body or as interim responses, the whole request has one deadline."""
    begin = time.monotonic()
    with listening(dripping(content)) as port:
        answer = send({f"{E}ENDPOINT": f"http://127.0.0.1:{port}", f"{E}TIMEOUT": "0.5"})

    assert answer[:2] == ("retry", "timeout")
    assert time.monotonic() - begin < 1.5


def test_a_head_and_a_body_that_are_sent_apart_cost_no_time() -> None:
    """A server whose kernel waits for our acknowledgement before it sends the body gets that at once, not after
    the 40 ms for which one may be delayed.
    """

    def talk(connection: socket.socket) -> None:
        while connection.recv(65536):
            connection.sendall(
                b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n"
            )
            connection.sendall(b"no")

    with listening(talk) as port:
        sender = make_sender("traces", {f"{E}ENDPOINT": f"http://127.0.0.1:{port}"})
        begin = time.monotonic()
        answers = {sender.send(request())[:2] for _ in range(25)}
        seconds = time.monotonic() - begin
        sender.close()

    assert answers == {("rejected", "http_400")}
    assert seconds < 0.5


def test_a_handshake_that_never_ends(certificates: Certificates) -> None:
    """A server that accepts the connection and says nothing to a TLS hello is a timeout."""
    begin = time.monotonic()
    with listening(lambda _: time.sleep(5)) as port:
        answer = send(
            {
                f"{E}ENDPOINT": f"https://127.0.0.1:{port}",
                f"{E}TIMEOUT": "0.5",
                f"{E}CERTIFICATE": certificates.ca,
            }
        )

    assert (answer[:2], time.monotonic() - begin < 1.5) == (("retry", "timeout"), True)


# --- proxies -----------------------------------------------------------------------------------------------


def test_tls_goes_through_a_tunnel(certificates: Certificates) -> None:
    """For https:// a proxy opens a tunnel, and the certificate checked is that of the backend."""
    with listening(tunnel) as port, Sink(certificates=certificates) as sink:
        environ = sink.environ(
            OTEL_EXPORTER_OTLP_ENDPOINT=f"https://localhost:{sink.port}", https_proxy=f"127.0.0.1:{port}"
        )
        answer = send(environ)
        bypassed = send(environ | {"https_proxy": f"127.0.0.1:{closed_port()}", "NO_PROXY": "localhost"})

    assert (answer, bypassed) == (Answer("accepted"), Answer("accepted"))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_credentials_of_a_proxy_are_sent_to_it(scheme: str) -> None:
    """A user and a password in the proxy's URL become Proxy-Authorization, with a tunnel and without."""
    heads: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        heads.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    with listening(talk) as port:
        answer = send(
            {
                f"{E}ENDPOINT": f"{scheme}://backend.invalid:4318",
                f"{scheme}_proxy": f"http://me:s%3Acret@127.0.0.1:{port}",
            }
        )

    assert answer[:2] == ("config", "proxy")
    assert b"\r\nproxy-authorization: Basic bWU6czpjcmV0\r\n" in heads[0]
    assert "cret" not in answer.message


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("variable", ["{}_proxy", "{}_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_dead_proxy_is_named(scheme: str, variable: str) -> None:
    """When the proxy refuses the connection, it is the proxy that is shown, and what to do about it."""
    port = closed_port()
    name = variable.format(scheme) if variable.endswith("y") else variable.format(scheme.upper())
    answer = send(
        {f"{E}ENDPOINT": f"{scheme}://backend.invalid:4318", name: f"http://u:secret@127.0.0.1:{port}"}
    )

    assert answer[:2] == ("retry", "proxy")
    assert f"http://127.0.0.1:{port}: Connection refused" in answer.message
    assert "proxy" in symptom_of("proxy")
    assert "NO_PROXY" in remedy_of("proxy")


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4", "https"])
def test_a_proxy_that_is_not_supported_is_named(scheme: str) -> None:
    """A SOCKS proxy is held with its name, not bypassed and not taken for an outage of the backend."""
    answer = send(
        {f"{E}ENDPOINT": "http://127.0.0.1:4318", "ALL_PROXY": f"{scheme}://me:secret@127.0.0.1:1080"}
    )

    assert answer[:2] == ("config", "proxy")
    assert f"{scheme}://127.0.0.1:1080" in answer.message
    assert "secret" not in answer.message
    assert "SOCKS" in remedy_of("proxy")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(b"407 No", "config"), (b"403 No", "config"), (b"502 Bad", "retry"), (b"504 Late", "retry")],
)
def test_a_proxy_that_opens_no_tunnel(status: bytes, kind: str) -> None:
    """A proxy's refusal of CONNECT is told as such: held where somebody must act, else retried."""
    with listening(saying(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")) as port:
        answer = send(
            {f"{E}ENDPOINT": "https://backend.invalid:4318", "https_proxy": f"http://127.0.0.1:{port}"}
        )

    assert answer[:2] == (kind, "proxy")
    assert f"HTTP {status.decode()}" in answer.message


@pytest.mark.parametrize(
    "content", [b"HTTP/1.1 200 OK\r\nX: " + b"x" * 9999, b"HTTP/1.1 100 C\r\n\r\n" * 999]
)
def test_a_proxy_that_drips_its_answer_to_connect(content: bytes) -> None:
    """The deadline of the request holds for the tunnel as well, and the proxy is named."""
    begin = time.monotonic()
    with listening(dripping(content)) as port:
        answer = send(
            {
                f"{E}ENDPOINT": "https://backend.invalid:4318",
                f"{E}TIMEOUT": "0.5",
                "https_proxy": f"http://127.0.0.1:{port}",
            }
        )

    assert (answer[:2], time.monotonic() - begin < 1.5) == (("retry", "proxy"), True)


def test_a_dead_proxy_of_grpc_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """GRPC finds its proxy by itself; the failure names the proxy all the same."""
    proxy = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("grpc_proxy", proxy)
    answer = send(
        {f"{E}ENDPOINT": "http://backend.invalid:4317", f"{E}PROTOCOL": "grpc", "grpc_proxy": proxy}
    )

    assert answer[:2] == ("retry", "proxy")
    assert f"through the proxy {proxy}" in answer.message


def test_a_variable_that_grpc_does_not_read_is_not_blamed() -> None:
    """GRPC knows proxies by their lower-case names alone: another variable is no reason for a refusal."""
    environ = {
        f"{E}ENDPOINT": f"http://127.0.0.1:{closed_port()}",
        f"{E}PROTOCOL": "grpc",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "ALL_PROXY": "socks5://127.0.0.1:9",
    }

    assert send(environ)[:2] == ("retry", "refused_connection")


@pytest.mark.parametrize(
    ("host", "port", "no_proxy", "expected"),
    [
        ("backend.example.org", 4318, "example.org", True),
        ("backend.example.org", 4318, ".example.org", True),
        ("backend.example.org", 4318, "*.example.org", True),
        ("example.org", None, ".example.org", True),
        ("badexample.org", None, "example.org", False),
        ("backend", 4318, "other, BACKEND", True),
        ("backend", 4318, "backend:4318", True),
        ("backend", 4318, "backend:80", False),
        ("10.1.2.3", 4318, "10.0.0.0/8", True),
        ("10.1.2.3", 4318, "10.1.2.3", True),
        ("11.1.2.3", 4318, "10.0.0.0/8", False),
        ("fd00::1", 4318, "fd00::/8", True),
        ("::1", 4318, "::1", True),
        ("backend", 4318, "*", True),
        ("backend", 4318, "", False),
        ("backend", 4318, ",, ,", False),
    ],
)
def test_no_proxy(host: str, port: int | None, no_proxy: str, expected: bool) -> None:
    """NO_PROXY excepts domains, hosts with ports, addresses and networks, and nothing that only looks like them."""
    assert is_bypassed(host, port, no_proxy) is expected


# --- certificates ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_renewed_ca_is_taken_without_a_reload(protocol: Any, tmp_path: Path) -> None:
    """When the backend comes back with a certificate of another CA, the sender reads the renewed file by itself."""
    here = make_certificates(tmp_path / "old")
    with Sink(protocol, certificates=here) as sink:
        sink.script([Reply(headers={"Connection": "close"})])
        sender = make_sender("traces", sink.environ(OTEL_EXPORTER_OTLP_TIMEOUT="5"))
        before, port = sender.send(request()), sink.port
    renewed = make_certificates(tmp_path / "new")
    with Sink(protocol, certificates=renewed, port=port):
        between = sender.send(request())
        (tmp_path / "new" / "ca.pem").replace(here.ca)
        answers = [sender.send(request()) for _ in range(2)]
    sender.close()

    assert (before, between.kind, answers[-1]) == (Answer("accepted"), "retry", Answer("accepted"))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_ca_that_is_gone_is_said(protocol: Any, certificates: Certificates, tmp_path: Path) -> None:
    """A file of certificates that disappears after the start is held and named; it does not end the sender."""
    authority = tmp_path / "ca.pem"
    shutil.copy(certificates.ca, authority)
    with Sink(protocol, certificates=certificates) as sink:
        sender = make_sender("traces", sink.environ(OTEL_EXPORTER_OTLP_CERTIFICATE=str(authority)))
        authority.unlink()
        gone = sender.send(request())
        shutil.copy(certificates.ca, authority)
        back = sender.send(request())
        sender.close()

    assert (gone[:2], back) == (("config", "request"), Answer("accepted"))
