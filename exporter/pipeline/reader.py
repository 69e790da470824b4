"""Reads batches of lines from the log files and processes them.

wok-error.log is read after each chunk of the request log. wokd writes an exception before the final
record of its task, and a start mark before it serves a request. So once a chunk is there, all
entries of wok-error.log that concern it are there too. While the exporter catches up, it reads
wok-error.log a little beyond the chunk. If that is a lot of data, the chunk waits, and what was
read so far is committed in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from exporter.correlate.pending_blocks import AHEAD_ITEMS, bound_of
from exporter.pipeline.attempt import Attempts
from exporter.pipeline.batch_processor import (
    BatchProcessor,
    BatchResult,
    Checkpoint,
    InputFacts,
    ProcessingConfig,
)
from exporter.records import Chunk, Source
from exporter.store.writer import Loaded
from exporter.wok.error_log import ErrorLog

READ_BYTES = 1024 * 1024
"""Size of a batch: a tenth of a second of work for a quick stop, and few commits for a long
backlog. A task that starts and ends in one batch is never stored as an open one.
"""
ERRORS_READ_BYTES = 64 * 1024
ERRORS_STEP_CHUNKS = 64
"""Chunks of wok-error.log that are read before their result is committed."""

OpenSource = Callable[[str], Source]
"""Opens a source at a stored position; an empty position is the beginning."""


class BatchReader(Protocol):
    """Where a pipeline gets its results from."""

    def step(self) -> BatchResult | None:
        """Return the result of the next lines; None if there is nothing to commit."""

    def close(self) -> None:
        """Close files and processes."""


class InProcessReader:
    """Reads, parses and correlates in this process, continuing from the stored state `loaded`.

    `log` and `errors` open the log and wok-error.log. `wall` is the wall clock in nanoseconds, None
    for a finished log. `attempts` records the line that is being parsed, for the next start after a
    crash.
    """

    def __init__(
        self,
        config: ProcessingConfig,
        loaded: Loaded,
        *,
        log: OpenSource,
        errors: OpenSource | None,
        wall: Callable[[], int] | None,
        attempts: Attempts | None = None,
    ) -> None:
        self._wall = wall
        self._processor = BatchProcessor(config, loaded, attempts)
        self._log = log(loaded.positions.get("log", ""))
        self._state = loaded.state
        self._is_placed = "log" in loaded.positions
        self._errors = errors(loaded.positions.get("restarts", "")) if errors is not None else None
        self._error_log = ErrorLog(config.zones, self._processor.errors_state)
        self._access_log = config.access_log
        self._quotes = config.quotes
        self._errors_time = 0
        # The chunk that waits for more of wok-error.log, the time of its last record, and the wall
        # clock at its read.
        self._waiting: Chunk | None = None
        self._latest = 0
        self._read_at: int | None = None

    def step(self) -> BatchResult | None:
        """Read at most a batch and return its result; None if caught up and there is nothing to
        commit.
        """
        # Get the time before reading: a line that is written meanwhile must not be older than
        # `now`. This includes all steps in which the chunk waits.
        if self._waiting is None:
            self._read_at = self._wall() if self._wall is not None else None
        wall = self._read_at
        chunk = self._waiting or self._log.read(READ_BYTES)
        latest = self._processor.parse(chunk) if self._waiting is None else self._latest
        found, is_enough = self._read_errors(None if chunk.caught_up else latest)
        if not is_enough:
            self._waiting, self._latest = chunk, latest
            return self._processor.wait(chunk)
        self._waiting = None
        # What an unreadable log says of the time until now may change every conclusion.
        now = wall if chunk.caught_up and chunk.is_readable else None
        finished = wall is None and chunk.caught_up
        is_idle = chunk.caught_up and not (chunk.lines or chunk.events or found or finished)
        # Commit a first start even without lines: the next start must continue from the same
        # position.
        is_placed, self._is_placed = self._is_placed, True
        if is_idle and is_placed and (now is None or not self._processor.is_due(now)):
            return None
        result = self._processor.advance(chunk, now=now, wall=wall, finished=finished)
        is_changed = (
            result.events or result.opened or result.closed or result.noticed or result.state != self._state
        )
        self._state = result.state
        # If the clock was set, the change that was due may not happen: then there is nothing to
        # commit.
        return None if is_idle and is_placed and not is_changed else result

    @property
    def facts(self) -> InputFacts:
        """Counts of what the log contained so far."""
        return self._processor.facts

    def _read_errors(self, latest: int | None) -> tuple[bool, bool]:
        """Read wok-error.log a little beyond `latest`, or to its end if that is None.

        Return whether there were any lines, and whether enough was read.
        """
        if self._errors is None:
            return False, True
        found = False
        for _ in range(ERRORS_STEP_CHUNKS):
            if latest is not None and self._errors_time > latest and self._processor.ahead > AHEAD_ITEMS:
                return found, True
            chunk = self._errors.read(ERRORS_READ_BYTES)
            items = [item for line in chunk.lines for item in self._error_log.feed(line.data)]
            for item in items:
                self._errors_time = max(self._errors_time, bound_of(item))
            log = self._error_log
            checkpoint = None if log.held else Checkpoint(log.number, chunk.position, log.state)
            if chunk.lines:
                found = True
                self._processor.offer(items, checkpoint)
                if self._quotes is not None:
                    self._quotes.outdate()
            if chunk.caught_up or not chunk.lines:
                return found, True
        return found, False

    def close(self) -> None:
        """Close the files."""
        self._log.close()
        if self._errors is not None:
            self._errors.close()
        if self._access_log is not None:
            self._access_log.close()
