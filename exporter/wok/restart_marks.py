"""The marks of wokd's starts, from wok-error.log.

Wok's request log has no mark of a start or a stop; a task that runs when wokd goes down just ends there. CherryPy's
engine says so in the error log beside it: `[23/Nov/2026:00:16:42] ENGINE Bus STARTED`, in the local time of the
host, before the first request is served (all releases of Wok). After a SIGKILL that is the only sign.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from exporter.parse.timezone import Zones
from exporter.records import Line

_STARTED = b"ENGINE Bus STARTED"
_MARK = re.compile(rb"\A\[(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d:\d\d:\d\d)\] ENGINE Bus STARTED\r?\Z")
_MONTHS = {
    name: f"{number:02}"
    for number, name in enumerate(
        (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"), 1
    )
}


def marks(lines: Iterable[Line], zones: Zones) -> list[int]:
    """Return the times, in nanoseconds, of the starts of wokd that these lines tell."""
    found = []
    for line in lines:
        if _STARTED not in line.data:
            continue
        match = _MARK.match(line.data)
        if match is None or match[2] not in _MONTHS:
            continue
        date = f"{match[3].decode()}-{_MONTHS[match[2]]}-{match[1].decode()}"
        time = zones.nanos(date, match[4].decode(), "")
        if time is not None:
            found.append(time)
    return found
