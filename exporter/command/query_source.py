"""Where `tasks` and `trace` find their answers: in the daemon's state, or in log files.

The state can be read while the daemon writes it. Log files are read by the same pipeline into a
temporary state, so there is one way from a log to a task. A finished log has no "now": a task that
was running at its end ran until its last record.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple, TextIO

from exporter.command.file_kind import names_of_kinds
from exporter.command.temporary import temporary_directory
from exporter.config.options import Config
from exporter.pipeline.commit_builder import CommitBuilder
from exporter.pipeline.from_config import (
    archive_of,
    error_archive_of,
    messages_of,
    processing_config_of,
    telemetry_of,
)
from exporter.pipeline.pipeline import Pipeline
from exporter.pipeline.reader import InProcessReader
from exporter.source.archive import Archive
from exporter.source.up_to import UpTo
from exporter.store.reader import Reader, Snapshot
from exporter.store.writer import Store
from exporter.terminal.progress import ProgressLine

QUERY_SECONDS = 120.0
"""A person at a terminal may wait, and Ctrl-C ends it."""


class QuerySource(NamedTuple):
    """Where the answers are.

    `snapshot` is of the moment at which running tasks are read, and `requests` the number, and so
    the last ordinal, of all requests then. `now` is in nanoseconds.
    """

    reader: Reader
    snapshot: Snapshot
    requests: int
    now: int


def from_state(config: Config, resources: ExitStack, now: int) -> QuerySource:
    """Return what the daemon's state contains now; running tasks have run until `now`.

    Raises StoreError if there is no state or it cannot be read.
    """
    assert config.state is not None, "the configuration of this command has a state"
    reader = resources.enter_context(closing(Reader(config.state, query_seconds=QUERY_SECONDS)))
    snapshot = reader.snapshot()
    return QuerySource(reader, snapshot, _requests(snapshot), now)


def from_files(config: Config, files: Sequence[Path], resources: ExitStack, screen: TextIO) -> QuerySource:
    """Return what the files contain, read in full; progress goes to `screen`.

    Raises ArchiveError if a file cannot be read.
    """
    directory = temporary_directory(resources)
    store = resources.enter_context(closing(Store(directory)))
    log = archive_of(config, files)
    errors = error_archive_of(config)
    messages = messages_of(config)
    commit_builder = CommitBuilder(telemetry_of(config, messages, files[0].name), signals=frozenset())
    pipeline = Pipeline(
        store,
        commit_builder,
        # the state is new, so the files are read from their beginning, once
        lambda loaded: InProcessReader(
            processing_config_of(config, messages, files=files),
            loaded,
            log=lambda _: log,
            errors=errors,
            wall=None,
        ),
        now=lambda: 0.0,
    )
    with closing(pipeline):
        read_through(pipeline, log, screen)
    reader = resources.enter_context(closing(store.reader(query_seconds=QUERY_SECONDS)))
    snapshot = reader.snapshot()
    requests = _requests(snapshot)
    return QuerySource(reader, snapshot, requests, _last_time(reader, requests))


def read_through(pipeline: Pipeline, source: Archive | UpTo, screen: TextIO) -> Sequence[str]:
    """Read a source to its end, with progress on `screen`; return a sentence for each damage."""
    progress = ProgressLine(screen, source.total_bytes)
    damages: list[str] = []
    lines, is_read = 0, False
    while not is_read:
        step = pipeline.step()
        lines, is_read = lines + step.lines, step.caught_up
        damages += step.damages
        progress.show(source.done_bytes, lines)
    progress.clear()
    return damages


NOTHING_PARSED = "nothing can be parsed: is it Wok's user request log? `check` lists the lines"


def why_nothing(known: QuerySource, files: Sequence[Path]) -> str:
    """Return why files give no answer: they are not logs, or no line could be parsed; otherwise
    empty.
    """
    counters = known.snapshot.counters
    lines = {kind: counters.get(("wok_exporter_lines_total", kind), 0) for kind in ("record", "rejected")}
    is_nothing = bool(files) and not lines["record"] and bool(lines["rejected"])
    return names_of_kinds(files) or (NOTHING_PARSED if is_nothing else "")


def _requests(snapshot: Snapshot) -> int:
    # Counted in the same transaction as the running tasks; ordinals start at 1 and have no gaps. A
    # request that waits for its true status is missing for up to three seconds.
    return int(sum(count for series, count in snapshot.counters.items() if series[0] == "wok_requests_total"))


def _last_time(reader: Reader, requests: int) -> int:
    """Return the time of the last record of a log that was read to its end, 0 if it has none."""
    request = reader.request(requests)
    ended = reader.tasks(limit=1).tasks
    times = [task.start for task in reader.running()]
    times += [task.end for task in ended]
    return max([*times, request.time if request is not None else 0])
