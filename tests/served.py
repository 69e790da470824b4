"""The page and the API over a state, as the daemon serves them: for the tests of both."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPMessage
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

from exporter.http.compression import compressed
from exporter.http.cross_site import for_own_site
from exporter.http.host_check import HostCheck, for_hosts
from exporter.http.routes import Handler
from exporter.http.server import Server
from exporter.records import DeliveryStatus, Live
from exporter.store.reader import Reader
from exporter.web.api import About, api_routes
from exporter.web.page import page_routes
from exporter.web.runbooks import runbook_routes

HOST = "127.0.0.1"
ABOUT = About("1.2.3", "kvm01", "America/Sao_Paulo", "/var/lib/wok/user-requests.data", "")
WELL = DeliveryStatus("http://127.0.0.1:4318/v1/traces")


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which must be ASCII."""
        return json.loads(self.body.decode("ascii"))


@contextmanager
def served(
    directory: Path,
    *,
    page: Traversable | None = None,
    about: About = ABOUT,
    live: Callable[[], Live] = lambda: Live(0, {"traces": WELL}, ()),
    now: Callable[[], int] = time.time_ns,
    hosts: HostCheck | None = None,
    more: Mapping[str, Handler] | None = None,
    **options: Any,
) -> Iterator[str]:
    """Serve the page (of the package, or in `page`) and the API over the state in `directory`; give the URL.

    Of `options` the server is made.
    """
    with closing(Reader(directory)) as reader:
        api = compressed(for_own_site(api_routes(reader, about, live, now=now), linked=False))
        routes = for_own_site(page_routes(page) | runbook_routes(), linked=True) | api
        guarded = for_hosts(routes, hosts or HostCheck(HOST))
        server = Server(HOST, 0, guarded | dict(more or {}), **options)
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            yield f"http://{HOST}:{server.port}"
        finally:
            server.close()
            thread.join(timeout=10)


def ask(url: str, path: str, method: str = "GET", **headers: str) -> Answer:
    """Ask as any client does; `_` stands for `-` in the names of headers."""
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)) as client:
        client.request(
            method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = client.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
