"""Answers in gzip for clients that accept it: a page of tasks is a tenth of its size."""

from __future__ import annotations

import gzip
from collections.abc import Mapping

from exporter.http.routes import Handler, Request, Response

GZIP_LEVEL = 4
GZIP_BYTES_MIN = 500
"""A smaller answer fits into one packet as it is."""


def accepts_gzip(headers: Mapping[str, str]) -> bool:
    """Return whether a request accepts gzip (RFC 9110, 12.5.3)."""
    for part in (headers.get("Accept-Encoding") or "").lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name == "gzip":
            return not any(piece.startswith("q=") and not piece.strip("q=0.") for piece in parameters)
    return False


def compressed(routes: Mapping[str, Handler]) -> dict[str, Handler]:
    """Return the routes, with larger answers in gzip where the client accepts it."""
    return {path: _compressed(handler) for path, handler in routes.items()}


def _compressed(handler: Handler) -> Handler:
    def handle(request: Request) -> Response:
        response = handler(request)
        headers = {**response.headers, "Vary": "Accept-Encoding"}
        body = response.body
        if len(body) >= GZIP_BYTES_MIN and accepts_gzip(request.headers):
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return response._replace(body=body, headers=headers)

    return handle
