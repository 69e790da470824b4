"""Parses, correlates and counts a chunk of lines. Pure: it has no clock and no files.

`BatchProcessor.advance` returns everything that the chunk changes, and applies the same changes to
its own memory. If they cannot be committed, the processor is discarded and a new one is built from
the store. There is no other recovery.
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
from exporter.pipeline.answers import AccessLog
from exporter.pipeline.attempt import LONG_BYTES, Attempts
from exporter.pipeline.later_quotes import LaterQuotes
from exporter.records import (
    NANOS,
    Chunk,
    Event,
    Histogram,
    JournalRow,
    Line,
    OpenTask,
    Parsed,
    Record,
    Rejected,
    RequestRow,
    Series,
    TailEvent,
    TaskRow,
)
from exporter.store.writer import Loaded
from exporter.wok.error_log import Item
from exporter.wok.forgery import NOTHING, Forged, forged_by
from exporter.wok.operations import Operations
from exporter.wok.task_functions import TaskFunctions

CHECKPOINTS_MAX = 64
"""Checkpoints kept for wok-error.log; above this limit, every second one is dropped."""


class Checkpoint(NamedTuple):
    """A position in wok-error.log from which reading can resume.

    It is directly after item `number`, with no item half read. `state` is the state of the reader
    there.
    """

    number: int
    position: str
    state: str


class ZoneShift(NamedTuple):
    """From here on, the zone in the log differs from the configured zone by `nanos` nanoseconds."""

    nanos: int


AHEAD_MAX = 24 * 3600 * NANOS
"""A record that is further ahead of the host's clock has a wrong timestamp, and gauges ignore it.
A host that wrote the log is at most a time zone away."""


class Encoded(NamedTuple):
    """What leaves the program of some events, `events` of them, and their rows of the history."""

    events: int
    journal: Sequence[JournalRow]
    requests: Sequence[RequestRow]
    tasks: Sequence[TaskRow]


class BatchResult(NamedTuple):
    """Everything that a chunk of lines produces: the events in order, and the changes to the state.

    The changes have the form of `records.Commit`. `lines` is the number of lines read. `noticed`
    lists events of the log file, such as rotations. `behind` is the number of bytes known to be
    unread. If another process has encoded the events already, `encoded` has the result, and there
    are no events.
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
    encoded: Encoded | None = None

    @property
    def event_count(self) -> int:
        """Number of events, encoded or not."""
        return len(self.events) if self.encoded is None else self.encoded.events


class InputFacts(NamedTuple):
    """Counts of what the log contained so far.

    Of the `records`, `skipped` ones are older than the configured start. `unparsed` is the number
    of rejected lines, or parts of lines, since the last record.
    """

    records: int
    skipped: int
    unparsed: int


def no_code(_: str) -> str:
    """Return no message code: the lookup that is used without Wok's message tables."""
    return ""


class ProcessingConfig(NamedTuple):
    """The settings for processing a log: with equal settings, equal logs give equal events.

    `code_of` finds the message code of a sentence, for the releases that wrote no codes (2.1, 2.2).
    `expiry` is in nanoseconds. A first start skips records older than `skip_until` (`--start-at`),
    up to the first record that is not older. `is_kept` is False if the state is temporary and no
    metrics are served. Then nothing is counted, and running tasks are not stored. `functions` finds
    the operations that an exception can belong to. `access_log` finds the answers to requests, and
    `quotes` what later lines quote of wok-error.log.
    """

    instance: str
    zones: Zones
    naming: Operations
    expiry: int
    skip_until: int = 0
    is_kept: bool = True
    code_of: Callable[[str], str] = no_code
    functions: TaskFunctions | None = None
    access_log: AccessLog | None = None
    quotes: LaterQuotes | None = None


def without_skipped(state: str) -> str:
    """Return the stored state without skipped records: they have been read now, and no further one
    is skipped.
    """
    kept = json.loads(state)
    records, _, unparsed = kept.get("input", (1, 0, 0))
    return json.dumps({**kept, "skip_until": 0, "input": (records, 0, unparsed)}, separators=(",", ":"))


