"""The OTEL_* variables: what cannot be sent is refused at the start, and no secret is printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.deliver.grpc import GrpcSender
from exporter.deliver.http import HttpSender
from exporter.deliver.otlp_env import OtlpConfigError, read_settings
from exporter.deliver.responses import Answer
from exporter.deliver.sender import make_sender
from tests.sink import Sink
from tests.test_otlp import request

ROOT = Path(__file__).parents[1]
E = "OTEL_EXPORTER_OTLP_"
SECRET = "s3cr3t-t0ken"


def settings_of(headers: str, protocol: str = "http/protobuf") -> tuple[tuple[str, str], ...]:
    environ = {f"{E}ENDPOINT": "http://127.0.0.1:4318", f"{E}PROTOCOL": protocol, f"{E}HEADERS": headers}
    return read_settings("traces", environ).headers


UNSENDABLE = [
    (f'"Authorization=Bearer {SECRET}"', "quotes"),
    (f"'Authorization=Bearer {SECRET}'", "quotes"),
    (f'Authorization="Bearer {SECRET}"', "quotes"),
    (f"Authorization='Bearer {SECRET}'", "quotes"),
    (f'x-ok=1,"Authorization=Bearer {SECRET}"', "header 2"),
    (f"Authorization=Bearer {SECRET};x-scope-orgid=1", "semicolon"),
    (f"a=1;b={SECRET}", "semicolon"),
    (f"Authorization=Bearer {SECRET}\u00e9", "printable ASCII"),
    (f"Authorization=Bearer {SECRET}%C3%A9", "printable ASCII"),
    (f"Authorization=Bearer {SECRET}%FF", "printable ASCII"),
    (f"x-t\u00f6ken={SECRET}", "name"),
    (f"x token={SECRET}", "name"),
    (f"x:token={SECRET}", "name"),
    (f"x%0Atoken={SECRET}", "name"),
    (f"Authorization=Bearer {SECRET}%0D%0AX-Other: 1", "control"),
    (f"Authorization=Bearer%00{SECRET}", "control"),
    (f"Authorization=Bearer {SECRET}\ttab", "control"),
    (f"Authorization: Bearer {SECRET}", "name=value"),
    (SECRET, "name=value"),
    (f"={SECRET}", "name=value"),
    (f"Authorization=Basic abc,{SECRET}", "header 2"),
    (f"Content-Length={SECRET}", "sets itself"),
    (f"transfer-encoding={SECRET}", "sets itself"),
    (f"Content-Type={SECRET}", "sets itself"),
]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize(("headers", "words"), UNSENDABLE)
def test_headers_that_cannot_be_sent(headers: str, words: str, protocol: str) -> None:
    """Each is refused with the variable, its place in the list and the reason, and without its value."""
    with pytest.raises(OtlpConfigError) as caught:
        settings_of(headers, protocol)

    text = str(caught.value)
    assert text.startswith(f"{E}HEADERS: header ")
    assert words in text
    assert SECRET not in text
    assert text.isprintable()


@pytest.mark.parametrize("name", ["x-data-bin", "X-Data-BIN", "grpc-timeout", "x!y", "x~", "a&b"])
def test_headers_that_grpc_cannot_send(name: str) -> None:
    """Names that gRPC keeps for bytes or for itself, or does not know the letters of, are refused for gRPC alone."""
    with pytest.raises(OtlpConfigError, match="gRPC") as caught:
        settings_of(f"{name}={SECRET}", "grpc")

    assert SECRET not in str(caught.value)
    assert settings_of(f"{name}={SECRET}") == ((name.lower(), SECRET),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        (" , ,", ()),
        ("a=", (("a", ""),)),
        ("A=1, b = 2 ,a=3", (("a", "3"), ("b", "2"))),
        ("authorization=Basic%20YTpi", (("authorization", "Basic YTpi"),)),
        ("authorization=Bearer a.b-c==", (("authorization", "Bearer a.b-c=="),)),
        ('x=a"b', (("x", 'a"b'),)),
        ("x=%22quoted%22,y=a%2Cb%3Bc", (("x", '"quoted"'), ("y", "a,b;c"))),
    ],
)
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_headers_that_arrive(text: str, expected: tuple[tuple[str, str], ...], protocol: str) -> None:
    """Whatever is not refused arrives at a real receiver as it was meant, over either protocol."""
    with Sink(protocol) as sink:  # type: ignore[arg-type]
        sender = make_sender("traces", sink.environ(OTEL_EXPORTER_OTLP_HEADERS=text))
        answer = sender.send(request())
        sender.close()
        seen = sink.requests[0].headers

    assert answer == Answer("accepted")
    assert expected == tuple((name, seen[name]) for name, _ in expected)


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
    value=st.text(max_size=20),
)
def test_any_headers_are_refused_or_can_be_sent(text: str, value: str) -> None:
    """Whatever the variable holds, the start refuses it or makes a request of it that is one line a header."""
    environ = {f"{E}ENDPOINT": "http://127.0.0.1:4318", f"{E}HEADERS": f"{text}={value}"}
    try:
        found = read_settings("traces", environ)
    except OtlpConfigError as error:
        assert str(error).isprintable()  # noqa: PT017
        return
    head = HttpSender(found)._head
    names = [line.partition(b":")[0] for line in head.split(b"\r\n")[1:]]
    assert b"\n" not in head.replace(b"\r\n", b"")
    assert len(names) == len(set(names))
    assert names[-1] == b"content-length"


@pytest.mark.parametrize(
    ("headers", "protocol"), [(UNSENDABLE[0][0], "http/protobuf"), (f"x-bin={SECRET}", "grpc")]
)
def test_the_program_refuses_them_without_a_word_of_the_secret(
    headers: str, protocol: str, tmp_path: Path
) -> None:
    """`run --check-config` and `run` end with 2 and one sentence; nothing on either stream has the secret."""
    log = tmp_path / "user-requests.data"
    log.touch()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environ |= {f"{E}ENDPOINT": "http://127.0.0.1:9", f"{E}PROTOCOL": protocol, f"{E}HEADERS": headers}
    for more in (["--check-config"], []):
        command = [
            sys.executable,
            "-m",
            "exporter",
            "run",
            "--log",
            str(log),
            "--state",
            str(tmp_path / "state"),
        ]
        command += more
        done = subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=30
        )
        assert (done.returncode, SECRET in done.stdout + done.stderr) == (2, False)
        assert f"{E}HEADERS: header 1 of the list" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://",
        "http://a b:4318",
        "http://a:0",
        "http://a:99999",
        "http://[::1",
        "http://a\n.b",
        "http://\u2028:1",
        "//a",
    ],
)
def test_endpoints_that_are_no_address(endpoint: str) -> None:
    """An endpoint that cannot be connected to is refused at the start, in one line."""
    with pytest.raises(OtlpConfigError, match="must be http://host:port") as caught:
        read_settings("traces", {f"{E}ENDPOINT": endpoint})

    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "endpoint",
    [
        f"ftp://me:{SECRET}@host",
        f"me:{SECRET}@host:4318",
        f"https//me:{SECRET}@host",
        f"http:/me:{SECRET}@host",
        f"http://me:{SECRET}@ho st:4318",
        f"http://me:{SECRET}@:0",
        f"http//host/?key={SECRET}",
    ],
)
def test_a_secret_in_a_mistaken_endpoint(endpoint: str) -> None:
    """Wherever a typing error stands, user, password and query of an endpoint are not printed."""
    with pytest.raises(OtlpConfigError) as caught:
        read_settings("traces", {f"{E}ENDPOINT": endpoint})

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "proxy",
    [
        "http://",
        "http://[::1",
        "http://a:99999",
        f"http://me:{SECRET}@:1",
        f"me:{SECRET}@a b:1",
        "http://a:0",
    ],
)
def test_a_proxy_that_is_no_address(proxy: str) -> None:
    """A proxy that cannot be connected to is refused at the start, without its password."""
    environ = {f"{E}ENDPOINT": "http://backend:4318", "HTTP_PROXY": proxy}
    with pytest.raises(OtlpConfigError, match="the proxy for http://backend:4318") as caught:
        read_settings("traces", environ)

    assert SECRET not in str(caught.value)
    assert read_settings("traces", environ | {"NO_PROXY": "backend"}).proxy == ""


URLS = st.one_of(
    st.text(max_size=30),
    st.builds("{}{}{}".format, st.sampled_from(["http://", "https://", "HTTP://", "//", ""]), st.text(max_size=20),
              st.sampled_from(["", ":1", ":0", ":x", "/a?b#c", "@h", "]"])),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    endpoint=URLS,
    proxy=URLS,
    no_proxy=st.text(max_size=20),
    protocol=st.sampled_from(["http/protobuf", "grpc"]),
)
def test_any_address_is_refused_or_can_be_asked(
    endpoint: str, proxy: str, no_proxy: str, protocol: str
) -> None:
    """Whatever endpoint and proxy hold, the start refuses them in one line or makes a sender of them."""
    environ = {f"{E}ENDPOINT": endpoint, f"{E}PROTOCOL": protocol, "http_proxy": proxy, "https_proxy": proxy}
    try:
        found = read_settings("traces", environ | {"no_proxy": no_proxy})
    except OtlpConfigError as error:
        assert str(error).isprintable()  # noqa: PT017
        return
    sender = HttpSender(found) if protocol != "grpc" else GrpcSender(found)
    assert sender.endpoint.isprintable()
    if isinstance(sender, HttpSender):
        assert sender._head.count(b"\r\n") == len(sender._head.splitlines()) - 1


@pytest.mark.parametrize("option", ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"])
def test_a_pipe_instead_of_a_certificate(option: str, tmp_path: Path) -> None:
    """A FIFO would hold up the start for ever: it is refused."""
    os.mkfifo(tmp_path / "pipe")
    environ = {f"{E}ENDPOINT": "http://a:1", f"{E}{option}": str(tmp_path / "pipe")}

    with pytest.raises(OtlpConfigError, match="regular file"):
        read_settings("traces", environ)
