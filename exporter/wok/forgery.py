r"""What a parameter in the request log can have written into wok-error.log.

A text that Wok logs with a line break in it becomes several lines of wok-error.log, and these can look like anything.
In the JSON dialect the same parameter stands in the request log, where the line break is written as two characters.
What is found there proves that the lines in wok-error.log are not Wok's own.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_HEADER = re.compile(rb"Error in async_task ([0-9a-f]{8}-[0-9a-f]{4}-1[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})")
_MARK = re.compile(rb"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d\] ENGINE Bus STARTED")


class Forged(NamedTuple):
    """What is not Wok's own in wok-error.log: headers, by their task ids, and marks of a start, by their text."""

    ids: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


NOTHING = Forged()


def forged_by(line: bytes) -> Forged:
    """Return what a raw line of the request log can have brought into wok-error.log."""
    # One quick test for the many lines without an escaped line break.
    if rb"\n" not in line or (b"async_task" not in line and b"ENGINE" not in line):
        return NOTHING
    return Forged(
        tuple(found.decode() for found in _HEADER.findall(line)),
        tuple(found.decode() for found in _MARK.findall(line)),
    )
