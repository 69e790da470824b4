"""The page: a few static files of the package, read once, served under their names.

The ETag of a file is a digest of its content: a browser asks again and gets a short "not modified",
and sees a new release at once. Files are compressed once, not for each answer. Only the names of
the files are paths; no request reads the disk.
"""

from __future__ import annotations

import gzip
import hashlib
from http import HTTPStatus
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import NamedTuple

from exporter.http.compression import accepts_gzip
from exporter.http.routes import Handler, Request, Response

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".webmanifest": "application/manifest+json",
}
"""The files that are served; others of the folder are not."""

INDEX = "index.html"
GZIP_LEVEL = 9
ETAG_CHARS = 32


class _Form(NamedTuple):
    """A file as it is sent."""

    body: bytes
    etag: str
    encoding: str


def page_routes(directory: Traversable | None = None) -> dict[str, Handler]:
    """Return a route for each file of the page, with `/` for index.html.

    `directory` is the package's folder by default. Raises FileNotFoundError when it has no
    index.html.
    """
    directory = files("exporter.web") / "static" if directory is None else directory
    routes = {
        f"/{file.name}": _handler(file.read_bytes(), content_type)
        for file in directory.iterdir()
        if (content_type := CONTENT_TYPES.get(PurePosixPath(file.name).suffix)) and file.is_file()
    }
    if f"/{INDEX}" not in routes:
        raise FileNotFoundError(f"{directory} has no {INDEX}: the package is incomplete, install it again")
    routes["/"] = routes.pop(f"/{INDEX}")
    return routes


def _handler(body: bytes, content_type: str) -> Handler:
    digest = hashlib.sha256(body).hexdigest()[:ETAG_CHARS]
    plain = _Form(body, f'"{digest}"', "")
    # Two forms are two representations, each with a validator of its own (RFC 9110, 8.8.3.3).
    compressed = _Form(gzip.compress(body, GZIP_LEVEL, mtime=0), f'"{digest}-gzip"', "gzip")

    def handle(request: Request) -> Response:
        form = compressed if accepts_gzip(request.headers) and len(compressed.body) < len(body) else plain
        headers = {"Cache-Control": "no-cache", "ETag": form.etag, "Vary": "Accept-Encoding"}
        if _is_known(form.etag, request.headers.get("If-None-Match") or ""):
            return Response(HTTPStatus.NOT_MODIFIED, content_type, b"", headers)
        if form.encoding:
            headers["Content-Encoding"] = form.encoding
        return Response(HTTPStatus.OK, content_type, form.body, headers)

    return handle


def _is_known(etag: str, known: str) -> bool:
    """Return whether If-None-Match names an ETag (RFC 9110, 13.1.2); a weak one counts as well."""
    return any(one.strip().removeprefix("W/") in (etag, "*") for one in known.split(","))
