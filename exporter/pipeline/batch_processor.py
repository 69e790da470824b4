"""The middle of the program, first half: a chunk of lines in, what it means out.

`Core.advance` parses the lines, correlates the records and counts all of it. It has no clock and no files. What it
returns is everything the chunk has changed; what it keeps is the same thing in memory. When that cannot be
committed, the core is thrown away and made again from the store: that is the only recovery.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from exporter.correlate.correlator import Correlator
from exporter.correlate.error_evidence import ErrorEvidence
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
from exporter.wok.error_log import Item
from exporter.wok.forgery import NOTHING, Forged, forged_by
from exporter.wok.operations import Operations
from exporter.wok.task_functions import TaskFunctions

CHECKPOINTS_MAX = 64
"""Places in wok-error.log from which it may be read again; above it, every second one is forgotten."""


class Checkpoint(NamedTuple):
    """A place in wok-error.log where nothing was half read: behind item `number`, with the reader's own `state`."""

    number: int
    position: str
    state: str


class ZoneShift(NamedTuple):
    """From here on the log's own zone is so far, in nanoseconds, from the configured one."""

    nanos: int


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
    """All that decides what a log means, besides the log: equal configurations and equal logs give equal events.

    `code_of` finds the message code of a sentence, for the releases that wrote no codes (2.1, 2.2).
    `expiry` is in nanoseconds. `skip_until` is the time before which a first start leaves records out
    (`--start-at`); the first record that is not older ends it. `is_kept` is False where the state is thrown away
    and nobody can ask for metrics: nothing is counted then, and what runs is not written down. `functions` tells
    whose exception a traceback is.
    """

    instance: str
    zones: Zones
    naming: Operations
    expiry: int
    skip_until: int = 0
    is_kept: bool = True
    code_of: Callable[[str], str] = no_code
    functions: TaskFunctions | None = None


