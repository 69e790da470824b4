"""The report of `check`: records and events in; counts, JSON and lines for people out.

Names that a hostile log could vary without limit (applications, operations, time zones) are counted
separately only up to a bound, so that memory stays small for a log of any length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from time import time_ns
from typing import Any, Final, NamedTuple, get_args

from exporter.command.task_ids import TaskIds
from exporter.config.options import Config
from exporter.config.values import StartAt
from exporter.correlate.error_evidence import ErrorEvidence
from exporter.correlate.true_status import AnswerResult
from exporter.parse.timezone import Zones, load_zone
from exporter.records import (
    NANOS,
    OUTCOMES,
    Event,
    Grade,
    Record,
    Rejected,
    RequestSeen,
    TaskEnded,
    TaskRepeated,
)
from exporter.terminal.task_table import hanging, iso, local
from exporter.terminal.text import visible
from exporter.wok.error_log import Block, Dropped, Item, Mark
from exporter.wok.operations import OTHER

LISTED_MAX: Final = 100
"""Rejected lines to list; all are counted."""
NAMES_MAX: Final = 1000
"""Names of a kind to count separately; a host with every plug-in has about 100 operations."""
ROWS_SHOWN: Final = 30
"""Operations to show to people; JSON has all."""
RESULTS: Final = ("joined", "unsure", "discredited", "without_record")
"""What becomes of an exception in wok-error.log."""
ZONES_MAX: Final = 100
ZONE_BYTES_MAX: Final = 16
"""The longest time zone abbreviation."""
NAME_CELLS: Final = 30
NUMBER_CELLS: Final = 10
"""Numbers are aligned over all blocks, and five of them fit into 80 columns."""

GRADES: Final[tuple[Grade, ...]] = ("exact", "likely", "ambiguous", "none")

_ZONE: Final = b'"zone": "'
_NOON: Final = ("2016-08-12", "12:00:00")
_NOON_UTC: Final = int(datetime(2016, 8, 12, 12, tzinfo=UTC).timestamp()) * NANOS


class Rejection(NamedTuple):
    """A part of a line that is not a record: `line` counts from 1, `offset` is in bytes, `excerpt`
    is redacted.
    """

    file: str
    line: int
    offset: int
    reason: str
    excerpt: str


class ZoneWords:
    """The time zone abbreviations in a log's records, and which of them are ambiguous.

    An abbreviation is used if it is a number, has a single meaning, or is what the configured zone
    is called at that moment. Any other is ignored, and the time is read in the configured zone.
    """

    def __init__(self, config: Config) -> None:
        self.counts: Counter[str] = Counter()
        self.meaningless: set[str] = set()
        self.contradicting: dict[str, tuple[timedelta, timedelta]] = {}
        """Abbreviations whose offset differs from the configured zone's at that time: both offsets.
        """
        self._zone = load_zone(config.timezone) if config.timezone else None
        # An unambiguous word means the same in a zone a day away.
        self._east, self._west = Zones("<+11>-11"), Zones("<-11>11")

    def record(self, record: Record, data: bytes) -> None:
        """Count the abbreviation of a record from this line."""
        # INFO comes first in the dialects with `>>>`, and last in JSON, behind parameters that
        # anybody can write.
        at = data.rfind(_ZONE) if record.dialect == "json" else data.find(_ZONE)
        start = at + len(_ZONE)
        end = data.find(b'"', start, start + ZONE_BYTES_MAX + 1) if at >= 0 else -1
        word = data[start:end].decode("ascii", "replace") if end >= 0 else ""
        if word not in self.counts:
            if len(self.counts) >= ZONES_MAX:
                word = OTHER
            elif word and self._is_meaningless(word, record.time):
                self.meaningless.add(word)
            elif word:
                self._compare(word, record.time)
        self.counts[word] += 1

    def _compare(self, word: str, time: int) -> None:
        configured = local(time, self._zone).utcoffset() or timedelta()
        noon = self._east.nanos(*_NOON, word)
        own = timedelta(microseconds=((_NOON_UTC - noon) // 1000)) if noon is not None else configured
        if local(time, self._zone).tzname() != word and own != configured:
            self.contradicting[word] = (own, configured)

    def _is_meaningless(self, word: str, time: int) -> bool:
        if local(time, self._zone).tzname() == word:
            return False
        return self._east.nanos(*_NOON, word) != self._west.nanos(*_NOON, word)


class ErrorSurvey:
    """What was found in wok-error.log: exceptions of tasks, and restarts of wokd."""

    def __init__(self) -> None:
        self.blocks = 0
        self.marks = 0
        self.results: Counter[str] = Counter()
        self.shift = 0
        self.restarts = 0

    def take(self, items: Iterable[Item]) -> None:
        """Count what the file says."""
        for item in items:
            if isinstance(item, (Block, Dropped)):
                self.blocks += 1
            elif isinstance(item, Mark):
                self.marks += 1

    def as_object(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            "exceptions": self.blocks,
            **{result: self.results[result] for result in RESULTS},
            "restart_marks": self.marks,
            "restarts": self.restarts,
            "zone_offset_seconds": self.shift // NANOS,
        }

    def lines(self) -> Iterator[str]:
        """Yield everything for a person."""
        ignored = self.marks - self.restarts
        yield from _block(
            "EXCEPTIONS IN WOK-ERROR.LOG",
            {
                "matched with a failed task": self.results["joined"],
                "unsure": self.results["unsure"],
                "discredited (may be forged)": self.results["discredited"],
                "without a record in the log": self.results["without_record"],
            },
        )
        if ignored:
            yield f"  {_number(ignored, 'restart mark')} ignored: they may be forged"
        if not self.marks:
            yield "  no restart mark: with log_level = warning or error in wok.conf, wokd writes none"
        if self.shift:
            yield f"  its times are read {self.shift / -NANOS / 3600:+g} h from the configured time zone, as the log says"


class CheckReport:
    """Counts what is in a log."""

    def __init__(self, config: Config) -> None:
        self.zone = load_zone(config.timezone) if config.timezone else None
        self.zone_name = config.timezone or "this host"
        self.files = 0
        self.lines = 0
        self.lines_rejected = 0
        self.parts: Counter[str] = Counter()
        self.dialects: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.apps: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.requests: Counter[tuple[str, str]] = Counter()
        self.tasks: Counter[tuple[str, str]] = Counter()
        self.ends: Counter[tuple[str, str]] = Counter()
        self.repeats = 0
        self.running: set[bytes] = set()
        self.first = self.last = 0
        self.zones = ZoneWords(config)
        self.task_ids = TaskIds()
        self.rejections: list[Rejection] = []
        self.errors: ErrorSurvey | None = None
        self.answers: Counter[AnswerResult] | None = None
        """What wok-access.log says of requests that may be logged as 500 by mistake, None without
        it.
        """
        self.damages: list[str] = []
        self.not_logs: dict[str, str] = {}
        """What files are that cannot be logs, by their names."""
        self.restarts: int | None = None
        """How often wokd was restarted while the log was written, None if wok-error.log was not
        read.
        """
        self.start = config.first_time(time_ns())
        self.start_words = config.start_at
        self.skipped = 0

    def record(self, record: Record, data: bytes) -> None:
        """Count a record, found in the line `data`."""
        self.parts["record"] += 1
        self.dialects[record.dialect] += 1
        self.kinds[record.kind] += 1
        _count(self.apps, record.app, OTHER)
        time = record.time
        self.first = min(self.first or time, time)
        self.last = max(self.last, time)
        self.zones.record(record, data)
        self.task_ids.record(record)
        if self.start is not None and time < self.start:
            self.skipped += 1

    def reject(self, rejected: Rejected, file: str, number: int) -> None:
        """Count a part of line `number` that is not a record."""
        self.parts["rejected"] += 1
        self.reasons[rejected.reason] += 1
        if len(self.rejections) < LISTED_MAX:
            self.rejections.append(
                Rejection(file, number, rejected.offset, rejected.reason, visible(rejected.excerpt))
            )

    def meant(self, events: Iterable[Event]) -> None:
        """Count the events that records caused."""
        for event in events:
            if isinstance(event, RequestSeen):
                _count(self.requests, (event.record.app, event.operation), (OTHER, OTHER))
            elif isinstance(event, TaskEnded):
                _count(self.tasks, (event.app, event.operation), (OTHER, OTHER))
                self.ends[event.outcome, event.correlation] += 1
                self.task_ids.ended(event)
            elif isinstance(event, TaskRepeated):
                self.repeats += 1

    def judged(self, errors: ErrorEvidence) -> None:
        """Take what wok-error.log was good for, once everything is read."""
        if self.errors is not None:
            self.restarts = errors.restarts
            errors.finish()
            self.errors.results.update(errors.take_counts())
            self.errors.shift = errors.shift
            self.errors.restarts = errors.restarts

    def shown(self, nanos: int) -> str:
        """Return a time of the log in the configured zone, for people."""
        return f"{local(nanos, self.zone):%Y-%m-%d %H:%M:%S %Z}"

    @property
    def is_understood(self) -> bool:
        """Whether everything could be read and parsed."""
        return not self.parts["rejected"] and not self.damages and not self.not_logs

    def verdict(self) -> str:
        """Return the result in one sentence."""
        damages = (
            f" {_number(len(self.damages), 'file')} could not be read to the end." if self.damages else ""
        )
        files = _number(self.files, "file")
        if self.not_logs:
            return f"{'. '.join(f'{name} is {what}' for name, what in self.not_logs.items())}.{damages}"
        if not self.lines:
            return f"No lines in {files}.{damages}"
        lines = _number(self.lines, "line")
        if not self.lines_rejected:
            return f"All lines can be parsed: {lines} in {files}.{damages}"
        return f"{self.lines_rejected:,} of {lines} in {files} cannot be parsed.{damages}"

    def warnings(self) -> Iterator[str]:
        """Yield what an administrator should do something about, a sentence each."""
        for word, (own, configured) in self.zones.contradicting.items():
            yield (
                f"The log's times are {visible(word)} ({offset_text(own)}), but the configured time zone is"
                f" {self.zone_name} ({offset_text(configured)}). Set --timezone to the zone of Wok's host: the times in"
                " wok-error.log have no zone of their own."
            )
        if self.skipped and self.skipped == self.parts["record"]:
            yield (
                f"All records are older than start_at ({_start(self.start_words)}): the daemon would skip them the"
                " first time. Set --start-at, or send them with `replay`."
            )


def offset_text(offset: timedelta) -> str:
    """Return an offset from UTC, as in `-03:00`."""
    minutes = int(offset / timedelta(minutes=1))
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def shown_time(nanos: int, config: Config) -> str:
    """Return a time of the log in the configured zone, for people."""
    return f"{local(nanos, load_zone(config.timezone) if config.timezone else None):%Y-%m-%d %H:%M:%S %Z}"


def _start(start: StartAt) -> str:
    return f"{start / timedelta(hours=1):g} h ago" if isinstance(start, timedelta) else str(start)


def as_object(survey: CheckReport) -> dict[str, Any]:
    """Return everything for JSON; times in ISO 8601 with their offset, null without a record."""
    operations = sorted(set(survey.requests) | set(survey.tasks))
    return {
        "is_understood": survey.is_understood,
        "verdict": survey.verdict(),
        "files": survey.files,
        "lines": survey.lines,
        "parts": {part: survey.parts[part] for part in ("record", "continuation", "forged", "rejected")},
        "records": {
            "dialect": dict(survey.dialects),
            "kind": dict(survey.kinds),
            "app": dict(survey.apps),
        },
        "operations": [
            {
                "app": app,
                "operation": operation,
                "requests": survey.requests[app, operation],
                "tasks": survey.tasks[app, operation],
            }
            for app, operation in operations
        ],
        "tasks": {
            "running": len(survey.running),
            "ended": {
                outcome: {grade: survey.ends[outcome, grade] for grade in GRADES} for outcome in OUTCOMES
            },
            "repeated_records": survey.repeats,
        },
        "task_ids": survey.task_ids.as_object(lambda time: iso(time, survey.zone)),
        "restarts": survey.restarts,
        "older_than_start_at": survey.skipped,
        "warnings": list(survey.warnings()),
        "first": iso(survey.first, survey.zone) if survey.last else None,
        "last": iso(survey.last, survey.zone) if survey.last else None,
        "zones": [
            {"zone": word or None, "records": count, "is_understood": word not in survey.zones.meaningless}
            for word, count in survey.zones.counts.items()
        ],
        "wok_error_log": survey.errors.as_object() if survey.errors is not None else None,
        "wok_access_log": {result: survey.answers[result] for result in get_args(AnswerResult)}
        if survey.answers is not None
        else None,
        "damages": survey.damages,
        "rejected": {
            "reasons": dict(survey.reasons),
            "listed": [rejection._asdict() for rejection in survey.rejections],
            "not_listed": survey.parts["rejected"] - len(survey.rejections),
        },
    }


def report(survey: CheckReport, width: int | None = None) -> Iterator[str]:
    """Yield everything for a person, the verdict first and what is wrong last, where it is seen.

    Sentences are wrapped at `width`, that of the terminal in cells, if it is not None.
    """
    yield from hanging("", survey.verdict(), width)
    if survey.last:
        yield f"From {survey.shown(survey.first)} to {survey.shown(survey.last)}."
    if sentence := survey.task_ids.sentence(survey.shown):
        yield from hanging("", sentence, width)
    for warning in survey.warnings():
        yield from hanging("Warning: ", warning, width)
    parts = survey.parts
    yield from _block(
        "LINES",
        {
            "records": parts["record"],
            "continuation lines": parts["continuation"],
            "forged records": parts["forged"],
            "rejected": parts["rejected"],
        },
    )
    yield from _block("DIALECTS", survey.dialects)
    yield from _block("KINDS", survey.kinds)
    yield from _block("APPLICATIONS", survey.apps)
    yield from _operations(survey)
    yield from _tasks(survey)
    if survey.restarts is not None:
        yield from _block("RESTARTS OF WOKD", {"in wok-error.log": survey.restarts})
    if survey.errors is not None:
        yield from survey.errors.lines()
    if survey.answers is not None:
        yield from _block(
            "LOGGED AS 500, MAYBE BY MISTAKE",
            {
                "corrected by wok-access.log": survey.answers["corrected"],
                "confirmed": survey.answers["confirmed"],
                "contested": survey.answers["contested"],
                "without an answer": survey.answers["missing"],
            },
        )
    if 0 < survey.skipped < parts["record"]:
        yield from _block(
            "FIRST START", {f"older than start_at ({_start(survey.start_words)})": survey.skipped}
        )
    words = {visible(word) or "(none)": count for word, count in survey.zones.counts.items()}
    yield from _block("TIME ZONES", words)
    for word in sorted(survey.zones.meaningless):
        yield f"  {visible(word)} is ambiguous: these times are read in the zone of {survey.zone_name} (--timezone)"
    if survey.damages:
        yield from ("", "DAMAGED FILES", *(f"  {damage}" for damage in survey.damages))
    if survey.rejections:
        yield from ("", "REJECTED LINES")
        for one in survey.rejections:
            yield f"  {one.file}:{one.line} (byte {one.offset:,}) {one.reason}: {one.excerpt}"
        if more := parts["rejected"] - len(survey.rejections):
            yield f"  and {more:,} more"


def _block(title: str, counts: Mapping[str, int]) -> Iterator[str]:
    if counts:
        yield from ("", title)
        yield from _columns([(f"  {name}", f"{count:,}") for name, count in counts.items()])


def _operations(survey: CheckReport) -> Iterator[str]:
    requests, tasks = survey.requests, survey.tasks
    names = sorted(set(requests) | set(tasks), key=lambda name: (-requests[name] - tasks[name], name))
    if not names:
        return
    rows = [("OPERATIONS", "requests", "tasks")]
    for name in names[:ROWS_SHOWN]:
        app, operation = name
        rows.append((f"  {app} {operation or '(no code)'}", f"{requests[name]:,}", f"{tasks[name]:,}"))
    yield ""
    yield from _columns(rows)
    if len(names) > ROWS_SHOWN:
        yield f"  and {len(names) - ROWS_SHOWN:,} more (--json has all)"


def _tasks(survey: CheckReport) -> Iterator[str]:
    if not survey.ends and not survey.running:
        return
    yield ""
    if survey.ends:
        rows = [("TASKS by outcome, correlation", *GRADES, "all")]
        for outcome in OUTCOMES:
            counts = [survey.ends[outcome, grade] for grade in GRADES]
            if any(counts):
                rows.append((f"  {outcome}", *(f"{count:,}" for count in (*counts, sum(counts)))))
        yield from _columns(rows)
    else:
        yield "TASKS"
    if survey.running:
        yield f"  {_number(len(survey.running), 'task')} still running"
    if survey.repeats:
        yield f"  {_number(survey.repeats, 'repeated end record')}"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows with the first cells aligned left and numbers aligned right."""
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    widths = [max(NUMBER_CELLS, width + 1) for width in others]
    for name, *numbers in rows:
        cells = [number.rjust(width) for number, width in zip(numbers, widths, strict=True)]
        yield name.ljust(max(NAME_CELLS, first)) + "".join(cells)


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _count(counter: Counter[Any], name: Any, other: Any) -> None:
    counter[name if name in counter or len(counter) < NAMES_MAX else other] += 1
