"""The values that the HTTP server and its pages exchange: requests, responses, handlers."""

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
    """`path` is without the query, `query` is decoded, `headers` ignores the case of names."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]


class Response(NamedTuple):
    """The server leaves out the body when the method is HEAD.

    `headers` replace those that the server gives every answer.
    """

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = NO_HEADERS


Handler = Callable[[Request], Response]

Routes = Mapping[str, Handler]
"""Handlers by path; one that ends with `*` is for all paths with that prefix
that have no handler.
"""


def plain(status: HTTPStatus, headers: Mapping[str, str] = NO_HEADERS) -> Response:
    """Return a response with the words of its status."""
    return Response(status, TEXT, f"{status.phrase.lower()}\n".encode(), headers)


def as_json(status: int, value: Any) -> Response:
    """Return a value as JSON in ASCII: no text of a log can be taken for markup or the end of a
    line.
    """
    return Response(status, JSON, json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii"))


def healthz_handler() -> Handler:
    """Return the handler of `/healthz`: 200 while the process can answer."""
    return lambda _: Response(HTTPStatus.OK, TEXT, b"ok\n")
