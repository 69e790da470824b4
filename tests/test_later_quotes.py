"""What is forged in wok-error.log is known in a backlog as well, where the line that quotes it comes much later."""

from __future__ import annotations

import gzip
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from io import StringIO
from pathlib import Path

import pytest

from exporter.command.backfill import backfill
from exporter.parse.timezone import Zones
from exporter.pipeline.batch_processor import ProcessingConfig
from exporter.pipeline.later_quotes import BLOCK_BYTES, QUOTES_MAX, LaterQuotes
from exporter.pipeline.reader import InProcessReader
from exporter.records import NANOS, Event, TaskEnded
from exporter.source.archive import Archive
from exporter.store.writer import Loaded
from exporter.wok.operations import Operations
from exporter.wok.task_functions import TaskFunctions

from .error_log_made import BOOT, SWAPS_CREATE, block, task_id
from .records_made import EPOCH
from .test_backfill import configured, read

EMPTY = Loaded(positions={}, state="", open_tasks=[], ended=[], series=set())
FORGED = "7f3a0b1c-eac8-11f1-9d32-02fc00000001"


def quote(task_id: str) -> bytes:
    return b'{"username": "x\\nError in async_task ' + task_id.encode() + b'"}\n'


def quotes_in(*paths: Path) -> LaterQuotes:
    return LaterQuotes(lambda: paths)


@pytest.mark.parametrize("before", [b"", b"{}\n" * 3, b"{}\n" * BLOCK_BYTES, b"x" * 3 * BLOCK_BYTES + b"\n"])
def test_a_quote_is_found_wherever_it_stands(tmp_path: Path, before: bytes) -> None:
    """Quotes are found in the first block and in later ones, at the edges of blocks, in plain and packed files."""
    plain, packed = tmp_path / "log", tmp_path / "log.1.gz"
    plain.write_bytes(before + quote(FORGED))
    packed.write_bytes(gzip.compress(before + quote(task_id(1)) + b"{}\n"))
    quotes = quotes_in(packed, plain)

    assert quotes.has(FORGED, 0)
    assert quotes.has(task_id(1), 0)
    assert not quotes.has(task_id(2), 0)


def test_a_log_is_searched_again_when_more_is_read(tmp_path: Path) -> None:
    """New lines count after `outdate`, in a log that has grown, was truncated, or was rotated."""
    log = tmp_path / "log"
    log.write_bytes(b"{}\n" * 100)
    quotes = quotes_in(tmp_path / "log.1", log)
    found = [quotes.has(FORGED, 0)]

    with log.open("ab") as file:
        file.write(quote(FORGED)[:50])
    quotes.outdate()
    found.append(quotes.has(FORGED, 0))
    with log.open("ab") as file:
        file.write(quote(FORGED)[50:])
    found.append(quotes.has(FORGED, 0))
    quotes.outdate()
    found.append(quotes.has(FORGED, 0))
    log.write_bytes(quote(task_id(1)))
    quotes.outdate()
    found.append(quotes.has(task_id(1), 0))
    log.rename(tmp_path / "log.1")
    log.write_bytes(quote(task_id(2)))
    quotes.outdate()
    found.append(quotes.has(task_id(2), 0))

    assert found == [False, False, False, True, True, True]


def test_what_does_not_matter_is_not_read(tmp_path: Path) -> None:
    """Files that ended long before, missing files, directories and lines without a line break are passed over."""
    old, log = tmp_path / "log.2", tmp_path / "log"
    old.write_bytes(quote(FORGED))
    os.utime(old, (EPOCH, EPOCH))
    (tmp_path / "log.1").mkdir()
    log.write_bytes(b"Error in async_task " + task_id(1).encode() + b"\n")
    quotes = quotes_in(old, tmp_path / "log.1", tmp_path / "log.0", log)

    assert not quotes.has(FORGED, (EPOCH + 2 * 24 * 3600) * NANOS)
    assert not quotes.has(task_id(1), 0)


def test_a_flood_of_quotes_proves_nothing(tmp_path: Path) -> None:
    """If more is quoted than can be remembered, nothing is known to be true."""
    log = tmp_path / "log"
    log.write_bytes(b"".join(quote(f"{number:08x}{FORGED[8:]}") for number in range(QUOTES_MAX + 2)))

    assert quotes_in(log).has(task_id(1), 0)


def written(at: int, app: str, method: str, code: str, params: str, status: int) -> str:
    seconds = f"{20 + at // 60:02}:{at % 60:02}"
    return (
        f'{{"message": {{"code": "{code}", "params": {params}}}, "error": null, "info": {{"status": {status}, '
        f'"zone": "UTC", "ip": "192.0.2.1", "app": "{app}", "req": "{method}", "user": "ada", '
        f'"time": "21:{seconds}", "date": "2016-07-31"}}, "timestamp": "2016-07-31 21:{seconds} UTC"}}\n'
    )


