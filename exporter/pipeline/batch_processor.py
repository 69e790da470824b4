"""The middle of the program, first half: a chunk of lines in, what it means out.

`Core.advance` parses the lines, correlates the records and counts all of it. It has no clock and no files. What it
returns is everything the chunk has changed; what it keeps is the same thing in memory. When that cannot be
committed, the core is thrown away and made again from the store: that is the only recovery.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from exporter.correlate.correlator import Correlator
from exporter.correlate.settle_window import SETTLE_QUIET_NANOS
from exporter.metrics.counting import Tally
from exporter.metrics.series import SeriesLimits
from exporter.parse.parser import Parser
from exporter.parse.timezone import Zones
from exporter.pipeline.attempt import LONG_BYTES, Attempts
from exporter.records import (
    NANOS,
    Chunk,
    Event,
    Histogram,
    Line,
    OpenTask,
    Parsed,
    Record,
    Rejected,
    Series,
    TailEvent,
)
from exporter.store.writer import Loaded
from exporter.wok.operations import Operations

AHEAD_MAX = 24 * 3600 * NANOS
"""A record further ahead of this host's clock is a clock's mistake, and no gauge shows it. Hosts of one log are at most
a time zone apart."""


class BatchResult(NamedTuple):
    """What a chunk of lines means: events in order, and all that has changed, as in `records.Commit`.

    `lines` were read, `noticed` happened to the file, `behind` bytes are known to be still unread.
    """

    events: Sequence[Event]
    positions: Mapping[str, str]
    state: str
    opened: Sequence[OpenTask]
    closed: Sequence[bytes]
    counters: Mapping[Series, float]
    gauges: Mapping[Series, float]
    histograms: Mapping[Series, Histogram]
    lines: int
    noticed: Sequence[TailEvent]
    caught_up: bool
    behind: int


class InputFacts(NamedTuple):
    """What is in the log so far: `records` of which `skipped` are older than the configured start, and
    `unparsed` parts of lines since the last record.
    """

    records: int
    skipped: int
    unparsed: int


def no_code(_: str) -> str:
    """Know no sentence: what Wok's message tables would, where there are none."""
    return ""


class ProcessingConfig(NamedTuple):
    """All that decides what a log means, besides the log: equal rules and equal logs give equal events.

    `code_of` finds the message code of a sentence, for the releases that wrote no codes (2.1, 2.2).
    `expiry` is in nanoseconds. `skip_until` is the time before which a first start leaves records out
    (`--start-at`); the first record that is not older ends it. `is_kept` is False where the state is thrown away
    and nobody can ask for metrics: nothing is counted then, and what runs is not written down.
    """

    instance: str
    zones: Zones
    naming: Operations
    expiry: int
    skip_until: int = 0
    is_kept: bool = True
    code_of: Callable[[str], str] = no_code


