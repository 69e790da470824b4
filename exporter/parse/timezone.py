"""Converts the local times of the log to timestamps.

Wok writes `date`, `time` (whole seconds) and, since 2.2, `zone`: the result of `strftime("%Z")` on
the host. That is an abbreviation, not a time zone. With the zone database of 2017 and later it can
be a number ("-03"). A number is an offset, so it is unambiguous. A word is not: IST, CST and BST
each mean several offsets. So the time zone comes from the configuration, else from the host. A word
only selects the offset in an hour that occurs twice. If the zone does not use the word at that
time, it is looked up in a short table of words with only one meaning. An example is BRT in a log
from before the zone database dropped it. All other words are ignored.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from exporter.records import NANOS

FIRST_YEAR = 1970
LAST_YEAR = 2261
"""The last full year whose nanoseconds fit into 63 bits, which is what consumers of OTLP store."""
MAX_CACHED_MINUTES = 4096
"""Cached minutes. A busy log uses some hundred at a time; a full cache is emptied."""
MAX_ABBREVIATION_CHARS = 16

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - compared with local times only
_SECOND = timedelta(seconds=1)
# A leap second repeats the second before it: the clock of the C library has no second 60.
_SECONDS = {f"{second:02}": min(second, 59) * NANOS for second in range(61)}
_OFFSET = re.compile(r"([+-])(\d\d)(?::?([0-5]\d))?", re.ASCII)
_POSIX = re.compile(r"(?:<[A-Za-z0-9+-]{3,}>|[A-Za-z]{3,})[+-]?\d[^\n]*", re.ASCII)

# Minutes east of Greenwich, for abbreviations with only one meaning since Wok's first log (2016).
# Missing because they have several meanings: ADT, AMT, AST, BST, CDT, CST, ECT, GST, IST, SST, VET.
_ABBREVIATIONS = {
    "UTC": 0, "GMT": 0, "Z": 0, "UCT": 0, "WET": 0, "WEST": 60, "CET": 60, "CEST": 120, "MET": 60, "MEST": 120,
    "EET": 120, "EEST": 180, "MSK": 180, "SAST": 120, "CAT": 120, "WAT": 60, "EAT": 180,
    "BRT": -180, "BRST": -120, "FNT": -120, "ART": -180, "UYT": -180, "UYST": -120, "CLT": -240, "CLST": -180,
    "BOT": -240, "COT": -300, "PET": -300, "PYT": -240, "PYST": -180, "NST": -210, "NDT": -150,
    "EST": -300, "EDT": -240, "MST": -420, "MDT": -360, "PST": -480, "PDT": -420, "AKST": -540, "AKDT": -480,
    "HST": -600, "PKT": 300, "NPT": 345, "ICT": 420, "WIB": 420, "HKT": 480, "SGT": 480, "AWST": 480,
    "JST": 540, "KST": 540, "ACST": 570, "ACDT": 630, "AEST": 600, "AEDT": 660, "NZST": 720, "NZDT": 780,
}  # fmt: skip


class Zones:
    """The time zone of a log, and the meaning of the abbreviations in it.

    `name` is a name of the zone database ("America/Sao_Paulo") or a POSIX rule ("BRT3"). If it is
    empty, the zone of the host is used. Raises ValueError with the name and the remedy if there is
    no such zone.
    """

    def __init__(self, name: str = "") -> None:
        self._zone = load_zone(name) if name else host_zone(os.environ, Path("/"))
        self._minutes: dict[tuple[str, str, str], int] = {}
        self._shifts: dict[tuple[str, str, str], int] = {}

    def nanos(self, date: str, time: str, abbreviation: str) -> int | None:
        """Return nanoseconds since the epoch for "YYYY-MM-DD", "HH:MM:SS" and an abbreviation.

        Return None if this is not a time of the years 1970 to 2261. A time that occurs twice is the
        first one, unless the abbreviation selects the second. A time that the clock skipped uses
        the offset after the change.
        """
        minute = self._minutes.get((date, time[:6], abbreviation))
        if minute is None:
            minute = self._minute(date, time[:6], abbreviation)
            if minute is None:
                return None
        second = _SECONDS.get(time[6:])
        return None if second is None else minute + second

    def second_reading(self, date: str, time: str) -> int | None:
        """Return the later timestamp of a time in a repeated hour; else the only one."""
        local = _local(date, time[:6])
        first = self.nanos(date, time, "")
        if local is None or first is None:
            return None
        before, after = (local.replace(tzinfo=self._zone, fold=fold).utcoffset() for fold in (0, 1))
        if before is None or after is None or after >= before:
            return first
        return first + (before - after) // _SECOND * NANOS

    def shift(self, date: str, time: str, abbreviation: str) -> int:
        """Return the nanoseconds between a time with its abbreviation and without it.

        It is 0 if the abbreviation agrees with the zone, or has no meaning.
        """
        key = (date, time[:2], abbreviation)
        shift = self._shifts.get(key)
        if shift is None:
            told = self.nanos(date, time, abbreviation)
            readings = (self.nanos(date, time, ""), self.second_reading(date, time))
            shift = 0
            if told is not None and readings[0] is not None and told not in readings:
                shift = told - readings[0]
            if len(abbreviation) <= MAX_ABBREVIATION_CHARS:
                if len(self._shifts) >= MAX_CACHED_MINUTES:
                    self._shifts.clear()
                self._shifts[key] = shift
        return shift

    def _minute(self, date: str, clock: str, abbreviation: str) -> int | None:
        local = _local(date, clock)
        if local is None:
            return None
        offset = self._offset(local, abbreviation)
        nanos = ((local - _EPOCH - offset) // _SECOND) * NANOS
        if nanos < 0:
            return None
        if len(abbreviation) <= MAX_ABBREVIATION_CHARS:
            if len(self._minutes) >= MAX_CACHED_MINUTES:
                self._minutes.clear()
            self._minutes[date, clock, abbreviation] = nanos
        return nanos

    def _offset(self, local: datetime, abbreviation: str) -> timedelta:
        number = _OFFSET.fullmatch(abbreviation)
        if number is not None and int(number[2]) < 24:
            size = timedelta(hours=int(number[2]), minutes=int(number[3] or 0))
            return -size if number[1] == "-" else size
        first, second = (local.replace(tzinfo=self._zone, fold=fold) for fold in (0, 1))
        if abbreviation:
            for side in (first, second):
                if side.tzname() == abbreviation:
                    return side.utcoffset() or timedelta(0)
            if abbreviation in _ABBREVIATIONS:
                return timedelta(minutes=_ABBREVIATIONS[abbreviation])
        before, after = (side.utcoffset() or timedelta(0) for side in (first, second))
        # The larger offset is the one after a skipped hour, and the one before a repeated hour.
        return max(before, after)


def load_zone(name: str) -> tzinfo:
    """Return the zone of a zone database name, with or without a leading colon, or of a POSIX rule.

    Raises ValueError with the name and the remedy.
    """
    try:
        return ZoneInfo(name.removeprefix(":"))
    # ZoneInfo opens a path made of the name: a directory, a NUL or a name that is too long raises
    # OSError.
    except (ZoneInfoNotFoundError, ValueError, OSError):
        if _POSIX.fullmatch(name):
            try:
                return _posix_zone(name)
            except ValueError:
                pass
    raise ValueError(
        f"no time zone {name[:64]!r}: set `zone` to a name of the zone database, such as 'America/Sao_Paulo'; "
        "`timedatectl list-timezones` lists them"
    )


def host_zone(environ: Mapping[str, str], root: Path) -> tzinfo:
    """Return the zone that the C library would use on the host whose files are below `root`.

    The order is TZ, /etc/localtime (a link into the zone database, or a copy of a zone),
    /etc/timezone, and UTC if none of them is set. Raises ValueError with the name and the remedy.
    """
    name = environ.get("TZ")
    if name is not None:
        path = Path(name.removeprefix(":"))
        if path.is_absolute():
            return _file_zone(path)
        return load_zone(name) if name.strip(":") else UTC
    localtime = root / "etc/localtime"
    if localtime.is_symlink():
        _, found, key = str(localtime.readlink()).partition("zoneinfo/")
        if found:
            return load_zone(key.removeprefix("posix/").removeprefix("right/"))
    if localtime.is_file():
        return _file_zone(localtime)
    try:
        name = (root / "etc/timezone").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        name = ""
    return load_zone(name) if name else UTC


def _file_zone(path: Path) -> tzinfo:
    try:
        with path.open("rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError, struct.error) as error:
        raise ValueError(
            f"{path} is no time zone ({error}): set `zone` to a name of the zone database, "
            "such as 'America/Sao_Paulo'"
        ) from error


def _posix_zone(rule: str) -> tzinfo:
    """Return the zone of a rule.

    zoneinfo accepts a rule only in the footer of a zone file (RFC 8536), so this builds such a
    file.
    """
    block = (
        b"TZif2" + bytes(15) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb", 0, 0, 0) + b"UTC\0"
    )
    return ZoneInfo.from_file(io.BytesIO(block + block + b"\n" + rule.encode("ascii") + b"\n"))


def _local(date: str, clock: str) -> datetime | None:
    """Return the local time of "YYYY-MM-DD" and "HH:MM:", or None for any other format."""
    if (
        len(date) != 10
        or date[4] != "-"
        or date[7] != "-"
        or len(clock) != 6
        or clock[2] != ":"
        or clock[5] != ":"
    ):
        return None
    digits = date[:4] + date[5:7] + date[8:] + clock[:2] + clock[3:5]
    if not (digits.isascii() and digits.isdigit()):
        return None
    year = int(digits[:4])
    if not FIRST_YEAR <= year <= LAST_YEAR:
        return None
    try:
        return datetime(year, int(digits[4:6]), int(digits[6:8]), int(digits[8:10]), int(digits[10:]))  # noqa: DTZ001 - the offset comes later
    except ValueError:
        return None
