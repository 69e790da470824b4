"""The simulated Wok: its records, the demo's story, and the long day of the benchmarks."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice, pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from exporter.parse.parser import Parser
from exporter.parse.timezone import Zones
from exporter.records import NANOS, Line, Record
from exporter.simulate.busy import busy
from exporter.simulate.records import ADA, FAILED, STARTED, Dialect, Failure, record, task_record
from exporter.simulate.story import story
from exporter.wok.error_log import ErrorLog, Item, Mark

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.simulate.records import SimulatedLine

START = datetime(2026, 11, 23, 8, 0, 0, tzinfo=UTC)
STAMP = {
    "date": "2016-08-12",
    "time": "11:49:55",
    "zone": "BRT",
    "id": "5afaf8a7-0dc6-4ccb-8e31-85120e102ec7",
}
DIALECTS: list[Dialect] = ["rfc", "json"]


def parsed(lines: Iterable[SimulatedLine]) -> list[Record]:
    """Return the records that the product's own parser finds, having found nothing else."""
    parser, offset, records = Parser("test", Zones("UTC")), 0, []
    for line in lines:
        if line.log == "requests":
            for found in parser.feed(Line(bytes(16), offset, line.data, len(line.data))):
                assert isinstance(found, Record), found
                records.append(found)
            offset += len(line.data) + 1
    return records


def test_records_of_the_rfcs_wok() -> None:
    """The rfc dialect is Wok's of its day, byte by byte: key order, blanks, parameters as text, ids as numbers."""
    graphics = {"name": "web01", "graphics": {"passwd": "x", "ports": [1, "a"]}, "cpus": 2, "auto": True}
    error = Failure("KCHVM0035E", {"name": "web01"}, "no room")
    uri = "/plugins/kimchi/vms/web01-clone-1/clone"
    lines = [
        record("rfc", STAMP, "kimchi", "POST", 202, ADA, "KCHVM0001L", graphics, "A guest"),
        task_record("rfc", STAMP, "kimchi", STARTED, uri, 7),
        task_record("rfc", STAMP, "kimchi", FAILED, uri, 7, error),
    ]

    expected = [
        (
            b'{"status": 202, "zone": "BRT", "ip": "192.168.122.10", "app": "kimchi", "req": "POST", '
            b'"msgCode": "KCHVM0001L", "user": "ada", "time": "11:49:55", "date": "2016-08-12"} >>> {"name": "web01", '
            b'"graphics": "{u\'passwd\': u\'x\', u\'ports\': [1, u\'a\']}", "cpus": "2", "auto": "True"}  >>> A guest'
        ),
        (
            b'{"status": 1000, "zone": "BRT", "ip": "", "app": "kimchi", "req": "TASK", "msgCode": "WOKASYNC0000L", '
            b'"user": "", "time": "11:49:55", "date": "2016-08-12"} >>> {"target_uri": '
            b'"/plugins/kimchi/vms/web01-clone-1/clone", "task_id": 7}  >>> '
            b"Kimchi task 7 started: /plugins/kimchi/vms/web01-clone-1/clone"
        ),
        (
            b'{"status": 1002, "detCode": "KCHVM0035E", "zone": "BRT", "ip": "", "app": "kimchi", "req": "TASK", '
            b'"msgCode": "WOKASYNC0002L", "user": "", "time": "11:49:55", "date": "2016-08-12"} >>> {"target_uri": '
            b'"/plugins/kimchi/vms/web01-clone-1/clone", "task_id": 7} >>> {"name": "web01"} >>> '
            b"Kimchi task 7 failed: /plugins/kimchi/vms/web01-clone-1/clone (KCHVM0035E no room)"
        ),
    ]
    assert expected == lines


