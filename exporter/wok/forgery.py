r"""What a parameter in the request log can have written into wok-error.log.

A text that Wok logs with a line break in it becomes several lines of wok-error.log, and these can look like anything.
In the JSON dialect the same parameter stands in the request log, where the line break is written as two characters.
What is found there proves that the lines in wok-error.log are not Wok's own.
"""

from __future__ import annotations

import re

_HEADER = re.compile(rb"Error in async_task ([0-9a-f]{8}-[0-9a-f]{4}-1[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})")
_MARK = re.compile(rb"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d\] ENGINE Bus STARTED")


def forged_headers(line: bytes) -> tuple[str, ...]:
    """Return the task ids that a raw line of the request log can have brought into wok-error.log as headers."""
    if rb"\n" not in line or b"async_task" not in line:
        return ()
    return tuple(found.decode() for found in _HEADER.findall(line))


def forged_marks(line: bytes) -> tuple[str, ...]:
    """Return the marks of a start of wokd that a raw line of the request log can have brought there."""
    if rb"\n" not in line or b"ENGINE" not in line:
        return ()
    return tuple(found.decode() for found in _MARK.findall(line))
