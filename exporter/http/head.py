"""The head of a request (request line and headers) from its bytes, and the head of an answer as
bytes.
"""

from __future__ import annotations

import io
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from exporter.http.routes import Request, Response, plain

REQUEST_BYTES_MAX = 16 * 1024
"""Request line and headers; Prometheus sends half a kilobyte, a browser with cookies two."""

QUERY_FIELDS_MAX = 100

DECIDING_HEADERS = ("Host", "Authorization", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest")
"""Headers that decide who may read what. A proxy and this server could each believe another one of
two, so a request with two is malformed. Source for Host: RFC 9112, 3.2.
"""

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""For every answer: its content comes from a log that anybody can write into."""

_LINE_BREAKS = (b"\r\n\r\n", b"\n\n", b"\n\r\n")


class Parsed(NamedTuple):
    """A request, or the answer to one that is malformed; `is_head` when the answer has no body."""

    request: Request | None
    refusal: Response | None
    is_head: bool


def is_complete(data: bytes | bytearray) -> bool:
    """Return whether the head has ended, with an empty line."""
    return any(end in data for end in _LINE_BREAKS)


def parse(data: bytes) -> Parsed:
    """Return the request, or the answer that rejects it: 400, 405, 431, 505."""
    head = _Head(data)
    if head.code is not None:
        return Parsed(None, plain(head.code), is_head=False)
    is_head = head.command == "HEAD"
    if head.command not in {"GET", "HEAD"}:
        allowed = {"Allow": "GET, HEAD"}
        return Parsed(None, plain(HTTPStatus.METHOD_NOT_ALLOWED, allowed), is_head=False)
    try:
        url = urlsplit(head.path)
        query = parse_qs(url.query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        return Parsed(None, plain(HTTPStatus.BAD_REQUEST), is_head)
    headers: Any = head.headers
    if any(len(headers.get_all(name, ())) > 1 for name in DECIDING_HEADERS):
        return Parsed(None, plain(HTTPStatus.BAD_REQUEST), is_head)
    is_absolute = bool(url.scheme or url.netloc)
    if is_absolute and url.netloc.lower() != (headers.get("Host") or "").strip().lower():
        # The target has a host of its own, and HTTP lets it win over Host (RFC 9112, 3.2.2). What
        # checks the Host header would check the wrong one.
        return Parsed(None, plain(HTTPStatus.BAD_REQUEST), is_head)
    return Parsed(Request(head.command, url.path, query, headers), None, is_head)


def render(response: Response, *, is_head: bool) -> tuple[bytes, bytes]:
    """Return the head and the body of an answer as they are sent; the body is not copied."""
    headers = {"Content-Type": response.content_type, "Content-Length": str(len(response.body))}
    if response.status == HTTPStatus.NOT_MODIFIED:
        # They would describe a body that is not there (RFC 9110, 15.4.5).
        headers.clear()
    headers |= {"Cache-Control": "no-store", **SECURITY_HEADERS, "Connection": "close"}
    headers |= response.headers
    phrase = HTTPStatus(response.status).phrase
    lines = [f"HTTP/1.1 {response.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head, b"" if is_head else response.body


class _Head(BaseHTTPRequestHandler):
    """The standard library's parser of heads, without a connection."""

    def __init__(self, data: bytes) -> None:
        self.code: HTTPStatus | None = None
        self.command = ""
        self.path = ""
        self.rfile = io.BytesIO(data)
        self.raw_requestline = self.rfile.readline()
        if not self.parse_request() and self.code is None:
            self.code = HTTPStatus.BAD_REQUEST

    def handle_expect_100(self) -> bool:
        """Go on: a request that is answered at once needs no permission to send its body."""
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 - the base class's signature
        """Keep the code that the base class would answer with."""
        self.code = HTTPStatus(code)
