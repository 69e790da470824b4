"""The status of false 500s from the files to the store: `timed_lines.py`, `answers.py` and the pipeline."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.correlate.true_status import is_doubtful
from exporter.parse.timezone import Zones
from exporter.pipeline.answers import AccessLog
from exporter.pipeline.batch_processor import BatchProcessor, BatchResult, ProcessingConfig
from exporter.pipeline.reader import InProcessReader
from exporter.records import NANOS, Chunk, Line, RequestSeen
from exporter.source.archive import Archive
from exporter.source.timed_lines import BLOCK_BYTES, FOUND_BYTES_MAX, TimedLines
from exporter.store.writer import Loaded
from exporter.wok.access_log import time_of
from exporter.wok.operations import Operations

from .test_reader_process import everything, subprocess_reader

EMPTY = Loaded({}, "", [], [], set())
EXPIRY = 24 * 3600 * NANOS
START = 1_780_000_000
UTC_ZONES = Zones("UTC")


def request(
    at: float, name: str = "web", *, error: str = "", address: str = "10.0.0.1", number: int = 0
) -> bytes:
    """Return a PUT that Wok has logged as 500."""
    time = datetime.fromtimestamp(START + at, UTC)
    record = {
        "id": f"00000000-0000-4000-8000-{number:012}",
        "message": {"code": "KCHVM0003L", "params": {"ident": name}},
        "error": {"code": error, "params": {}} if error else None,
        "info": {
            "app": "/plugins/kimchi",
            "req": "PUT",
            "status": 500,
            "user": "root",
            "ip": address,
            "date": f"{time:%Y-%m-%d}",
            "time": f"{time:%H:%M:%S}",
            "zone": "UTC",
        },
    }
    return json.dumps(record).encode() + b"\n"


def other(at: float, number: int) -> bytes:
    """Return a request without a doubt."""
    return request(at, number=number).replace(b'"status": 500', b'"status": 200')


def answer(
    at: float, status: int = 303, name: str = "web", *, address: str = "10.0.0.1", agent: str = ""
) -> bytes:
    time = datetime.fromtimestamp(START + at, UTC)
    agent = agent.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    address = address.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    path = f"/plugins/kimchi/vms/{name}"
    return (
        f'{address} - - [{time:%d/%b/%Y:%H:%M:%S}] "PUT {path} HTTP/1.1" {status} 164 "" "{agent}"\n'.encode()
    )


def poll(at: float) -> bytes:
    return answer(at, 200).replace(b"PUT", b"GET")


def lines_of(data: bytes) -> Iterator[Line]:
    offset = 0
    for text in data.split(b"\n")[:-1]:
        yield Line(b"f" * 16, offset, text, len(text))
        offset += len(text) + 1


def config_of(access: Path | None) -> ProcessingConfig:
    return ProcessingConfig(
        "test",
        UTC_ZONES,
        Operations.load(),
        EXPIRY,
        access_log=AccessLog(access, UTC_ZONES) if access is not None else None,
    )


def loaded(result: BatchResult) -> Loaded:
    """Return what the store would have after this result of a log that opens no tasks."""
    return Loaded(dict(result.positions), result.state, [], [], set())


def seen(results: Sequence[BatchResult]) -> list[RequestSeen]:
    return [event for result in results for event in result.events if isinstance(event, RequestSeen)]


def read_at_once(log: bytes, access: Path | None) -> list[RequestSeen]:
    """Return the requests of a finished log, in the order of the log."""
    config = config_of(access)
    processor = BatchProcessor(config, EMPTY)
    chunk = Chunk(list(lines_of(log)), "1", caught_up=True)
    with closing(config.access_log) if config.access_log is not None else nullcontext():
        return sorted(seen([processor.advance(chunk, finished=True)]), key=lambda event: event.ordinal)


def counted(results: Sequence[BatchResult]) -> Counter[str]:
    found: Counter[str] = Counter()
    for result in results:
        for series, count in result.counters.items():
            if series[0] == "wok_exporter_access_answers_total":
                found[series[1]] += int(count)
    return found


def test_a_rename_is_a_303_everywhere(tmp_path: Path) -> None:
    """The event and the counters have the status of the answer; the event also has the logged one."""
    (tmp_path / "access").write_bytes(answer(10))
    processor = BatchProcessor(config_of(tmp_path / "access"), EMPTY)
    log = request(10) + other(13, 1)
    result = processor.advance(Chunk(list(lines_of(log)), "1", caught_up=True), finished=True)
    (first, second) = (event.record for event in sorted(seen([result]), key=lambda event: event.ordinal))

    assert (first.status, first.logged_status) == (303, 500)
    assert (second.status, second.logged_status) == (200, None)
    assert result.counters["wok_requests_total", "kimchi", "PUT", "303"] == 1
    assert ("wok_requests_total", "kimchi", "PUT", "500") not in result.counters
    assert counted([result]) == {"corrected": 1}


@pytest.mark.parametrize("kind", ["missing", "directory", "empty", "unreadable", "damaged"])
def test_without_answers_all_is_as_logged(tmp_path: Path, kind: str) -> None:
    """A file that is missing or cannot be used leaves the status as it is."""
    access = tmp_path / "access"
    if kind == "directory":
        access.mkdir()
    elif kind == "empty":
        access.touch()
    elif kind == "unreadable":
        access.symlink_to(access)
    elif kind == "damaged":
        access.write_bytes(b"\x1f\x8b" + answer(10))
    with_file, without = (read_at_once(request(10), path) for path in (access, None))

    assert with_file == without
    assert with_file[0].record.status == 500


def test_a_request_waits_for_its_window_only(tmp_path: Path) -> None:
    """A request without an answer comes with the first record two seconds later, or three seconds later by the clock."""
    config = config_of(tmp_path / "missing")
    lines = list(lines_of(request(10) + other(11, 1) + other(12, 2)))
    processor = BatchProcessor(config, EMPTY)
    found = [len(seen([processor.advance(Chunk([line], "1"))])) for line in lines]
    idle = BatchProcessor(config, EMPTY)
    idle.advance(Chunk(lines[:1], "1"))
    end = (START + 13) * NANOS

    assert found == [0, 1, 2]
    assert (idle.is_due(end - 1), idle.is_due(end)) == (False, True)
    assert len(seen([idle.advance(Chunk([], "1", caught_up=True), now=end)])) == 1


def test_a_contested_request_waits_a_second_more(tmp_path: Path) -> None:
    """A request whose answer is in doubt comes three seconds later, or four by the clock, also over a restart."""
    access = tmp_path / "access"
    access.write_bytes(answer(10) + answer(10, 500) + answer(11))
    config = config_of(access)
    lines = list(lines_of(request(10) + other(12, 1) + other(13, 2)))
    results: list[BatchResult] = []
    processor = BatchProcessor(config, EMPTY)
    for line in lines:
        results.append(processor.advance(Chunk([line], "1")))
        processor = BatchProcessor(config, loaded(results[-1]))
    idle = BatchProcessor(config, loaded(results[0]))
    times = [(START + 10 + seconds) * NANOS for seconds in (3, 4)]
    late = [len(seen([idle.advance(Chunk([], "1", caught_up=True), now=time)])) for time in times]

    assert [len(seen([result])) for result in results] == [0, 1, 2]
    assert counted(results) == {"contested": 1}
    assert late == [0, 1]


def test_the_answer_of_a_switched_off_log(tmp_path: Path) -> None:
    """A request that waits when wok-access.log is switched off is sent as logged, once."""
    (tmp_path / "access").write_bytes(answer(10))
    first = BatchProcessor(config_of(tmp_path / "access"), EMPTY)
    result = first.advance(Chunk(list(lines_of(request(10))), "1"))
    second = BatchProcessor(config_of(None), loaded(result))
    found = seen([result, second.advance(Chunk([], "1", caught_up=True), finished=True)])

    assert [event.record.status for event in found] == [500]


@pytest.mark.parametrize(
    "forged",
    [
        answer(
            10,
            200,
            "x",
            agent='"\n10.0.0.1 - - [28/May/2026:20:26:50] "PUT /plugins/kimchi/vms/web HTTP/1.1" 303 1 ""',
        ),
        answer(
            10,
            200,
            "x",
            address='10.0.0.1 - - [28/May/2026:20:26:50] "PUT /plugins/kimchi/vms/web HTTP/1.1" 303 1',
        ),
        answer(10, 303, address="10.0.0.1 - - [28/May/2026:20:26:50]"),
        answer(10, 303, address="10.0.0.1 - x"),
        answer(10, 404, 'web HTTP/1.1\\" 303 1 \\"'),
        answer(10, 303),
        answer(10, 303) * 3,
        answer(9, 303) + answer(11, 303),
    ],
)
def test_a_forged_answer_changes_no_true_500(tmp_path: Path, forged: bytes) -> None:
    """Whatever a client writes beside the line of a true 500, before or after it, the status stays."""
    for data in (forged + answer(10, 500), answer(10, 500) + forged):
        (tmp_path / "access").write_bytes(data)

        assert [event.record.status for event in read_at_once(request(10), tmp_path / "access")] == [500]


@pytest.mark.parametrize("before", [1, 2, 3, 4])
def test_answers_without_a_request_are_held_against_all(tmp_path: Path, before: int) -> None:
    """Where somebody writes such lines all the time, even a 500 whose own line is missing stays one."""
    (tmp_path / "access").write_bytes(answer(10 - before) + answer(10))

    assert [event.record.status for event in read_at_once(request(10), tmp_path / "access")] == [500]


REQUESTS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 1, 1, 2, 3, 60]),
        st.sampled_from(["web", "db"]),
        st.sampled_from(["", "", "KCHVM0015E"]),
        st.sampled_from([303, 303, 500, 0]),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(REQUESTS, st.data())
def test_live_and_replay_agree(
    tmp_path: Path, drawn: list[tuple[int, str, str, int, int]], data: st.DataObject
) -> None:
    """Any batches, restarts and rotations, with an access log that grows as wokd writes it, give the requests of a
    replay, each once; if all lines are there, no more false 500s are found than there are such answers.
    """
    at, log, answers = 10, [], []
    for number, (step, name, error, status, delay) in enumerate(drawn):
        at += step
        log.append((at, request(at, name, error=error, number=number)))
        if status:
            answers.append((at + delay, answer(at + delay, 500 if error else status, name)))
    log.append((at + 5, other(at + 5, 99)))
    answers.sort(key=lambda each: each[0])
    access = tmp_path / "access"
    rotated = tmp_path / "access.1"
    rotated.unlink(missing_ok=True)
    access.write_bytes(b"".join(line for _, line in answers))
    expected = read_at_once(b"".join(line for _, line in log), access)

    access.write_bytes(b"")
    results: list[BatchResult] = []
    processor = BatchProcessor(config_of(access), EMPTY)
    lines = list(lines_of(b"".join(line for _, line in log)))
    taken = 0
    while taken < len(lines):
        size = data.draw(st.integers(1, 4))
        batch, taken = lines[taken : taken + size], taken + size
        # What wokd has written when this batch is read: at least all lines of earlier seconds.
        now = log[min(taken, len(lines)) - 1][0]
        more = data.draw(st.integers(0, 2))
        with access.open("ab") as file:
            while answers and answers[0][0] < now + more:
                file.write(answers.pop(0)[1])
        if not rotated.exists() and data.draw(st.booleans()):
            access.rename(rotated)
            access.touch()
        results.append(processor.advance(Chunk(batch, "1")))
        if data.draw(st.booleans()):
            processor = BatchProcessor(config_of(access), loaded(results[-1]))
    results.append(processor.advance(Chunk([], "1", caught_up=True), finished=True))
    found = seen(results)
    renamed = sum(event.record.status == 303 for event in expected)

    assert sorted(found, key=lambda event: event.ordinal) == expected
    assert len(found) == len(lines)
    if all(status for _, _, _, status, _ in drawn):
        assert renamed <= sum(status == 303 and not error for _, _, error, status, _ in drawn)
    assert sum(counted(results).values()) == sum(
        is_doubtful(event.record._replace(status=event.record.logged_status or event.record.status))
        for event in found
    )


def test_the_child_of_a_replay_finds_the_same(tmp_path: Path) -> None:
    """A replay that reads in a second process sends the same statuses."""
    (tmp_path / "log").write_bytes(request(10) + other(13, 1) + request(20, "db", number=2))
    (tmp_path / "access").write_bytes(answer(10) + answer(20, 500, "db"))
    here = InProcessReader(
        config_of(tmp_path / "access"),
        EMPTY,
        log=partial(Archive, [tmp_path / "log"]),
        errors=None,
        wall=None,
    )
    there = subprocess_reader([tmp_path / "log"], access=tmp_path / "access")
    events = seen(everything(here))

    assert seen(everything(there)) == events
    assert sorted(event.record.status or 0 for event in events) == [200, 303, 500]


def test_nothing_but_the_status_is_kept(tmp_path: Path) -> None:
    """No text of wok-access.log is in an event or in the state, before and after the decision."""
    secret = answer(10, agent="token-5ecret").replace(b"vms/web ", b"vms/web?password=5ecret ")
    (tmp_path / "access").write_bytes(answer(9, 303, "5ecret") + secret)
    processor = BatchProcessor(config_of(tmp_path / "access"), EMPTY)
    results = [processor.advance(Chunk([line], "1")) for line in lines_of(request(10) + other(13, 1))]

    assert [event.record.status for event in seen(results)] == [303, 200]
    assert "5ecret" not in repr(results)


# The files


def found(path: Path, first: float, last: float) -> list[bytes] | None:
    with closing(TimedLines(path, partial(time_of, zones=UTC_ZONES))) as lines:
        texts = lines.between(int((START + first) * NANOS), int((START + last) * NANOS))
    return None if texts is None else [text + b"\n" for text in texts]


PACKERS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0, 1, 200])), min_size=1, max_size=30),
    st.integers(0, 3),
    st.sampled_from(sorted(PACKERS)),
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 6)), min_size=1, max_size=4),
)
def test_lines_are_found_in_any_file(
    tmp_path: Path,
    steps: list[tuple[int, int]],
    rotations: int,
    suffix: str,
    sought: list[tuple[int, int]],
) -> None:
    """All lines of the seconds are found, and no other, wherever they lie in a large log and its rotated files, and in
    whatever order the seconds are sought.
    """
    at, lines = 0, []
    for step, count in steps:
        at += step
        lines += [(at, poll(at)), *((at, poll(at)) for _ in range(count))]
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    share = len(lines) // (rotations + 1)
    for number in range(rotations + 1):
        end = len(lines) - number * share
        part = lines[0 if number == rotations else end - share : end]
        data = b"".join(line for _, line in part)
        if number:
            (folder / f"log.{number}{suffix}").write_bytes(PACKERS[suffix](data))
        else:
            (folder / "log").write_bytes(data)
    with closing(TimedLines(folder / "log", partial(time_of, zones=UTC_ZONES))) as log:
        for first, span in sought:
            expected = [line[:-1] for at, line in lines if first <= at <= first + span]

            assert log.between((START + first) * NANOS, (START + first + span) * NANOS) == expected


def test_a_damaged_archive_is_unknown(tmp_path: Path) -> None:
    """What lies behind the damage of a compressed file is unknown, and what lies before it is found."""
    packed = gzip.compress(b"".join(poll(at) + os.urandom(40).hex().encode() + b"\n" for at in range(5000)))
    (tmp_path / "log.1.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "log").write_bytes(poll(9000))

    assert found(tmp_path / "log", 10, 11) == [poll(10), poll(11)]
    assert found(tmp_path / "log", 4000, 4001) is None


def test_a_line_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    """A line without its end is no line yet."""
    (tmp_path / "log").write_bytes(poll(1) + poll(2)[:-1])

    assert found(tmp_path / "log", 0, 5) == [poll(1)]


def test_too_many_lines_are_unknown(tmp_path: Path) -> None:
    """A flood of lines within these seconds is not read to its end."""
    flood = poll(10) * (FOUND_BYTES_MAX // len(poll(10)) + 1000)
    (tmp_path / "log").write_bytes(poll(1) + flood + poll(30))

    assert found(tmp_path / "log", 9, 11) is None
    assert found(tmp_path / "log", 29, 31) == [poll(30)]


def test_text_without_times_is_passed(tmp_path: Path) -> None:
    """Long lines and text of other programs hide no line of the log."""
    noise = (b"x" * 3 * BLOCK_BYTES) + b"\n" + b"# restarted\n" * 5000
    (tmp_path / "log").write_bytes(noise + poll(10) + noise + poll(20) + noise)

    assert found(tmp_path / "log", 10, 10) == [poll(10)]
    assert found(tmp_path / "log", 20, 20) == [poll(20)]


def test_nothing_is_read_without_a_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a doubtful request, wok-access.log is not even opened."""
    asked: list[int] = []
    monkeypatch.setattr(TimedLines, "between", lambda _, first, __: asked.append(first))
    log = b"".join(other(at, at) for at in range(100)) + request(100, error="KCHVM0015E")
    read_at_once(log, tmp_path / "access")

    assert asked == []
    read_at_once(log + request(101), tmp_path / "access")
    assert len(asked) == 1