class BatchProcessor:
    """Parser, correlator and tally as one, as they were when `loaded` was committed."""

    def __init__(self, rules: ProcessingConfig, loaded: Loaded, attempts: Attempts | None = None) -> None:
        kept = json.loads(loaded.state) if loaded.state else {}
        self._parser = Parser(rules.instance, rules.zones, kept.get("parser", ""))
        self._correlator = Correlator(
            rules.naming,
            expiry=rules.expiry,
            code_of=rules.code_of,
            state=kept.get("correlator", ""),
            open_tasks=loaded.open_tasks,
            ended=loaded.ended,
        )
        self._tally = Tally(SeriesLimits(loaded.series, rules.naming.tasks))
        self._is_kept = rules.is_kept
        self._attempts = attempts
        self._marks: list[int] = kept.get("marks", [])
        self._skip_until: int = kept.get("skip_until", rules.skip_until)
        # a state of an earlier release does not say: it has had records
        self._facts = InputFacts(*kept.get("input", (1, 0, 0) if kept else (0, 0, 0)))

    @property
    def facts(self) -> InputFacts:
        """What is in the log so far."""
        return self._facts

    def is_due(self, now: int) -> bool:
        """Tell whether the wall clock alone (in nanoseconds) gives something to do: a window to close, a task
        that has expired, a mark whose time has come.
        """
        return self._correlator.is_due(now) or (
            bool(self._marks) and self._marks[0] + SETTLE_QUIET_NANOS <= now
        )

    def advance(
        self,
        chunk: Chunk,
        *,
        marks: Sequence[int] = (),
        marks_position: str = "",
        now: int | None = None,
        wall: int | None = None,
        finished: bool = False,
    ) -> BatchResult:
        """Take a chunk of lines and return what it means.

        `marks` are further starts of wokd, from wok-error.log; all up to the newest of these lines must be
        known by now. `wall` is the wall clock in nanoseconds, None for a finished log; `now` is the same when the
        reader is caught up. `finished` says that no line will ever follow.
        """
        self._tally.latest = None if wall is None else wall + AHEAD_MAX
        if marks:
            self._marks = sorted([*self._marks, *marks])
        events = self._read(chunk)
        if finished:
            # wokd may have restarted after its last record, as the daemon would have seen
            while self._marks:
                events += self._correlator.restart(self._marks.pop(0))
            events += self._correlator.finish()
        elif now is not None:
            if self._skip_until > now:
                # The clock was ahead at the first start, and what it has left out was not old.
                self._skip_until = 0
            while self._marks and self._marks[0] + SETTLE_QUIET_NANOS <= now:
                events += self._correlator.restart(self._marks.pop(0))
            events += self._correlator.quiet(now)
        meant = _only(events, chunk)
        return self._kept(meant, chunk.position, marks_position) if self._is_kept else meant

    def _kept(self, meant: BatchResult, position: str, marks_position: str) -> BatchResult:
        """Return what a chunk means with all that it has changed."""
        for event in meant.events:
            self._tally.event(event)
        changes = self._correlator.changes()
        counters, gauges, histograms = self._tally.take()
        state = {
            "parser": self._parser.state,
            "correlator": changes.state,
            "marks": self._marks,
            "skip_until": self._skip_until,
            "input": self._facts,
        }
        return meant._replace(
            positions={"log": position, **({"restarts": marks_position} if marks_position else {})},
            state=json.dumps(state, separators=(",", ":")),
            opened=changes.opened,
            closed=changes.closed,
            counters=counters,
            gauges=gauges,
            histograms=histograms,
        )

    def _parse_long(self, line: Line) -> Sequence[Parsed]:
        if self._attempts is None:
            return self._parser.feed(line)
        if not self._attempts.begin(line):
            return [self._parser.skip(line)]
        parsed = self._parser.feed(line)
        self._attempts.end()
        return parsed

    def _read(self, chunk: Chunk) -> list[Event]:
        parse, correlate, marks = self._parser.feed, self._correlator.feed, self._marks
        count = self._tally.parsed if self._is_kept else _ignore
        records, skipped, unparsed = self._facts
        events: list[Event] = []
        self._tally.chunk(chunk)
        for line in chunk.lines:
            for item in parse(line) if len(line.data) <= LONG_BYTES else self._parse_long(line):
                if isinstance(item, Record):
                    records, unparsed = records + 1, 0
                    if self._skip_until:
                        if item.time < self._skip_until:
                            skipped += 1
                            continue
                        self._skip_until = 0
                    count(item)
                    while marks and marks[0] <= item.time:
                        events += self._correlator.restart(marks.pop(0))
                    events += correlate(item)
                else:
                    unparsed += isinstance(item, Rejected)
                    if not self._skip_until:
                        count(item)
        self._facts = InputFacts(records, skipped, unparsed)
        return events


def _ignore(_: Parsed) -> None:
    """Count nothing."""


def _only(events: Sequence[Event], chunk: Chunk) -> BatchResult:
    """Return what a chunk means, without what it has changed."""
    return BatchResult(
        events=events,
        positions={},
        state="",
        opened=[],
        closed=[],
        counters={},
        gauges={},
        histograms={},
        lines=len(chunk.lines),
        noticed=chunk.events,
        caught_up=chunk.caught_up,
        behind=chunk.behind,
    )