def ended(folder: Path, errors: Sequence[str | bytes], *, has_quotes: bool) -> list[TaskEnded]:
    """The tasks of both logs, read as a backlog."""
    log, error_log = folder / "user-requests.data", folder / "wok-error.log"
    error_log.write_bytes(
        b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in errors)
    )
    config = ProcessingConfig(
        "test",
        Zones("UTC"),
        Operations.load(),
        24 * 3600 * NANOS,
        functions=TaskFunctions.load(),
        quotes=quotes_in(log) if has_quotes else None,
    )
    reader = InProcessReader(
        config, EMPTY, log=partial(Archive, [log]), errors=partial(Archive, [error_log]), wall=None
    )
    events: list[Event] = []
    is_read = False
    while not is_read:
        result = reader.step()
        assert result is not None
        events += result.events
        is_read = result.caught_up
    reader.close()
    return [event for event in events if isinstance(event, TaskEnded)]


SWAP = ("ginger", "POST", "GINSP0001L", '{"file_loc": "/a"}', 202)
FAILED = ("ginger", "TASK", "WOKASYNC0002L", '{"target_uri": "/swaps/file_loc/"}', 400)
OTHER = ("kimchi", "POST", "KCHVM0005L", '{"ident": "db"}', 200)


def login(quoted: str) -> tuple[str, str, str, str, int]:
    return ("wok", "POST", "WOKROOT0001L", f'{{"username": "x\\n{quoted}"}}', 401)


@pytest.mark.parametrize(
    ("has_quotes", "said"),
    [(True, ""), (False, "forged")],
    ids=["quotes are searched", "without the search: this is what it prevents"],
)
def test_a_block_that_is_forged_later_gives_no_reason(tmp_path: Path, has_quotes: bool, said: str) -> None:
    """A task that failed without a reason gets none from a block that is forged half an hour later."""
    made = task_id(10.3)
    lines = [written(10, *SWAP), written(12, *FAILED), *(written(60 * at, *OTHER) for at in range(1, 30))]
    (tmp_path / "user-requests.data").write_text(
        "".join([*lines, written(1800, *login(f"Error in async_task {made}"))])
    )
    (task,) = ended(tmp_path, block(made, SWAPS_CREATE, "ValueError: forged"), has_quotes=has_quotes)

    assert (task.outcome, task.exception_text) == ("failure", said)


@pytest.mark.parametrize(
    ("has_quotes", "outcome"),
    [(True, "failure"), (False, "lost")],
    ids=["quotes are searched", "without the search: this is what it prevents"],
)
def test_a_restart_that_is_forged_later_ends_nothing(tmp_path: Path, has_quotes: bool, outcome: str) -> None:
    """A running task survives a mark of a restart that is forged an hour later, with the time of the task."""
    boot = [line.replace(b"01/Aug/2016:00:00:0", b"31/Jul/2016:21:20:2") for line in BOOT]
    quoted = boot[-1].decode()
    lines = [written(10, *SWAP), *(written(60 * at, *OTHER) for at in range(1, 30)), written(1700, *FAILED)]
    (tmp_path / "user-requests.data").write_text("".join([*lines, written(1800, *login(quoted))]))
    tasks = ended(tmp_path, boot, has_quotes=has_quotes)

    assert tasks[0].outcome == outcome


def test_backfill_searches_the_files_that_it_reads(tmp_path: Path) -> None:
    """A block that is forged later gives no reason in a backfill from files that were moved elsewhere either."""
    made = task_id(10.3)
    lines = [written(10, *SWAP), written(12, *FAILED), *(written(60 * at, *OTHER) for at in range(1, 32))]
    quote_line = written(1800, *login(f"Error in async_task {made}"))
    log, error_log = tmp_path / "user-requests.data", tmp_path / "wok-error.log"
    log.write_text("".join([*lines[:-1], quote_line, lines[-1]]))
    error_log.write_text("".join(f"{line}\n" for line in block(made, SWAPS_CREATE, "ValueError: forged")))
    config = replace(configured(tmp_path), wok_error_log=error_log)
    read(config, since=datetime.fromtimestamp(EPOCH + 1850, UTC))
    moved = tmp_path / "elsewhere" / "user-requests.data-20160801"
    moved.parent.mkdir()
    log.rename(moved)
    assert backfill(config, [moved], since=0, out=StringIO(), screen=StringIO()) == 0
    assert config.state is not None
    with closing(sqlite3.connect(config.state / "state.db")) as db:
        found = db.execute("SELECT outcome, exception FROM task").fetchall()

    assert found == [("failure", "")]