class BatchProcessor:
    """Parser, correlator and counters together, restored from what the store last committed
    (`loaded`).
    """

    def __init__(self, config: ProcessingConfig, loaded: Loaded, attempts: Attempts | None = None) -> None:
        kept = json.loads(loaded.state) if loaded.state else {}
        self._parser = Parser(config.instance, config.zones, kept.get("parser", ""), excerpts=False)
        self._errors = ErrorEvidence(
            config.naming,
            config.functions,
            expiry=config.expiry,
            is_quoted=config.quotes.has if config.quotes is not None else None,
            state=kept.get("errors", ""),
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
            answers_between=config.access_log.between if config.access_log is not None else None,
        )
        self._tally = Tally(SeriesLimits(loaded.series, config.naming.tasks))
        self._is_kept = config.is_kept
        self._attempts = attempts
        self._skip_until: int = kept.get("skip_until", config.skip_until)
        # The state of an earlier release has no such counts, but it has seen records.
        self._facts = InputFacts(*kept.get("input", (1, 0, 0) if kept else (0, 0, 0)))

    @property
    def facts(self) -> InputFacts:
        """Counts of what the log contained so far."""
        return self._facts

    def is_due(self, now: int) -> bool:
        """Return whether the wall clock alone (in nanoseconds) causes a change, without new lines.

        It can close a settling window, expire a task, or make a restart of wokd certain.
        """
        return self._correlator.is_due(now)

    def offer(self, items: Sequence[Item], checkpoint: Checkpoint | None = None) -> None:
        """Add the next items of wok-error.log; `checkpoint` is the position directly after them, if
        any.
        """
        self._errors.offer(items)
        if checkpoint is not None:
            self._checkpoints.append(checkpoint)
            if len(self._checkpoints) > CHECKPOINTS_MAX:
                self._checkpoints = deque(list(self._checkpoints)[::2])

    @property
    def ahead(self) -> int:
        """The number of items of wok-error.log that are later than the request
        log has been read.
        """
        return self._errors.ahead

    def parse(self, chunk: Chunk) -> int:
        """Parse a chunk of lines; return the time of its last record in nanoseconds, 0 without one.

        Call `advance` with the same chunk next. Until then, the stored state is that before the
        chunk.
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
        return next((item.time for item in parsed[::-1] if isinstance(item, Record)), 0)

    def wait(self, chunk: Chunk) -> BatchResult:
        """Return the changes so far, without those of the parsed chunk.

        The chunk has to wait until more of wok-error.log is read.
        """
        waiting = chunk._replace(lines=(), events=(), caught_up=False)
        result = _only([], waiting)
        return self._kept(result, "") if self._is_kept else result

    def advance(
        self, chunk: Chunk, *, now: int | None = None, wall: int | None = None, finished: bool = False
    ) -> BatchResult:
        """Process a chunk of lines and return its result.

        Before this, offer all items of wok-error.log up to the time of the newest line. `wall` is
        the wall clock in nanoseconds, None for a finished log. `now` is the same if the reader has
        caught up, else None. `finished` means that no further line will follow.
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
                # The clock was wrong (ahead) at the first start, so the skipped records were not
                # old.
                self._skip_until = 0
            events += self._correlator.quiet(now)
        result = _only(events, chunk)
        return self._kept(result, chunk.position) if self._is_kept else result

    def _kept(self, result: BatchResult, position: str) -> BatchResult:
        """Return the result with all changes; `position` is the new one of the log, empty if
        unchanged.
        """
        for event in result.events:
            self._tally.event(event)
        changes = self._correlator.changes()
        self._tally.blocks({str(result): count for result, count in self._errors.take_counts().items()})
        self._tally.answers(
            {str(result): count for result, count in self._correlator.take_answer_counts().items()}
        )
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
                self._correlator.shift_answers(item.nanos)
            else:
                unparsed += isinstance(item, Rejected)
                if not self._skip_until:
                    count(item)
        self._facts = InputFacts(records, skipped, unparsed)
        return events


def _ignore(_: Parsed) -> None:
    """Count nothing."""


def _only(events: Sequence[Event], chunk: Chunk) -> BatchResult:
    """Return the result of a chunk without the changes to the state."""
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
