"""Local times of the log to timestamps: folds, gaps, abbreviations, and the zone of the host."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.parse import timezone as zones
from exporter.parse.timezone import Zones, host_zone, load_zone
from exporter.records import NANOS


def utc(text: str) -> int:
    """Nanoseconds of an ISO time, UTC unless it says otherwise."""
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) * NANOS


@pytest.mark.parametrize(
    ("zone", "date", "time", "abbreviation", "expected"),
    [
        # no abbreviation (2.1.0): the zone
        ("America/Sao_Paulo", "2026-11-23", "04:21:40", "", "2026-11-23T07:21:40"),
        # numbers are offsets, whatever the zone is
        ("Asia/Kolkata", "2026-11-23", "00:17:29", "-03", "2026-11-23T03:17:29"),
        ("UTC", "2026-11-23", "00:17:29", "+0530", "2026-11-22T18:47:29"),
        ("UTC", "2026-11-23", "00:17:29", "-03:30", "2026-11-23T03:47:29"),
        # words that the zone database has dropped
        ("America/Sao_Paulo", "2016-08-12", "11:49:55", "BRT", "2016-08-12T14:49:55"),
        ("UTC", "2016-12-12", "11:49:55", "BRST", "2016-12-12T13:49:55"),
        # one word, three meanings: the zone decides
        ("Asia/Kolkata", "2026-11-23", "08:49:57", "IST", "2026-11-23T03:19:57"),
        ("Asia/Jerusalem", "2026-11-23", "08:49:57", "IST", "2026-11-23T06:49:57"),
        ("Europe/Dublin", "2026-07-23", "08:49:57", "IST", "2026-07-23T07:49:57"),
        ("America/Sao_Paulo", "2026-11-23", "08:49:57", "IST", "2026-11-23T11:49:57"),
        ("Asia/Shanghai", "2026-01-01", "08:00:00", "CST", "2026-01-01T00:00:00"),
        ("America/Chicago", "2026-01-01", "08:00:00", "CST", "2026-01-01T14:00:00"),
        ("Europe/London", "2026-07-01", "08:00:00", "BST", "2026-07-01T07:00:00"),
        # one common meaning, and the zone does not know it
        ("UTC", "2026-01-01", "08:00:00", "EST", "2026-01-01T13:00:00"),
        # nonsense is no abbreviation
        ("UTC", "2026-01-01", "08:00:00", "hello; rm -rf", "2026-01-01T08:00:00"),
        ("UTC", "2026-01-01", "08:00:00", "+99", "2026-01-01T08:00:00"),
        # the hour that occurs twice
        ("America/New_York", "2026-11-01", "01:30:00", "EDT", "2026-11-01T05:30:00"),
        ("America/New_York", "2026-11-01", "01:30:00", "EST", "2026-11-01T06:30:00"),
        ("America/New_York", "2026-11-01", "01:30:00", "", "2026-11-01T05:30:00"),
        ("Europe/Berlin", "2026-10-25", "02:30:00", "CEST", "2026-10-25T00:30:00"),
        ("Europe/Berlin", "2026-10-25", "02:30:00", "CET", "2026-10-25T01:30:00"),
        # the hour that does not occur
        ("America/New_York", "2026-03-08", "02:30:00", "EST", "2026-03-08T07:30:00"),
        ("America/New_York", "2026-03-08", "02:30:00", "EDT", "2026-03-08T06:30:00"),
        ("America/New_York", "2026-03-08", "02:30:00", "", "2026-03-08T06:30:00"),
        # a leap second has no second of its own
        ("UTC", "2016-12-31", "23:59:60", "UTC", "2016-12-31T23:59:59"),
        ("BRT3", "2016-08-12", "11:49:55", "", "2016-08-12T14:49:55"),
        ("EST5EDT,M3.2.0,M11.1.0", "2026-07-01", "08:00:00", "", "2026-07-01T12:00:00"),
        ("UTC", "1970-01-01", "00:00:00", "", "1970-01-01T00:00:00"),
        ("UTC", "2261-12-31", "23:59:59", "", "2261-12-31T23:59:59"),
    ],
)
def test_times(zone: str, date: str, time: str, abbreviation: str, expected: str) -> None:
    """The zone determines the time, a number overrides it, and a word only counts where it has one
    meaning.
    """
    assert utc(expected) == Zones(zone).nanos(date, time, abbreviation)


@pytest.mark.parametrize(
    ("date", "time"),
    [
        ("", ""), ("2026-11-23", ""), ("2026-11-23", "00:17"), ("2026-11-23", "00:17:61"), ("2026-11-23", "24:00:00"),
        ("2026-11-23", "00:60:00"), ("2026-02-30", "00:00:00"), ("2026-13-01", "00:00:00"), ("2026-1-001", "00:00:00"),
        ("1969-12-31", "23:59:59"), ("2262-01-01", "00:00:00"), ("20261123", "00:00:00"), ("2026/11/23", "00:00:00"),
        ("2026-11-23", "00.17.29"), ("2026-11-23", "00:17:2x"), ("2026-11-23", " 0:17:29"), ("2026-11-23", "00:17:29 "),
        ("\u0662\u0660\u0662\u0666-11-23", "00:17:29"), ("2026-11-23", "00:17:\u0662\u0669"), ("+026-11-23", "00:17:29"),
    ],
)  # fmt: skip
def test_no_time(date: str, time: str) -> None:
    """A time in another format, or outside the years of OTLP, is rejected."""
    assert Zones("UTC").nanos(date, time, "") is None


def test_before_the_epoch() -> None:
    """A local time of 1970 before the epoch in UTC is rejected: timestamps in OTLP are unsigned."""
    assert Zones("UTC").nanos("1970-01-01", "00:30:00", "+01") is None


@given(st.text(max_size=12), st.text(max_size=10), st.text(max_size=20))
def test_never_raises(date: str, time: str, abbreviation: str) -> None:
    """For any text in the log, the result is a number or None."""
    answer = Zones("Europe/Berlin").nanos(date, time, abbreviation)

    assert answer is None or 0 <= answer < 1 << 63


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2261, 12, 30)),  # noqa: DTZ001 - an instant, given its zone below
    st.sampled_from(["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/Sao_Paulo"]),
)
def test_round_trip(moment: datetime, name: str) -> None:
    """Any instant, written as Wok writes it on a host of that zone, is read as the same instant."""
    instant = moment.replace(microsecond=0, tzinfo=UTC)
    local = instant.astimezone(ZoneInfo(name))
    read = Zones(name).nanos(f"{local:%Y-%m-%d}", f"{local:%H:%M:%S}", f"{local:%Z}")

    assert (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1) * NANOS == read


def test_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of minutes is emptied when full, and long abbreviations never enter it."""
    monkeypatch.setattr(zones, "MAX_CACHED_MINUTES", 3)
    tested = Zones("UTC")
    for minute in range(10):
        tested.nanos("2026-11-23", f"00:{minute:02}:00", "UTC")
        tested.nanos("2026-11-23", f"00:{minute:02}:00", "x" * 1000)

    assert len(tested._minutes) <= 3


