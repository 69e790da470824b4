"""The runbooks of the alerts, so that the link in an alert works without a copy of them elsewhere.

They are Markdown, served as plain text: the page of an alert is short, and a browser shows it as it
is written. An installed package contains them; in a checkout they are in docs/runbooks. They are
read once, as the files of the page are.
"""

from __future__ import annotations

from http import HTTPStatus
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from exporter.http.routes import TEXT, Handler, Request, Response

PREFIX = "/runbooks/"
CACHE = {"Cache-Control": "no-cache"}


def runbook_routes(directory: Traversable | None = None) -> dict[str, Handler]:
    """Return a route for each runbook, and one that lists them.

    `directory` is the package's folder by default. Raises FileNotFoundError when there is none.
    """
    texts = {
        f"{PREFIX}{file.name}": file.read_bytes()
        for file in sorted((directory or _directory()).iterdir(), key=lambda file: file.name)
        if file.name.endswith(".md")
    }
    texts[PREFIX] = "".join(f"{path.removeprefix(PREFIX)}\n" for path in texts).encode()
    return {path: _handler(body) for path, body in texts.items()}


def _directory() -> Traversable:
    packed = files("exporter.web") / "runbooks"
    return packed if packed.is_dir() else Path(__file__).parents[2] / "docs" / "runbooks"


def _handler(body: bytes) -> Handler:
    def handle(_: Request) -> Response:
        return Response(HTTPStatus.OK, TEXT, body, CACHE)

    return handle
