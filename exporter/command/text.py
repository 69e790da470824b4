"""The log as lines of text, in the form that Wok offers for download and the RFC for asynchronous tasks shows.

Wok has three such forms (2.1.0 without a zone, 2.2.0 without a status); this is the last and longest, the
same from June 2016 to master, and the one the RFC prints its TASK records in:

    [2016-08-12 11:49:55 BRT] POST   202 kimchi      192.168.122.62  ada: Clone guest 'web01'
    [2016-08-12 11:49:58 BRT] TASK   1001 kimchi                      : Task 7 has finished

Wok's own lines carry newlines, tabs and escapes as they come, so that a guest's name can begin a new line or
move the cursor. These do not: a record is one line, and every character on it can be seen.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from exporter.records import NANOS
from exporter.terminal.text import visible

if TYPE_CHECKING:
    from datetime import tzinfo

    from exporter.records import Record

NO_STATUS = "   "
"""What fills the column of a status in records of Wok 2.1 and 2.2, which have none."""


def render(record: Record, message: str, zone: tzinfo | None) -> str:
    """Return the record as one line of text, without a newline.

    `message` is the English sentence with the reason of a failure, if any, behind it. Date, time and zone are
    shown in `zone`; None is the host's. Columns whose field the record lacks are blank. The form is that of
    `GET /logs?download=True` in Wok 2.3 to 3.0.
    """
    when = datetime.fromtimestamp(record.time // NANOS, UTC).astimezone(zone)
    status = NO_STATUS if record.status is None else record.status
    stamp = f"{when:%Y-%m-%d %H:%M:%S} {when.tzname() or ''}"

    return (
        f"[{stamp}] {visible(record.method):<6} {status} {visible(record.app):<11} "
        f"{visible(record.address):<15} {visible(record.user)}: {visible(message)}"
    )