@pytest.mark.parametrize(
    "name", ["America/Sao_Paolo", "/etc/passwd", "../x", "Europe", "a\0b", "Foo", "x" * 5000]
)
def test_unknown_zone(name: str) -> None:
    """An unknown zone is an error with its name and the remedy."""
    with pytest.raises(ValueError, match=r"no time zone '.*set `zone` to a name .* 'America/Sao_Paulo'"):
        Zones(name)


def offset_of(environ: dict[str, str], root: Path) -> timedelta | None:
    """The offset of the host's zone in the summer of 2026."""
    return host_zone(environ, root).utcoffset(datetime(2026, 7, 1))  # noqa: DTZ001 - local time


@pytest.mark.parametrize(
    ("value", "hours"),
    [(":Asia/Tokyo", 9), ("Asia/Tokyo", 9), ("<-03>3", -3), ("UTC0", 0), ("", 0), (":", 0)],
)
def test_host_zone_of_the_environment(tmp_path: Path, value: str, hours: int) -> None:
    """TZ is read as the C library reads it: a name, a rule, or nothing for UTC."""
    assert timedelta(hours=hours) == offset_of({"TZ": value}, tmp_path)


def test_host_zone_of_files(tmp_path: Path) -> None:
    """Without TZ: /etc/localtime as a link, then as a copy, then /etc/timezone, then UTC."""
    etc = tmp_path / "etc"
    etc.mkdir()
    found = [offset_of({}, tmp_path)]
    (etc / "timezone").write_text("Asia/Tokyo\n")
    found.append(offset_of({}, tmp_path))
    rule = b"TZif2" + bytes(31) + b"\0\0\0\1\0\0\0\4" + bytes(6) + b"UTC\0"
    (etc / "localtime").write_bytes(rule + rule + b"\n<-03>3\n")
    found += [offset_of({}, tmp_path), offset_of({"TZ": str(etc / "localtime")}, tmp_path)]
    (etc / "localtime").unlink()
    (etc / "localtime").symlink_to("../usr/share/zoneinfo/posix/Asia/Kolkata")
    found.append(offset_of({}, tmp_path))

    assert [timedelta(hours=hours) for hours in (0, 9, -3, -3, 5.5)] == found


def test_broken_host_zone(tmp_path: Path) -> None:
    """An invalid zone file is an error with the path and the remedy."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/localtime").write_bytes(b"TZif2")

    with pytest.raises(ValueError, match=r"localtime is no time zone .*set `zone`"):
        host_zone({}, tmp_path)


def test_rule_equals_zone() -> None:
    """A POSIX rule gives what the zone database gives for a zone with that rule."""
    rule = load_zone("EST5EDT,M3.2.0,M11.1.0")
    moments = [datetime(2026, month, 8, 12, tzinfo=timezone.utc) for month in range(1, 13)]  # noqa: UP017 - beside ZoneInfo

    assert [moment.astimezone(ZoneInfo("America/New_York")).utcoffset() for moment in moments] == [
        moment.astimezone(rule).utcoffset() for moment in moments
    ]


@pytest.mark.parametrize(
    ("abbreviation", "minutes"),
    [
        ("NPT", 345),
        ("CLST", -180),
        ("BRT", -180),
        ("BRST", -120),
        ("CEST", 120),
        ("IST+", None),
        ("JST", 540),
        ("ACDT", 630),
        ("NST", -210),
    ],
)
def test_abbreviations_of_other_places(abbreviation: str, minutes: int | None) -> None:
    """A word with one meaning is an offset, also where the configured zone does not know it; others
    are ignored.
    """
    time = Zones("UTC").nanos("2026-11-23", "12:00:00", abbreviation)
    noon = Zones("UTC").nanos("2026-11-23", "12:00:00", "")

    assert noon is not None
    assert time == noon - (minutes or 0) * 60 * NANOS
