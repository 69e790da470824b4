r"""Finds lines that a parameter in the request log may have forged in wok-error.log.

If Wok logs a text with a line break, it becomes several lines of wok-error.log, and these can look
like any line of Wok. In the JSON format, the request log contains the same parameter, with the line
break escaped as two characters. If it is found there, the lines in wok-error.log are forged.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from exporter.wok.log_time import TIME

_HEADER = re.compile(rb"Error in async_task ([0-9a-f]{8}-[0-9a-f]{4}-1[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})")
_MARK = re.compile(TIME + rb" ENGINE Bus STARTED")

IsQuoted = Callable[[str, int], bool]
"""Tells whether a line of the request log at or after a time (in nanoseconds) quotes an id or the
line of a mark."""

WORDS = (b"async_task", b"ENGINE")
"""Every line that forges something has one of these words."""


class Forged(NamedTuple):
    """Forged lines of wok-error.log: headers by their task ids, marks of a start by their text."""

    ids: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


NOTHING = Forged()


def forged_by(line: bytes) -> Forged:
    """Return the lines of wok-error.log that a raw line of the request log may have forged."""
    # A quick test, because most lines have no escaped line break.
    if rb"\n" not in line or not any(word in line for word in WORDS):
        return NOTHING
    return Forged(
        tuple(found.decode() for found in _HEADER.findall(line)),
        tuple(found[0].decode() for found in _MARK.finditer(line)),
    )
