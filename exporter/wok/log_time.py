"""Parses the times in wok-error.log and wok-access.log: `[23/Nov/2026:00:16:42]`.

CherryPy writes local times in whole seconds, without a zone.
"""

from __future__ import annotations

from exporter.parse.timezone import Zones

TIME = rb"\[(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d:\d\d:\d\d)\]"
"""A pattern with four groups, which are the arguments of `nanos_of`."""

_MONTHS = {
    name: f"{number:02}"
    for number, name in enumerate(
        (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"), 1
    )
}


def nanos_of(day: bytes, month: bytes, year: bytes, clock: bytes, zones: Zones) -> int | None:
    """Return a time in nanoseconds, None if the date does not exist."""
    if month not in _MONTHS:
        return None
    return zones.nanos(_date(day, month, year), clock.decode(), "")


def second_reading(day: bytes, month: bytes, year: bytes, clock: bytes, zones: Zones) -> int | None:
    """Return the later of the two points in time of a local time in a repeated hour."""
    return zones.second_reading(_date(day, month, year), clock.decode()) if month in _MONTHS else None


def _date(day: bytes, month: bytes, year: bytes) -> str:
    return f"{year.decode()}-{_MONTHS[month]}-{day.decode()}"
