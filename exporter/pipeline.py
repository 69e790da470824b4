"""From a source of lines into the store: read, advance, commit.

A step reads some lines, lets the core work out what they mean, and commits that in one transaction. Memory is
never ahead of disk: when a commit fails, the sources and the core are thrown away and made again from the
store, which is also what a start does. There is no other recovery.

The log of wokd's starts is read after each chunk of requests, and to its end: wokd writes the mark of a start
before it serves a request, so every mark that matters to a chunk is there once the chunk is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from exporter import restarts
from exporter.advance import Core, restore
from exporter.correlate import Correlator, Naming
from exporter.parse import Parser
from exporter.reading import Readings
from exporter.records import NANOS, Signal, Source
from exporter.store import Loaded, Store
from exporter.tally import Tally
from exporter.telemetry import Telemetry
from exporter.zones import Zones

log = logging.getLogger(__name__)

READ_BYTES = 512 * 1024
"""One batch: some milliseconds of work, so that a stop is answered at once, and few commits for a long backlog."""
MARKS_READ_BYTES = 1024 * 1024

OpenReadings = Callable[[str, str], Readings]
"""Opens the log at a position and with a parser's state, as the store has kept them; empty is the beginning."""
OpenSource = Callable[[str], Source]
"""Opens the log of wokd's starts at a position."""


class Meaning(NamedTuple):
    """All that decides what a log means, besides the log: equal meaning and equal logs give equal bytes.

    `expiry` is in nanoseconds. `skip_until` leaves out what is older, on a first start alone.
    """

    instance: str
    zones: Zones
    naming: Naming
    telemetry: Telemetry
    expiry: int
    skip_until: int = 0
    keeps_history: bool = True

    def parser(self, state: str) -> Parser:
        """Make the parser as it was in `state`."""
        return Parser(self.instance, self.zones, state)

    def core(self, loaded: Loaded, signals: frozenset[Signal]) -> Core:
        """Make the core as it was when `loaded` was committed."""
        _, correlator, marks, skip_until = restore(loaded.state)
        return Core(
            Correlator(
                self.naming,
                expiry=self.expiry,
                state=correlator,
                open_tasks=loaded.open_tasks,
                ended=loaded.ended,
            ),
            self.telemetry,
            Tally(loaded.series),
            signals=signals,
            marks=marks,
            skip_until=skip_until if loaded.state else self.skip_until,
            keeps_history=self.keeps_history,
        )


class Progress(NamedTuple):
    """What a step has done. `committed` tells whether the store has changed."""

    lines: int
    committed: bool
    caught_up: bool
    behind: int


class Pipeline:
    """One log, read into one store; `wall` is the clock in nanoseconds, None for a log that is finished.

    Every method raises StoreError when the store fails; call `restart` before the next step then.
    """

    def __init__(
        self,
        store: Store,
        meaning: Meaning,
        *,
        log: OpenReadings,
        marks: OpenSource | None,
        signals: frozenset[Signal],
        wall: Callable[[], int] | None,
    ) -> None:
        self._store = store
        self._meaning = meaning
        self._open_log = log
        self._open_marks = marks
        self._signals = signals
        self._wall = wall
        self._log: Readings | None = None
        self._marks: Source | None = None
        self._marks_position = ""
        self.restart()

    def restart(self) -> None:
        """Begin again from the store."""
        self.close()
        loaded = self._store.load()
        self._core = self._meaning.core(loaded, self._signals)
        parser, *_ = restore(loaded.state)
        self._log = self._open_log(loaded.positions.get("log", ""), parser)
        if self._open_marks is not None:
            self._marks_position = loaded.positions.get("restarts", "")
            self._marks = self._open_marks(self._marks_position)

    def step(self) -> Progress:
        """Read what is there, up to a batch, and commit what it means."""
        assert self._log is not None, "restart() opens the log"
        # Asked before reading: a line that is written while we read must not be older than "now".
        wall = self._wall() if self._wall is not None else 0
        reading = self._log.read(READ_BYTES)
        marks = self._read_marks()
        for event in reading.events:
            log.warning("%s: %s", event.kind, event.detail)
        now = wall if self._wall is not None and reading.caught_up else None
        finished = self._wall is None and reading.caught_up
        is_idle = not (reading.lines or reading.events or marks or finished)
        if is_idle and (now is None or not self._core.is_due(now)):
            return Progress(0, committed=False, caught_up=reading.caught_up, behind=reading.behind)
        commit = self._core.advance(
            reading, marks=marks, restarts_position=self._marks_position, now=now, finished=finished
        )
        self._store.commit(commit, wall / NANOS)
        return Progress(reading.lines, committed=True, caught_up=reading.caught_up, behind=reading.behind)

    def _read_marks(self) -> list[int]:
        if self._marks is None:
            return []
        found: list[int] = []
        while True:
            chunk = self._marks.read(MARKS_READ_BYTES)
            found += restarts.marks(chunk.lines, self._meaning.zones)
            self._marks_position = chunk.position
            if chunk.caught_up or not chunk.lines:
                return found

    def close(self) -> None:
        """Close the sources; the store stays open."""
        for source in (self._log, self._marks):
            if source is not None:
                source.close()
        self._log = self._marks = None
