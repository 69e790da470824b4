"""What the HTTP server and its pages agree on: requests, responses, handlers, and the two probes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, NamedTuple

TEXT = "text/plain; charset=utf-8"
JSON = "application/json; charset=utf-8"

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Request(NamedTuple):
    """What a handler sees: `path` without the query, `query` decoded, `headers` by any case of their names."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]


class Response(NamedTuple):
    """What a handler answers; the body is left out by the server when the method is HEAD.

    `headers` win over those that the server gives every answer.
    """

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = NO_HEADERS


Handler = Callable[[Request], Response]

Routes = Mapping[str, Handler]
"""Handlers by path; a path that ends with `*` takes all that begin with what is before it and have no own."""


def plain(status: HTTPStatus, headers: Mapping[str, str] = NO_HEADERS) -> Response:
    """Return the response that says only its status."""
    return Response(status, TEXT, f"{status.phrase.lower()}\n".encode(), headers)


def as_json(status: int, value: Any) -> Response:
    """Return a value as JSON, in ASCII: what a log had in it is then nobody's markup, and no line's end."""
    return Response(status, JSON, json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii"))


def healthz_handler() -> Handler:
    """Return the handler of `/healthz`: 200 while the process can answer at all."""
    return lambda _: Response(HTTPStatus.OK, TEXT, b"ok\n")


def readyz_handler(problems: Callable[[], list[str]]) -> Handler:
    """Return the handler of `/readyz`: 200, or 503 with a line for each problem that `problems` names."""

    def handle(_: Request) -> Response:
        lines = problems()
        if not lines:
            return Response(HTTPStatus.OK, TEXT, b"ready\n")
        body = "".join(f"{' '.join(line.split())}\n" for line in lines)
        return Response(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, body.encode("utf-8", "replace"))

    return handle
