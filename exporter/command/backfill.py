"""`backfill`: add older records to what the page, `tasks` and `trace` show.

A daemon starts to read at `start_at`, and its counters start there. To read older lines into the
same counters afterwards would count the tasks of last month as those of today, and send them a
second time to a backend that has them. So only the history gets them. The log is read once more,
up to the place that the daemon has reached, into a temporary state: so a task that the daemon knows
by its end alone is matched with its request by the same rules as everywhere (`store/older.py`).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import tzinfo
from pathlib import Path
from typing import TextIO

from exporter.command.file_kind import names_of_kinds
from exporter.command.query_source import read_through
from exporter.command.temporary import temporary_directory
from exporter.config.options import Config
from exporter.correlate.stored import renumbered
from exporter.ids import task_span_id
from exporter.metrics.counting import Tally
from exporter.metrics.series import SeriesLimits
from exporter.parse.timezone import load_zone
from exporter.pipeline.batch_processor import BatchResult, without_skipped
from exporter.pipeline.commit_builder import CommitBuilder
from exporter.pipeline.cycles import collect_seldom
from exporter.pipeline.from_config import (
    archive_of,
    error_archive_of,
    messages_of,
    processing_config_of,
    telemetry_of,
)
from exporter.pipeline.pipeline import Pipeline
from exporter.pipeline.reader import InProcessReader
from exporter.records import OpenTask, Record, Series, TaskEnded, TaskStarted
from exporter.source.rotation import listed_paths
from exporter.source.tail import last_mark
from exporter.source.up_to import UpTo
from exporter.store.database import STATE_FILE, LockedError
from exporter.store.older import Added, Again
from exporter.store.writer import Loaded, Store, StoreError
from exporter.terminal import task_table as view
from exporter.terminal.text import visible
from exporter.wok.operations import Operations, uuid_bytes

TASKS_WATCHED = 100_000
"""Tasks whose other contexts are remembered: those near the place where the daemon began."""


def backfill(
    config: Config,
    files: Sequence[Path],
    *,
    since: int,
    out: TextIO,
    screen: TextIO | None = None,
) -> int:
    """Add what is older in `files`, or in the log and its rotated files, to the daemon's state.

    Records before `since` (nanoseconds, 0 for all) are left out. Prints what was added to `out`,
    and problems of the files to `screen`, stderr by default. Returns 0, or 1 with such problems.
    Raises StoreError if the daemon runs, if there is no state or it does not fit the files, and
    ArchiveError if a file cannot be read. The state then is what it was.
    """
    assert config.state is not None, "the configuration of this command has a state"
    screen = screen or sys.stderr
    if not (config.state / STATE_FILE).is_file():
        raise StoreError(
            f"{config.state} has no state yet: set start_at to the time from which on the daemon must read, and"
            " start it"
        )
    with ExitStack() as resources:
        store = resources.enter_context(closing(_state(config, config.state)))
        loaded = store.load()
        paths = files or listed_paths(config.log, config.olddir)
        source = _source(config, paths, loaded)
        resources.callback(source.close)
        scratch = resources.enter_context(
            closing(_store(config, temporary_directory(resources), is_temporary=True))
        )
        watched, damages = _read(config, paths, source, scratch, since, screen)
        if not source.is_reached:
            raise StoreError(
                "the files end before the place up to which the daemon has read: name the log and all of its"
                " rotated files"
            )
        added = store.add_older(
            Again(scratch.directory, watched.aliases, renumbered),
            without_skipped(loaded.state),
            lambda tasks: _started(loaded, tasks),
        )
    if not added.is_found:
        raise StoreError(
            f"the first request in the history of {config.state} is not in these files: name the log and all of"
            " its rotated files. Nothing was changed"
        )
    zone = load_zone(config.timezone) if config.timezone else None
    out.writelines(f"{visible(line)}\n" for line in _told(config, added, zone))
    out.flush()
    problems = [*damages, *filter(None, [names_of_kinds(files)])]
    screen.writelines(f"error: {visible(problem)}\n" for problem in problems)
    return 1 if problems else 0


class _Watched:
    """A reader that remembers under which contexts a task would be known without its request."""

    def __init__(self, reader: InProcessReader) -> None:
        self._reader = reader
        self.aliases: dict[bytes, Sequence[bytes]] = {}
        self._order: deque[bytes] = deque()

    def step(self) -> BatchResult | None:
        """Return the result of the next lines."""
        result = self._reader.step()
        for event in result.events if result is not None else ():
            if isinstance(event, TaskStarted | TaskEnded) and event.record is not None:
                self._remember(event.context, event.record)
        return result

    def _remember(self, context: bytes, record: Record) -> None:
        alone = [
            trace_id + task_span_id(trace_id, record.file, record.offset)
            for trace_id in (uuid_bytes(record.request_id), record.trace_id)
            if trace_id
        ]
        known = self.aliases.get(context)
        if known is None:
            self._order.append(context)
            if len(self._order) > TASKS_WATCHED:
                del self.aliases[self._order.popleft()]
        self.aliases[context] = (*(known or ()), *(name for name in alone if name != context))

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()


def _state(config: Config, directory: Path) -> Store:
    try:
        return _store(config, directory)
    except LockedError:
        raise StoreError(
            f"{directory} is in use by a running wok-exporter. Stop it (systemctl stop wok-exporter), run this"
            " command again, and start it: it continues where it stopped, and loses nothing"
        ) from None


def _store(config: Config, directory: Path, *, is_temporary: bool = False) -> Store:
    return Store(
        directory,
        requests_kept=config.history_requests,
        tasks_kept=config.history_tasks,
        history_bytes_max=config.history_bytes_max,
        is_temporary=is_temporary,
    )


def _source(config: Config, paths: Sequence[Path], loaded: Loaded) -> UpTo:
    position = loaded.positions.get("log", "")
    try:
        is_begun = last_mark(position) is not None
    except ValueError as error:
        raise StoreError(
            f"{config.state} contains the state of a replay, not of a daemon: set --state to the daemon's directory"
        ) from error
    if not is_begun:
        raise StoreError(
            f"the daemon with the state {config.state} has not read anything yet: set start_at to the time from"
            " which on it must read, and start it with an empty directory as state"
        )
    archive = archive_of(config, paths)
    try:
        return UpTo(archive, position)
    except BaseException:
        archive.close()
        raise


def _read(
    config: Config, paths: Sequence[Path], source: UpTo, scratch: Store, since: int, screen: TextIO
) -> tuple[_Watched, Sequence[str]]:
    """Read the log into the temporary state; return the contexts of its tasks, and damages."""
    messages = messages_of(config)
    processing = processing_config_of(config, messages, files=paths, skip_until=since)
    errors = error_archive_of(config)
    watched: list[_Watched] = []

    def open_reader(loaded: Loaded) -> _Watched:
        watched.append(
            _Watched(InProcessReader(processing, loaded, log=lambda _: source, errors=errors, wall=None))
        )
        return watched[-1]

    builder = CommitBuilder(telemetry_of(config, messages, config.log.name), signals=frozenset())
    collect_seldom()
    with closing(Pipeline(scratch, builder, open_reader, now=lambda: 0.0)) as pipeline:
        damages = read_through(pipeline, source, screen)
    return watched[-1], damages


def _started(loaded: Loaded, tasks: Sequence[OpenTask]) -> Mapping[Series, float]:
    """Count the starts of tasks whose ends the daemon will count."""
    tally = Tally(SeriesLimits(loaded.series, Operations.load().tasks))
    for task in tasks:
        tally.started(task.app, task.operation)
    return tally.take()[0]


def _told(config: Config, added: Added, zone: tzinfo | None) -> Sequence[str]:
    told = []
    counts = {
        "request": added.requests,
        "finished task": added.tasks,
        "running task": len(added.running),
    }
    found = [f"{count:,} {name}{'' if count == 1 else 's'}" for name, count in counts.items() if count]
    if found:
        told.append(f"Added to the history: {', '.join(found)}.")
    if added.completed:
        tasks = "1 task" if added.completed == 1 else f"{added.completed:,} tasks"
        told.append(f"Completed {tasks}: only the end was known, not the request or the start.")
    if not told and not added.is_full:
        told.append("There was nothing to add: the history has all older records of these files.")
    if added.oldest is not None:
        told.append(
            f"The history in {config.state} begins at {view.local(added.oldest, zone):%Y-%m-%d %H:%M:%S}."
        )
    if added.is_full:
        told.append(
            "It has no room for all older records: to add the others, raise history_requests, history_tasks or"
            " history_bytes_max, and run this again."
        )
    if found or added.completed:
        told.append(
            "Metrics have not changed, and nothing was sent. To send these records, run `wok-exporter replay FILE"
            " ...` with the same files."
        )
    return told
