"""The marks of wokd's starts in its error log."""

from __future__ import annotations

from exporter.parse.timezone import Zones
from exporter.records import NANOS, Line
from exporter.wok.restart_marks import marks

STARTED = b"[23/Nov/2026:00:16:42] ENGINE Bus STARTED"
AT = 1_795_403_802  # 03:16:42 UTC


def line(data: bytes) -> Line:
    return Line(b"f" * 16, 0, data, len(data))


def test_a_start_is_a_mark_in_the_zone_of_the_host() -> None:
    """The local time of a `Bus STARTED` line is a point in time."""
    assert marks([line(STARTED)], Zones("America/Sao_Paulo")) == [AT * NANOS]
    assert marks([line(STARTED + b"\r")], Zones("UTC")) == [(AT - 3 * 3600) * NANOS]


def test_everything_else_is_no_mark() -> None:
    """Other marks, tracebacks, and texts that only quote a mark say nothing."""
    others = [
        b"[23/Nov/2026:00:16:42] ENGINE Bus STARTING",
        b"[23/Nov/2026:00:16:42] ENGINE Caught signal SIGTERM.",
        b"Error in async_task 11 ",
        b"  [23/Nov/2026:00:16:42] ENGINE Bus STARTED",
        b"[99/Nov/2026:00:16:42] ENGINE Bus STARTED",
        b"[23/Foo/2026:00:16:42] ENGINE Bus STARTED",
        b"x ENGINE Bus STARTED",
        b"\xff\xfe ENGINE Bus STARTED",
        b"",
    ]

    assert marks([line(data) for data in others], Zones("UTC")) == []
