"""A reader in a process of its own gives the same results as one in this process, and ends with its
parent.
"""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from exporter.parse.timezone import Zones
from exporter.pipeline.batch_processor import BatchResult, ProcessingConfig
from exporter.pipeline.reader import BatchReader, InProcessReader
from exporter.pipeline.reader_process import Encoding, SubprocessReader
from exporter.records import NANOS
from exporter.simulate.story import story
from exporter.source.archive import Archive, ArchiveError
from exporter.store.writer import Loaded
from exporter.telemetry.resource import Identity
from exporter.wok.messages import Messages
from exporter.wok.operations import Operations

EMPTY = Loaded({}, "", [], [], set())
EXPIRY = 24 * 3600 * NANOS


@pytest.fixture(name="logs")
def _logs(tmp_path: Path) -> tuple[Path, Path]:
    """The demo's story as a request log and an error log."""
    requests, errors = tmp_path / "wok-req.log", tmp_path / "wok-error.log"
    start = datetime(2026, 8, 12, 9, tzinfo=UTC)
    lines = list(story("rfc", start=start))
    requests.write_bytes(b"".join(line.data + b"\n" for line in lines if line.log == "requests"))
    errors.write_bytes(b"".join(line.data + b"\n" for line in lines if line.log == "errors"))
    return requests, errors


def subprocess_reader(
    files: list[Path],
    errors: Path | None = None,
    *,
    access: Path | None = None,
    is_kept: bool = True,
    encoding: Encoding | None = None,
) -> SubprocessReader:
    return SubprocessReader(
        EMPTY,
        files,
        wok_error_log=errors,
        wok_access_log=access,
        instance="test",
        zone="UTC",
        expiry=EXPIRY,
        line_bytes_max=1 << 20,
        is_kept=is_kept,
        messages=[],
        encoding=encoding,
    )


def everything(reader: BatchReader) -> list[BatchResult]:
    found: list[BatchResult] = []
    while not found or not found[-1].caught_up:
        result = reader.step()
        assert result is not None
        found.append(result)
    reader.close()
    return found


@pytest.mark.parametrize("is_kept", [True, False])
def test_what_crosses_the_pipe_is_equal(logs: tuple[Path, Path], is_kept: bool) -> None:
    """Events, changes, counters and histograms arrive unchanged."""
    requests, errors = logs
    config = ProcessingConfig("test", Zones("UTC"), Operations.load(), EXPIRY, is_kept=is_kept)
    in_process = InProcessReader(
        config, EMPTY, log=partial(Archive, [requests]), errors=partial(Archive, [errors]), wall=None
    )

    assert everything(subprocess_reader([requests], errors, is_kept=is_kept)) == everything(in_process)


def test_events_that_the_child_encodes_are_as_if_encoded_here(logs: tuple[Path, Path]) -> None:
    """The items and the rows of the history of each batch are those that the parent would make of its events."""
    encoding = Encoding(
        Identity("test", "host", "h", {"deployment.environment.name": "lab"}, "wokd"),
        "wok-req.log",
        {},
        "hash",
        ("logs", "traces"),
        keeps_history=True,
    )
    builder = encoding.builder(Messages.load([]), Operations.load())
    as_events = everything(subprocess_reader([logs[0]], logs[1]))
    encoded = everything(subprocess_reader([logs[0]], logs[1], encoding=encoding))

    assert [builder.commit(result) for result in encoded] == [builder.commit(result) for result in as_events]
    assert (
        sum(result.event_count for result in encoded) == sum(len(result.events) for result in as_events) > 0
    )
    assert not any(result.events for result in encoded)


def test_a_file_that_is_missing_is_an_error_of_the_archive(tmp_path: Path) -> None:
    """If the child cannot read a file, the error has the name of the file, as in the parent."""
    reader = subprocess_reader([tmp_path / "nothing.log"])
    with pytest.raises(ArchiveError, match=r"nothing\.log"):
        reader.step()
    reader.close()


def test_a_child_that_is_killed_is_an_error(logs: tuple[Path, Path]) -> None:
    """If the child was killed, the error says so, and no zombie process remains."""
    reader = subprocess_reader([logs[0]])
    os.kill(reader._child.pid, signal.SIGKILL)
    reader._child.wait()
    # What it had written before may still be in the pipe.
    with pytest.raises(ArchiveError, match="was killed by signal 9"):
        everything(reader)
    reader.close()

    assert reader._child.returncode is not None
