"""The reading half of the pipeline: from the files to what their lines mean.

The log of wokd's starts is read after each chunk of requests, and to its end: wokd writes the mark of a start
before it serves a request, so every mark that matters to a chunk is there once the chunk is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from exporter.pipeline.attempt import Attempts
from exporter.pipeline.batch_processor import BatchProcessor, BatchResult, InputFacts, ProcessingConfig
from exporter.records import Source
from exporter.store.writer import Loaded
from exporter.wok import restart_marks as restarts

READ_BYTES = 512 * 1024
"""One batch: some milliseconds of work, so that a stop is answered at once, and few commits for a long backlog."""
MARKS_READ_BYTES = 1024 * 1024

OpenSource = Callable[[str], Source]
"""Opens a source at a position, as the store has kept it; an empty one is the beginning."""


class BatchReader(Protocol):
    """What a pipeline reads from."""

    def step(self) -> BatchResult | None:
        """Return what the next lines mean; None when nothing has happened that would have to be kept."""

    def close(self) -> None:
        """Release what is open."""


class InProcessReader:
    """Reads, parses and correlates in this process, on from what `loaded` says.

    `log` and `marks` open the log and that of wokd's starts; `wall` is the clock in nanoseconds, None for a log
    that is finished. `attempts` remembers the line that is being read, over the end of the process.
    """

    def __init__(
        self,
        rules: ProcessingConfig,
        loaded: Loaded,
        *,
        log: OpenSource,
        marks: OpenSource | None,
        wall: Callable[[], int] | None,
        attempts: Attempts | None = None,
    ) -> None:
        self._rules = rules
        self._wall = wall
        self._core = BatchProcessor(rules, loaded, attempts)
        self._log = log(loaded.positions.get("log", ""))
        self._state = loaded.state
        self._is_placed = "log" in loaded.positions
        self._marks_position = loaded.positions.get("restarts", "")
        self._marks = marks(self._marks_position) if marks is not None else None

    def step(self) -> BatchResult | None:
        """Read what is there, up to a batch, and return what it means; None for nothing, when caught up."""
        # Asked before reading: a line that is written while we read must not be older than "now".
        wall = self._wall() if self._wall is not None else None
        chunk = self._log.read(READ_BYTES)
        marks = self._read_marks()
        now = wall if chunk.caught_up else None
        finished = wall is None and chunk.caught_up
        is_idle = chunk.caught_up and not (chunk.lines or chunk.events or marks or finished)
        # A first start is kept even where it finds nothing: the next one would take another place for its first.
        is_placed, self._is_placed = self._is_placed, True
        if is_idle and is_placed and (now is None or not self._core.is_due(now)):
            return None
        meant = self._core.advance(
            chunk, marks=marks, marks_position=self._marks_position, now=now, wall=wall, finished=finished
        )
        is_changed = (
            meant.events or meant.opened or meant.closed or meant.noticed or meant.state != self._state
        )
        self._state = meant.state
        # What the clock was expected to change may have been settled by a clock that was set: nothing to commit.
        return None if is_idle and is_placed and not is_changed else meant

    @property
    def facts(self) -> InputFacts:
        """What is in the log so far."""
        return self._core.facts

    def _read_marks(self) -> list[int]:
        if self._marks is None:
            return []
        found: list[int] = []
        while True:
            chunk = self._marks.read(MARKS_READ_BYTES)
            found += restarts.marks(chunk.lines, self._rules.zones)
            self._marks_position = chunk.position
            if chunk.caught_up or not chunk.lines:
                return found

    def close(self) -> None:
        """Close the files."""
        self._log.close()
        if self._marks is not None:
            self._marks.close()
