r"""Parses the lines of wok-access.log that are used: PUT requests and logins without success.

    ADDRESS - USER [28/Nov/2026:01:08:31] "PUT /plugins/kimchi/vms/\xc3\xa9v HTTP/1.1" 303 164 "" ""

The status in Wok's request log can differ from that of the answer. A PUT that renames a resource is
logged as 500 and answered with 303. A failed login since Wok 2.4 is logged as 500 and answered with
401. Only wok-access.log has the status of the answer. Times are local, in whole seconds and without
a zone. Line breaks, quotes and characters that are not ASCII are escaped in every field. A client
can choose the address (the first one of X-Forwarded-For), the path and the user agent, but it can
write no quote that ends a field, and so neither a line, a time nor a status. The path is decoded
and then escaped.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from exporter.parse.timezone import Zones
from exporter.wok.log_time import TIME, nanos_of, second_reading

_LINE = re.compile(
    rb"\A([^\r\n]{1,4096}?) "
    + TIME
    + rb' "(PUT|POST) ((?:[^"\\]|\\.){1,4096}) HTTP/\d\.\d" ([345]\d\d) (?:\d{1,19}|-) "'
)
_TIME = re.compile(TIME + rb' "')
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
    """The answer to a PUT or a login.

    `client` is the address and the user as in the line. `path` is decoded and has no query.
    """

    time: int
    client: str
    method: str
    path: str
    status: int


def time_of(data: bytes, zones: Zones) -> int | None:
    """Return the time of a line in nanoseconds, the first one if it occurs twice."""
    match = _TIME.search(data)
    return None if match is None else nanos_of(match[1], match[2], match[3], match[4], zones)


def answer_of(data: bytes, zones: Zones) -> Answer | None:
    """Return the answer to a PUT or a login without success; None for all other lines."""
    if b'"PUT ' not in data and b"/login HTTP/" not in data:
        return None
    match = _LINE.match(data)
    if match is None:
        return None
    path = _unescaped(match[7]).partition("?")[0]
    if match[6] == b"POST" and not path.endswith("/login"):
        return None
    time = nanos_of(match[2], match[3], match[4], match[5], zones)
    # In an hour that the clock repeats, a line can be of either pass.
    if time is None or time != second_reading(match[2], match[3], match[4], match[5], zones):
        return None
    return Answer(time, _unescaped(match[1]), match[6].decode(), path, int(match[8]))


def _unescaped(data: bytes) -> str:
    return _ESCAPE.sub(_byte, data).decode("utf-8", "replace")


def _byte(escape: re.Match[bytes]) -> bytes:
    if escape[1]:
        return bytes.fromhex(escape[1].decode())
    return _ESCAPED.get(escape[2], escape[2])