class BatchProcessor:
    """Parser, correlator and tally as one, as they were when `loaded` was committed."""

    def __init__(self, config: ProcessingConfig, loaded: Loaded, attempts: Attempts | None = None) -> None:
        kept = json.loads(loaded.state) if loaded.state else {}
        self._parser = Parser(config.instance, config.zones, kept.get("parser", ""))
        self._errors = ErrorEvidence(
            config.naming, config.functions, expiry=config.expiry, state=kept.get("errors", "")
        )
        for mark in kept.get("marks", ()):
            self._errors.expect(mark)
        self.errors_state: str = kept.get("errors_read", "")
        self._checkpoints: deque[Checkpoint] = deque()
        self._parsed: tuple[Chunk, list[Parsed | Forged | ZoneShift], str] | None = None
        self._correlator = Correlator(
            config.naming,
            expiry=config.expiry,
            code_of=config.code_of,
            state=kept.get("correlator", ""),
            open_tasks=loaded.open_tasks,
            ended=loaded.ended,
            errors=self._errors,
        )
        self._tally = Tally(SeriesLimits(loaded.series, config.naming.tasks))
        self._is_kept = config.is_kept
        self._attempts = attempts
        self._skip_until: int = kept.get("skip_until", config.skip_until)
        # a state of an earlier release does not say: it has had records
        self._facts = InputFacts(*kept.get("input", (1, 0, 0) if kept else (0, 0, 0)))

    @property
    def facts(self) -> InputFacts:
        """What is in the log so far."""
        return self._facts

    def is_due(self, now: int) -> bool:
        """Tell whether the wall clock alone (in nanoseconds) gives something to do: a window to close, a task
        that has expired, a restart that is certain by now.
        """
        return self._correlator.is_due(now)

    def offer(self, items: Sequence[Item], checkpoint: Checkpoint | None = None) -> None:
        """Take what wok-error.log says next; `checkpoint` is the place behind it, where nothing is half read."""
        self._errors.offer(items)
        if checkpoint is not None:
            self._checkpoints.append(checkpoint)
            if len(self._checkpoints) > CHECKPOINTS_MAX:
                self._checkpoints = deque(list(self._checkpoints)[::2])

    @property
    def ahead(self) -> int:
        """How many items of wok-error.log wait for the request log to reach their time."""
        return self._errors.ahead

    def parse(self, chunk: Chunk) -> int:
        """Parse a chunk of lines; return the time of its last record in nanoseconds, 0 without one.

        `advance` must follow with the same chunk. Until then the state is the one before it.
        """
        parser = self._parser
        state = parser.state
        parsed: list[Parsed | Forged | ZoneShift] = []
        shift = self._errors.shift
        for line in chunk.lines:
            forged = forged_by(line.data)
            if forged is not NOTHING:
                parsed.append(forged)
            parsed += parser.feed(line) if len(line.data) <= LONG_BYTES else self._parse_long(line)
            if parser.shift != shift and parser.shift is not None:
                shift = parser.shift
                parsed.insert(len(parsed) - 1, ZoneShift(shift))
        self._parsed = (chunk, parsed, state)
        return next((item.time for item in reversed(parsed) if isinstance(item, Record)), 0)

    def wait(self, chunk: Chunk) -> BatchResult:
        """Return the changes so far, without those of a chunk that has been parsed and must wait.

        More of wok-error.log has to be read before it.
        """
        waiting = chunk._replace(lines=(), events=(), caught_up=False)
        result = _only([], waiting)
        return self._kept(result, "") if self._is_kept else result

    def advance(
        self, chunk: Chunk, *, now: int | None = None, wall: int | None = None, finished: bool = False
    ) -> BatchResult:
        """Take a chunk of lines and return what it means.

        All of wok-error.log up to the newest of these lines must have been offered by now. `wall` is the wall clock
        in nanoseconds, None for a finished log; `now` is the same when the reader is caught up. `finished` says that
        no line will ever follow.
        """
        self._tally.latest = None if wall is None else wall + AHEAD_MAX
        if self._parsed is None or self._parsed[0] is not chunk:
            self.parse(chunk)
        events = self._read(chunk)
        self._parsed = None
        if finished:
            events += self._correlator.finish()
        elif now is not None:
            if self._skip_until > now:
                # The clock was ahead at the first start, and what it has left out was not old.
                self._skip_until = 0
            events += self._correlator.quiet(now)
        result = _only(events, chunk)
        return self._kept(result, chunk.position) if self._is_kept else result

    def _kept(self, result: BatchResult, position: str) -> BatchResult:
        """Return what a chunk means with all that it has changed; `position` is that of the log, if it has moved."""
        for event in result.events:
            self._tally.event(event)
        changes = self._correlator.changes()
        self._tally.blocks({str(result): count for result, count in self._errors.take_counts().items()})
        positions = {"log": position} if position else {}
        while self._checkpoints and self._checkpoints[0].number <= self._errors.admitted:
            behind = self._checkpoints.popleft()
            positions["restarts"], self.errors_state = behind.position, behind.state
        counters, gauges, histograms = self._tally.take()
        state = {
            "parser": self._parsed[2] if self._parsed is not None else self._parser.state,
            "correlator": changes.state,
            "errors": self._errors.state,
            "errors_read": self.errors_state,
            "skip_until": self._skip_until,
            "input": self._facts,
        }
        return result._replace(
            positions=positions,
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
        assert self._parsed is not None, "parse() comes first"
        correlate = self._correlator.feed
        count = self._tally.parsed if self._is_kept else _ignore
        records, skipped, unparsed = self._facts
        events: list[Event] = []
        self._tally.chunk(chunk)
        for item in self._parsed[1]:
            if isinstance(item, Record):
                records, unparsed = records + 1, 0
                if self._skip_until:
                    if item.time < self._skip_until:
                        skipped += 1
                        continue
                    self._skip_until = 0
                count(item)
                events += correlate(item)
            elif isinstance(item, Forged):
                self._errors.discredit(item)
            elif isinstance(item, ZoneShift):
                self._errors.shift = item.nanos
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
