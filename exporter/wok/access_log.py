r"""The lines of wok-access.log, as far as they are used: PUT requests and logins that were not answered with success.

    ADDRESS - USER [28/Nov/2026:01:08:31] "PUT /plugins/kimchi/vms/f\xc3\xa9lix HTTP/1.1" 303 164 "" ""

Wok's request log has Wok's idea of a status: a PUT that renames a resource is logged as 500 and answered with 303, a
failed login since Wok 2.4 as 500 and answered with 401. The answer stands here alone. Times are local, in whole
seconds and without a zone. Line breaks, quotes and all that is not ASCII are escaped, so that a line is a line; the
address is the first of X-Forwarded-For, the path is decoded and then escaped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from exporter.wok.log_time import TIME, nanos_of

if TYPE_CHECKING:
    from exporter.parse.timezone import Zones

_LINE = re.compile(
    rb"\A([^\r\n]{1,4096}?) "
    + TIME
    + rb' "(PUT|POST) ((?:[^"\\]|\\.){1,4096}) HTTP/\d\.\d" ([345]\d\d) (?:\d{1,19}|-) "'
)
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|([abfnrtv\\'\"]))")
_ESCAPED = {
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"v": b"\v",
}


class Answer(NamedTuple):
    """How a PUT or a login was answered: `client` is address and user as they stand there, `path` is decoded and
    without its query.
    """

    time: int
    client: str
    method: str
    path: str
    status: int


def answer_of(data: bytes, zones: Zones) -> Answer | None:
    """Return what a line says of a PUT or a login that was not answered with success; None for all others."""
    if b'"PUT ' not in data and b"/login HTTP/" not in data:
        return None
    match = _LINE.match(data)
    if match is None:
        return None
    path = _unescaped(match[7]).partition("?")[0]
    if match[6] == b"POST" and not path.endswith("/login"):
        return None
    time = nanos_of(match[2], match[3], match[4], match[5], zones)
    if time is None:
        return None
    return Answer(time, _unescaped(match[1]), match[6].decode(), path, int(match[8]))


def _unescaped(data: bytes) -> str:
    return _ESCAPE.sub(_byte, data).decode("utf-8", "replace")


def _byte(escape: re.Match[bytes]) -> bytes:
    if escape[1]:
        return bytes.fromhex(escape[1].decode())
    return _ESCAPED.get(escape[2], escape[2])
