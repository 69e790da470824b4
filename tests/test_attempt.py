"""No start dies twice of the same line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporter.parse.timezone import Zones
from exporter.pipeline.attempt import LONG_BYTES, Attempts
from exporter.pipeline.batch_processor import BatchProcessor, BatchResult, ProcessingConfig
from exporter.records import Chunk, Line, RequestSeen
from exporter.store.writer import Loaded
from exporter.wok.operations import Operations

FILE = bytes(16)


def line(number: int, size: int = 0) -> Line:
    info = {"req": "POST", "status": 200, "app": "", "user": f"user {number}", "date": "2026-11-23"}
    info |= {"time": f"10:00:{number:02}", "zone": "UTC"}
    data = json.dumps({"info": info, "message": {"code": "X", "params": {"note": "x" * size}}}).encode()
    return Line(FILE, number * 1_000_000, data, len(data))


LINES = [line(1), line(2, 2 * LONG_BYTES), line(3), line(4, LONG_BYTES)]


def read(path: Path, chunk: Chunk) -> BatchResult:
    """Process a chunk as at a start before the first commit."""
    loaded = Loaded(positions={}, state="", open_tasks=[], ended=[], series=set())
    config = ProcessingConfig("test", Zones("UTC"), Operations.load(), 10**15)
    return BatchProcessor(config, loaded, Attempts(path)).advance(chunk)


def users(result: BatchResult) -> list[str]:
    return [event.record.user for event in result.events if isinstance(event, RequestSeen)]


def test_a_line_that_ends_the_process_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a line crashed the process, the next start rejects and counts it, and reads all other
    lines.
    """
    path = tmp_path / "line-being-read"

    def die(attempts: Attempts) -> None:
        raise SystemExit(137)  # as if killed: nothing is done any more

    chunk = Chunk(LINES, "position")
    with monkeypatch.context() as patch:
        patch.setattr(Attempts, "end", die)
        with pytest.raises(SystemExit):
            read(path, chunk)
    result = read(path, chunk)

    assert users(result) == ["user 1", "user 3", "user 4"]
    assert result.counters["wok_exporter_rejected_lines_total", "unsafe"] == 1
    assert users(read(path, chunk)) == ["user 1", "user 3", "user 4"]


def test_lines_that_are_survived_leave_nothing(tmp_path: Path) -> None:
    """The position of a parsed line is removed, and short lines are never recorded."""
    path = tmp_path / "line-being-read"
    attempts = Attempts(path)
    attempts.begin(LINES[1])
    written = path.read_text()
    attempts.end()

    assert (written, path.exists()) == (f"{FILE.hex()} 2000000", False)
    assert users(read(path, Chunk(LINES, "position"))) == ["user 1", "user 2", "user 3", "user 4"]
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"\xff", b"x" * 1000])
def test_any_file_in_its_place_does_no_harm(content: bytes, tmp_path: Path) -> None:
    """A damaged file, or an unwritable directory, does not prevent any line from being read."""
    path = tmp_path / "line-being-read"
    path.write_bytes(content)

    assert len(users(read(path, Chunk(LINES, "position")))) == 4
    assert len(users(read(tmp_path / "missing" / "file", Chunk(LINES, "position")))) == 4
