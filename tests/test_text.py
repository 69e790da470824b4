"""The log as lines of text."""

from __future__ import annotations

import unicodedata
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from exporter.command.text import render
from exporter.records import NANOS, Record
from exporter.terminal.text import visible

BRT = timezone(timedelta(hours=-3), "BRT")
NOON = int(datetime(2016, 8, 12, 11, 49, 55, tzinfo=BRT).timestamp()) * NANOS

REQUEST = Record(
    kind="request",
    dialect="rfc",
    time=NOON,
    app="kimchi",
    method="POST",
    status=202,
    user="ada",
    address="192.168.122.62",
    code="KCHVM0009L",
    params={},
    error_code="",
    error_params={},
    text="",
    trace_id=bytes(16),
    record_id="",
    file=bytes(16),
    offset=0,
)
TASK = REQUEST._replace(kind="finished", method="TASK", status=1002, user="", address="", failed=True)


def test_a_request() -> None:
    """A request stands in the columns of Wok's own download."""
    expected = "[2016-08-12 11:49:55 BRT] POST   202 kimchi      192.168.122.62  ada: a clone"

    assert expected == render(REQUEST, "a clone", BRT)


def test_a_task() -> None:
    """A task begins as the RFC prints it, with blanks where nobody asked for it."""
    line = render(TASK, "it failed (KCHVM0001E: no room)", BRT)

    expected = (
        "[2016-08-12 11:49:55 BRT] TASK   1002 kimchi                      : it failed (KCHVM0001E: no room)"
    )
    assert expected == line


def test_missing_fields_leave_the_columns_where_they_are() -> None:
    """A record of Wok 2.1, without status, address and user, keeps its columns under those of others."""
    whole = render(REQUEST, "x", BRT)
    bare = render(REQUEST._replace(status=None, address="", user=""), "x", BRT)

    expected = "[2016-08-12 11:49:55 BRT] POST       kimchi                      : x"
    assert expected == bare
    assert whole.index("kimchi") == bare.index("kimchi")
    assert whole.index("ada:") == bare.index(": x")


def test_the_zone_is_the_readers() -> None:
    """The same moment is shown in the zone that was asked for, on the right side of a change of the clocks."""
    paris = ZoneInfo("Europe/Paris")
    summer = REQUEST._replace(time=int(datetime(2026, 10, 25, 2, 30, tzinfo=paris).timestamp()) * NANOS)
    winter = summer._replace(time=summer.time + 3600 * NANOS)

    assert render(summer, "", paris).startswith("[2026-10-25 02:30:00 CEST] POST")
    assert render(winter, "", paris).startswith("[2026-10-25 02:30:00 CET] POST")


def test_the_hosts_zone() -> None:
    """Without a zone the host's own is shown."""
    local = datetime.fromtimestamp(NOON // NANOS).astimezone()

    assert render(REQUEST, "", None).startswith(f"[{local:%Y-%m-%d %H:%M:%S %Z}]")


def test_a_hostile_record_is_one_harmless_line() -> None:
    """No field can begin a line, move a cursor, or turn the direction of the text."""
    nasty = "a\nb\rc\td\x1b[2J\u202ee\u2028f\x00\x9b\u200bg\ud800\u00a0h"
    line = render(REQUEST._replace(user=nasty, address=nasty, app=nasty, method=nasty), nasty, BRT)

    seen = "a\\nb\\rc\\td\ufffd[2J\ufffde\ufffdf\ufffd\ufffd\ufffdg\ufffd h"
    assert f"[2016-08-12 11:49:55 BRT] {seen} 202 {seen} {seen} {seen}: {seen}" == line


@given(st.text())
def test_only_printable_characters_are_left(text: str) -> None:
    """Whatever goes in, what comes out is printable, of one line, and encodable."""
    seen = visible(text)

    assert seen.isprintable()
    assert len(seen.splitlines()) <= 1
    assert seen == seen.encode().decode()
    assert not {unicodedata.category(c) for c in seen} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"], include_characters=" ")))
def test_honest_text_stays_as_it_is(text: str) -> None:
    """Letters, digits, signs and emoji of every script are shown as they are."""
    assert text == visible(text)
