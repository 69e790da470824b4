"""Which names of this server the Host header may have: a defence against DNS rebinding.

After a page of another site has been loaded, its owner can let the site's name resolve to
127.0.0.1. The browser's same-origin rule compares names, so the page can then read what is served
there as if it were its own. The Host header gives such a request away, because it still has the
other site's name. So pages and the API answer only to names that are known to mean this server, and
`/readyz` tells others no more than its status, because its problems name paths. `/metrics` and
`/healthz` name none, and Prometheus asks under any name. Source: RFC 9110, 7.2 (Host) and 15.5.20
(421 Misdirected Request).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from ipaddress import ip_address

from exporter.http.routes import TEXT, Handler, Request, Response, as_json

HOST_CHARS_MAX = 300
"""A name has at most 253."""

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@/\\\s]+))(?::[0-9]{1,5})?", re.ASCII)


class HostCheck:
    """Tells whether a Host header names this server.

    `listen_host` is where the server listens, `names` are further names of it. Localhost and
    loopback addresses always name it. A server with authentication that listens on all addresses
    answers to any name: it cannot know its names, and whoever has rebound one has no password.
    """

    def __init__(self, listen_host: str, names: Collection[str] = (), *, has_auth: bool = False) -> None:
        is_everywhere = _plain(listen_host) in ("", "0.0.0.0", "::")  # noqa: S104 - compared, not listened on
        self._is_open = is_everywhere and has_auth
        self._names = {"localhost", *map(_plain, names)}
        if not is_everywhere:
            self._names.add(_plain(listen_host))

    def allows(self, host: str) -> bool:
        """Return whether the value of a Host header, with or without a port, is a name of this
        server.
        """
        if self._is_open:
            return True
        found = _HOST.fullmatch(host) if len(host) <= HOST_CHARS_MAX else None
        if found is None:
            return False
        name = _plain(found[1] or found[2])
        return name in self._names or _is_loopback(name)


def for_hosts(routes: Mapping[str, Handler], hosts: HostCheck) -> dict[str, Handler]:
    """Return the routes, each behind a check of the Host header; other names get 421."""

    def refuse(request: Request) -> Response:
        shown = ascii((request.headers.get("Host") or "")[:HOST_CHARS_MAX])
        error = f"Host: {shown} is not a name of this server; use localhost, or add the name to `hosts`"
        return as_json(HTTPStatus.MISDIRECTED_REQUEST, {"error": error})

    return {path: _either(handler, refuse, hosts) for path, handler in routes.items()}


def readyz_for_hosts(problems: Callable[[], list[str]], hosts: HostCheck) -> Handler:
    """Return the handler of `/readyz`: 200, or 503 with a line for each problem.

    Under another name the answer has the status alone.
    """

    def detailed(_: Request) -> Response:
        lines = problems()
        if not lines:
            return Response(HTTPStatus.OK, TEXT, b"ready\n")
        body = "".join(f"{' '.join(line.split())}\n" for line in lines)
        return Response(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, body.encode("utf-8", "replace"))

    def brief(request: Request) -> Response:
        answer = detailed(request)
        if answer.status == HTTPStatus.OK:
            return answer
        return answer._replace(body=b"not ready; ask under a name of this server for the reasons\n")

    return _either(detailed, brief, hosts)


def _either(known: Handler, other: Handler, hosts: HostCheck) -> Handler:
    return lambda request: (known if hosts.allows(request.headers.get("Host") or "") else other)(request)


def _plain(name: str) -> str:
    """Return a name in one spelling: addresses have several. Browsers leave the zone of an address
    out.
    """
    name = name.strip("[]").lower().removesuffix(".").partition("%")[0]
    try:
        address = ip_address(name)
    except ValueError:
        return name
    mapped = address.ipv4_mapped if address.version == 6 else None
    return str(mapped or address)


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
