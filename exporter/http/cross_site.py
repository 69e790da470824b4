"""Rejects requests that a page of another site makes a browser send.

Such a page cannot read the answers, but each one costs: a search through the history takes
processor time. Browsers tell where a request comes from in `Sec-Fetch-Site`, which no page can set.
Older browsers leave it out; programs do as well. Following a link to the page, from a dashboard or
a mail, stays possible. Source: Fetch Metadata Request Headers (W3C).
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from exporter.http.routes import Handler, Request, Response, as_json

OWN_SITES = ("", "same-origin", "none")
"""`none` is the address bar or a bookmark. Another port of this host is
`same-site`, and not ours.
"""

_REFUSAL = as_json(
    HTTPStatus.FORBIDDEN, {"error": "requests from pages of other sites are rejected; open the page itself"}
)


def for_own_site(routes: Mapping[str, Handler], *, linked: bool) -> dict[str, Handler]:
    """Return the routes, each behind a check of where the request comes from; others get 403.

    With `linked`, links of other sites may lead to the routes.
    """
    return {path: _checked(handler, linked=linked) for path, handler in routes.items()}


def _checked(handler: Handler, *, linked: bool) -> Handler:
    def handle(request: Request) -> Response:
        headers = request.headers
        is_own = (headers.get("Sec-Fetch-Site") or "").strip().lower() in OWN_SITES
        return handler(request) if is_own or (linked and _is_link(headers)) else _REFUSAL

    return handle


def _is_link(headers: Mapping[str, str]) -> bool:
    """Return whether a person has followed a link: the answer becomes a page of its own, not part
    of one.
    """
    return headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