def test_records_of_wok_3() -> None:
    """The json dialect is Wok 3.0.0's, byte by byte: key order, mount points, 400 for a task that failed."""
    error = Failure("KCHVM0035E", {"name": "web01"}, "no room")
    lines = [
        record("json", STAMP, "wok", "POST", 200, ADA, "WOKROOT0001L", {"username": "josé"}, "unseen"),
        task_record("json", STAMP, "kimchi", FAILED, "/plugins/kimchi/vms/a/migrate", 7, error),
    ]

    expected = [
        (
            b'{"id": "5afaf8a7-0dc6-4ccb-8e31-85120e102ec7", "message": {"code": "WOKROOT0001L", "params": '
            b'{"username": "jos\\u00e9"}}, "error": null, "info": {"app": "", "req": "POST", "status": 200, '
            b'"user": "ada", "ip": "192.168.122.10", "date": "2016-08-12", "time": "11:49:55", "zone": "BRT"}}'
        ),
        (
            b'{"id": "5afaf8a7-0dc6-4ccb-8e31-85120e102ec7", "message": {"code": "WOKASYNC0002L", "params": '
            b'{"target_uri": "/plugins/kimchi/vms/a/migrate"}}, "error": {"code": "KCHVM0035E", "params": '
            b'{"name": "web01"}}, "info": {"app": "/plugins/kimchi", "req": "TASK", "status": 400, "user": "", '
            b'"ip": "", "date": "2016-08-12", "time": "11:49:55", "zone": "BRT"}}'
        ),
    ]
    assert expected == lines


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_story_can_be_told_again(dialect: Dialect) -> None:
    """The same arguments give the same bytes, another seed gives others."""
    first, second, other = (list(story(dialect, start=START, seed=seed)) for seed in (1, 1, 2))

    assert first == second
    assert first != other


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_story_is_in_order_and_on_time(dialect: Dialect) -> None:
    """Lines come in the order of their moments, carry their second, last forty seconds, and never pause for long."""
    lines = list(story(dialect, start=START))
    requests = [line for line in lines if line.log == "requests"]

    assert all(0 <= b.at - a.at < 4 for a, b in pairwise(lines))
    assert 38 < lines[-1].at <= 40
    seconds = [int(START.timestamp()) + int(line.at) for line in requests]
    assert seconds == [found.time // NANOS for found in parsed(requests)]


def test_both_dialects_tell_the_same_story() -> None:
    """Whoever watches sees the same in both dialects; the JSON one only lacks the starts of tasks."""
    notes = [[(line.at, line.note) for line in story(d, start=START) if line.note] for d in DIALECTS]
    kinds = [Counter(found.kind for found in parsed(story(d, start=START))) for d in DIALECTS]

    assert len(notes[0]) > 30
    assert [note for _, note in notes[0]] == [note for _, note in notes[1]]
    without_starts = {kind: n for kind, n in kinds[0].items() if kind != "started"}
    assert without_starts == kinds[1]
    assert all(note.isprintable() for _, note in notes[0])


def test_the_tasks_of_the_story() -> None:
    """Ids count up in the order of starts and begin again at 1; two tasks are lost, one fails twice, one is quick."""
    records = parsed(story("rfc", start=START))
    starts = [int(found.task_id) for found in records if found.kind == "started"]
    second_boot = starts.index(1, 1)
    rows = Counter((found.target_uri, found.task_id) for found in records if found.kind != "request")
    twice = [found for found in records if found.target_uri.endswith("/migrate") and found.kind == "finished"]
    kinds = [found.kind for found in records if "before-upgrade" in repr(found.params)]

    boots = [list(range(1, second_boot + 1)), list(range(1, len(starts) - second_boot + 1))]
    assert boots == [starts[:second_boot], starts[second_boot:]]
    lost = {uri.partition("-clone-")[0] for (uri, _), n in rows.items() if n == 1}
    assert lost == {"/plugins/gingerbase/host/swupdate", "/plugins/kimchi/vms/web01"}
    assert [(found.error_code, found.status) for found in twice] == [("", 1002), ("KCHVM0058E", 1002)]
    assert kinds == ["started", "finished", "request"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_restart(dialect: Dialect) -> None:
    """The error log has a mark for each start of wokd, in local time, and the request log none."""
    zone = timezone(timedelta(hours=5, minutes=30))
    lines = list(story(dialect, start=START.astimezone(zone)))
    log = ErrorLog(Zones("Asia/Kolkata"))
    items: list[Item] = [item for line in lines if line.log == "errors" for item in log.feed(line.data)]
    marks = [item for item in items if isinstance(item, Mark)]

    assert [mark.time for mark in marks] == [int(START.timestamp() + at) * NANOS for at in (0, 28)]
    assert all(mark.is_chained for mark in marks)
    assert not [line for line in lines if line.log == "requests" and b"ENGINE" in line.data]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_story_has_secrets_to_keep(dialect: Dialect) -> None:
    """The log holds a password in a parameter and one in a URL, as real ones do, and no record that is read does."""
    lines = list(story(dialect, start=START))
    log = b"\n".join(line.data for line in lines)

    assert b"correct-horse-battery" in log
    assert b"grace:open-sesame@" in log
    read = repr(parsed(lines))
    assert "correct-horse-battery" not in read
    assert "open-sesame" not in read


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_busy_day(dialect: Dialect) -> None:
    """So many requests come, in order; every task has one request and ends, and every line is understood."""
    lines = list(busy(dialect, start=START, requests=3_000, per_second=200))
    records = parsed(lines)
    requests = [found for found in records if found.kind == "request"]
    tasks = Counter(found.target_uri for found in records if found.kind == "finished")

    assert len(requests) == 3_000
    assert all(a.at <= b.at for a, b in pairwise(lines))
    assert [int(START.timestamp() + line.at) for line in lines] == [found.time // NANOS for found in records]
    assert sum(found.status == 202 for found in requests) == len(tasks)
    assert {2} == {n for uri, n in tasks.items() if n > 1}
    reasons = {
        uri: [found.error_code for found in records if found.target_uri == uri and found.failed]
        for uri, n in tasks.items()
        if n > 1
    }
    assert all(codes == ["", "KCHVM0058E"] for codes in reasons.values())
    assert all(uri.endswith("/migrate") for uri, n in tasks.items() if n > 1)
    if dialect == "rfc":
        starts = [found.task_id for found in records if found.kind == "started"]
        assert [str(n) for n in range(1, len(tasks) + 1)] == starts
    else:
        assert len({found.record_id for found in records}) == len(records)
    share = sum(found.failed for found in records if found.kind == "finished") / len(tasks)
    assert 0.02 < share < 0.2


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_busy_day_can_be_had_again(dialect: Dialect) -> None:
    """The same arguments give the same bytes, another seed gives others, and nothing is made before it is asked for."""
    days = [
        list(islice(busy(dialect, start=START, requests=10**12, per_second=500, seed=seed), 2_000))
        for seed in (1, 1, 2)
    ]

    assert days[0] == days[1]
    assert days[0] != days[2]


def test_a_busy_night_of_the_clocks_change() -> None:
    """Date, time and zone follow the zone of the start, over a change of the clocks."""
    start = datetime(2026, 10, 25, 2, 59, 59, tzinfo=ZoneInfo("Europe/Paris"))
    lines = [line.data for line in busy("json", start=start, requests=2, per_second=1)]
    stamps = [json.loads(line)["info"] for line in (lines[0], lines[-1])]

    clock = [(stamp["time"], stamp["zone"]) for stamp in stamps]
    assert clock[0] == ("02:59:59", "CEST")
    assert clock[1][1] == "CET"
