"""Records as lines of text, in the form of Wok's download and of the RFC for asynchronous tasks.

Wok has had three such forms (2.1.0 without a zone, 2.2.0 without a status). This is the last and
longest, unchanged from June 2016 to master, and the one that the RFC uses for its TASK records:

    [2016-08-12 11:49:55 BRT] POST   202 kimchi      192.168.122.62  ada: Clone guest 'web01'
    [2016-08-12 11:49:58 BRT] TASK   1001 kimchi                      : Task 7 has finished

Wok's own lines contain newlines, tabs and escapes unchanged, so that a guest's name can start a new
line or move the cursor. These do not: a record is one line, and every character on it is visible.
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
"""Fills the status column for records of Wok 2.1 and 2.2, which have none."""


def render(record: Record, message: str, zone: tzinfo | None) -> str:
    """Return the record as one line of text, without a newline.

    `message` is the English sentence, followed by the reason of a failure, if any. Date and time
    are in `zone`; None is the host's. Columns without a value are blank. The form is that of `GET
    /logs?download=True` in Wok 2.3 to 3.0.
    """
    when = datetime.fromtimestamp(record.time // NANOS, UTC).astimezone(zone)
    status = NO_STATUS if record.status is None else record.status
    stamp = f"{when:%Y-%m-%d %H:%M:%S} {when.tzname() or ''}"

    return (
        f"[{stamp}] {visible(record.method):<6} {status} {visible(record.app):<11} "
        f"{visible(record.address):<15} {visible(record.user)}: {visible(message)}"
    )
