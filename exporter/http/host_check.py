"""Under which names the page may be asked for.

A page of anybody's may let its own name resolve to 127.0.0.1 after it has been loaded, and then read what is
served there as if it were its own ("DNS rebinding"): the browser's rule of the same origin looks at names. What
gives such a request away is its Host header, which names the other site. So pages and API answer only to names
that are known to mean this server. `/metrics` and the probes are not asked by browsers and are not checked.
Source: RFC 9110, 7.2 (Host) and 15.5.20 (421 Misdirected Request).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from http import HTTPStatus
from ipaddress import ip_address

from exporter.http.routes import Handler, Request, Response, as_json

HOST_CHARS_MAX = 300
"""A name has at most 253."""

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@/\\\s]+))(?::[0-9]{1,5})?", re.ASCII)


class HostCheck:
    """Tells whether a Host header names this server.

    `listen_host` is where the server listens, `names` are further names of it. Localhost and loopback addresses
    always mean it. A server with authentication that listens on all addresses is asked by names that it cannot
    know, and answers to any: whoever has rebound a name has no password.
    """

    def __init__(self, listen_host: str, names: Collection[str] = (), *, has_auth: bool = False) -> None:
        is_everywhere = _plain(listen_host) in ("", "0.0.0.0", "::")  # noqa: S104 - compared, not listened on
        self._is_open = is_everywhere and has_auth
        self._names = {"localhost", *map(_plain, names)}
        if not is_everywhere:
            self._names.add(_plain(listen_host))

    def allows(self, host: str) -> bool:
        """Return whether the value of a Host header, with or without a port, is a name of this server."""
        if self._is_open:
            return True
        found = _HOST.fullmatch(host) if len(host) <= HOST_CHARS_MAX else None
        if found is None:
            return False
        name = _plain(found[1] or found[2])
        return name in self._names or _is_loopback(name)


def for_hosts(routes: Mapping[str, Handler], hosts: HostCheck) -> dict[str, Handler]:
    """Return the routes, each behind a check of the Host header; other names are answered with 421."""
    return {path: _checked(handler, hosts) for path, handler in routes.items()}


def _checked(handler: Handler, hosts: HostCheck) -> Handler:
    def handle(request: Request) -> Response:
        host = request.headers.get("Host") or ""
        if hosts.allows(host):
            return handler(request)
        shown = ascii(host[:HOST_CHARS_MAX])
        return as_json(
            HTTPStatus.MISDIRECTED_REQUEST,
            {
                "error": f"Host: {shown} is no name of this server: ask for localhost, or add the name to `hosts`"
            },
        )

    return handle


def _plain(name: str) -> str:
    """Return a name in one spelling: addresses have several."""
    name = name.strip("[]").lower().removesuffix(".")
    try:
        return str(ip_address(name))
    except ValueError:
        return name


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
