"""A chunk of the request log that waits until enough of wok-error.log is read."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

from exporter.parse.timezone import Zones
from exporter.pipeline.batch_processor import ProcessingConfig
from exporter.pipeline.reader import ERRORS_STEP_CHUNKS, InProcessReader
from exporter.records import Chunk, Line
from exporter.store.writer import Loaded
from exporter.wok.operations import Operations

FILE = bytes(16)
SECOND = 10**9
WRITTEN = int(datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC).timestamp()) * SECOND
AHEAD = b"[23/Nov/2026:10:00:00] ENGINE nothing of interest\n"


class Chunks:
    """A source whose reads are given."""

    def __init__(self, chunks: Sequence[Chunk], default: Chunk) -> None:
        self.left = deque(chunks)
        self._default = default

    def read(self, limit: int) -> Chunk:  # noqa: ARG002 - the protocol's signature
        return self.left.popleft() if self.left else self._default

    def close(self) -> None:
        """Nothing is open."""


def request(number: int) -> Line:
    """Return a request whose task starts."""
    info = {"req": "POST", "status": 202, "app": "/plugins/kimchi", "user": "ada", "ip": "192.0.2.7"}
    info |= {"date": "2026-11-23", "time": "10:00:00", "zone": "UTC"}
    message = {"code": "KCHVM0010L", "params": {"ident": f"web{number}"}}
    data = json.dumps({"id": f"{number:032x}", "info": info, "message": message, "error": None}).encode()
    return Line(FILE, number * 1000, data, len(data))


def reader(errors: int, wall: Sequence[int]) -> tuple[InProcessReader, Chunks]:
    """Return a reader of one request, with so many chunks of wok-error.log before its end."""
    times = deque(wall)
    log = Chunks([Chunk([request(1)], "one", caught_up=True)], Chunk([], "one", caught_up=True))
    more = [Chunk([Line(FILE, n, AHEAD, len(AHEAD))], str(n)) for n in range(errors)]
    wok_errors = Chunks(more, Chunk([], "end", caught_up=True))
    loaded = Loaded(positions={}, state="", open_tasks=[], ended=[], series=set())
    config = ProcessingConfig("test", Zones("UTC"), Operations.load(), 60 * SECOND)
    opened = InProcessReader(
        config,
        loaded,
        log=lambda _: log,
        errors=lambda _: wok_errors,
        wall=lambda: times.popleft() if len(times) > 1 else times[0],
    )
    return opened, log


def test_time_does_not_pass_for_a_chunk_that_waits() -> None:
    """Lines that are written while a chunk waits are not yet read, so the clock of its read counts:
    a later one would close windows, and expire tasks, to which those lines belong.
    """
    at_once, _ = reader(0, [WRITTEN])
    waits, log = reader(ERRORS_STEP_CHUNKS + 1, [WRITTEN, WRITTEN + 3600 * SECOND])
    expected = at_once.step()
    first, second = waits.step(), waits.step()
    assert expected is not None
    assert first is not None
    assert second is not None

    assert (list(first.events), list(first.opened), "log" in first.positions) == ([], [], False)
    assert (second.events, second.opened, second.positions["log"]) == (
        expected.events,
        expected.opened,
        "one",
    )
    assert not log.left
    later = waits.step()
    assert later is not None, "the clock of the next read counts again: the task expires"
    assert (len(second.opened), len(second.closed), len(later.closed)) == (1, 0, 1)


def test_time_does_not_pass_while_the_log_cannot_be_read() -> None:
    """An unreadable log may have an end for each running task, so the clock ends none of them until it is read."""
    wall = deque([WRITTEN, WRITTEN + 3600 * SECOND])
    chunks = [
        Chunk([request(1)], "one", caught_up=True),
        Chunk([], "one", caught_up=True, is_readable=False),
    ]
    log = Chunks(chunks, Chunk([], "one", caught_up=True))
    opened = InProcessReader(
        ProcessingConfig("test", Zones("UTC"), Operations.load(), 60 * SECOND),
        Loaded(positions={}, state="", open_tasks=[], ended=[], series=set()),
        log=lambda _: log,
        errors=None,
        wall=lambda: wall.popleft() if len(wall) > 1 else wall[0],
    )
    started, unreadable, readable = opened.step(), opened.step(), opened.step()
    assert started is not None
    assert readable is not None

    assert (len(started.opened), unreadable, len(readable.closed)) == (1, None, 1)
