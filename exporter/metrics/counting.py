"""What is counted: from parsed lines and events to increments of the contract's counters and histograms.

Every line is counted exactly once because the increments are committed with the read position; here they are
only added up. Labels are from finite sets: what a hostile log could make endless (applications, operations,
error codes) is bounded a family, and the rest is `other`. The bound holds over restarts because the series
that the store already has are known from the start.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable

from exporter.metrics.definitions import DURATION_BOUNDS_SECONDS
from exporter.records import (
    NANOS,
    OUTCOMES,
    Chunk,
    Event,
    Histogram,
    Parsed,
    Record,
    Rejected,
    RequestSeen,
    Series,
    TaskEnded,
    TaskRepeated,
    TaskStarted,
)

BUCKETS_SECONDS = DURATION_BOUNDS_SECONDS
SERIES_MAX = 1000
"""Series of one family. A host with every plug-in has about 100 operations; the rest of a flood is `other`."""
METHODS = frozenset({"POST", "PUT", "DELETE"})
OTHER = "other"

_ERROR_CODE = re.compile(r"[A-Z][A-Z0-9]{1,40}")


class Tally:
    """Increments of one batch, by series, and the names of all series there are."""

    def __init__(self, series: Iterable[Series] = ()) -> None:
        self._families: dict[str, set[Series]] = {}
        for known in series:
            self._families.setdefault(known[0], set()).add(known)
        self._begin()

    def _begin(self) -> None:
        self.counters: dict[Series, float] = {}
        self.gauges: dict[Series, float] = {}
        # The series in which the starts of an application's operation are counted, in this batch.
        self._started_series: dict[tuple[str, str], Series] = {}
        self._histograms: dict[
            Series, tuple[list[int], list[float], dict[int, tuple[float, str, float]]]
        ] = {}

    def take(self) -> tuple[dict[Series, float], dict[Series, float], dict[Series, Histogram]]:
        """Return counters, gauges and histograms of the batch, and begin the next."""
        histograms = {
            series: Histogram(
                buckets, total[0], [(at, *exemplar) for at, exemplar in sorted(exemplars.items())]
            )
            for series, (buckets, total, exemplars) in self._histograms.items()
        }
        taken = self.counters, self.gauges, histograms
        self._begin()
        return taken

    def chunk(self, chunk: Chunk) -> None:
        """Count what was read and what happened to the file."""
        size_bytes = sum([line.length + line.ended for line in chunk.lines])
        self._add(("wok_exporter_read_bytes_total",), size_bytes)
        for event in chunk.events:
            if event.kind == "gap":
                # How many records a lost file held is not known: the loss is counted, not its size.
                self._add(("wok_exporter_lost_records_total", "gap"))
            elif event.kind != "unreadable":
                self._add(("wok_exporter_rotations_total", event.kind))

    def parsed(self, item: Parsed) -> None:
        """Count a line by what it turned out to be."""
        counters = self.counters
        if isinstance(item, Record):
            series: Series = ("wok_exporter_lines_total", "record")
            counters[series] = counters.get(series, 0) + 1
            kind = item.kind if item.kind == "request" else f"task_{item.kind}"
            series = ("wok_exporter_records_total", kind, item.dialect)
            counters[series] = counters.get(series, 0) + 1
            self._rise(("wok_exporter_last_record_timestamp_seconds",), item.time)
        elif isinstance(item, Rejected):
            self._add(("wok_exporter_lines_total", "rejected"))
            self._add(("wok_exporter_rejected_lines_total", item.reason))
        else:
            self._add(("wok_exporter_lines_total", "forged" if item.forged else "continuation"))

    def event(self, event: Event) -> None:
        """Count what a record meant."""
        if isinstance(event, RequestSeen):
            record = event.record
            method = record.method if record.method in METHODS else OTHER
            status = record.status
            code = (
                str(status)
                if status is not None and 100 <= status <= 599
                else "unknown"
                if status is None
                else OTHER
            )
            self._count(("wok_requests_total", record.app, method, code))
            if event.opens_task:
                self._started(record.app, event.operation)
        elif isinstance(event, TaskStarted):
            if event.counts:
                self._started(event.record.app, event.operation)
        elif isinstance(event, TaskRepeated):
            self._count(("wok_task_repeats_total", event.record.app, event.operation))
        else:
            self._ended(event)

    def _started(self, app: str, operation: str) -> None:
        series = self._started_series.get((app, operation))
        if series is not None:
            self.counters[series] += 1
            return
        series = self._started_series[app, operation] = self._bounded(
            ("wok_tasks_started_total", app, operation)
        )
        self._add(series)
        # The first failure must be visible to increase(): its series is there, at 0, before it.
        for outcome in OUTCOMES:
            self._add(self._bounded(("wok_tasks_finished_total", app, operation, outcome)), 0)

    def _ended(self, event: TaskEnded) -> None:
        app, operation, outcome = event.app, event.operation, event.outcome
        if event.counts_start:
            self._started(app, operation)
        self._count(("wok_tasks_finished_total", app, operation, outcome))
        self._add(("wok_exporter_correlations_total", event.correlation))
        if outcome == "failure":
            code = event.record.error_code if event.record is not None else ""
            if not _ERROR_CODE.fullmatch(code):
                code = OTHER if code else "none"
            self._count(("wok_task_failures_total", app, operation, code))
        if outcome in ("success", "failure"):
            series = (f"wok_task_last_{outcome}_timestamp_seconds", app, operation)
            self._rise(self._bounded(series), event.end)
        if outcome != "unknown" and not event.counts_start:
            self._observe(event)

    def _observe(self, event: TaskEnded) -> None:
        series = self._bounded(("wok_task_duration_seconds", event.app, event.operation, event.outcome))
        found = self._histograms.get(series)
        if found is None:
            found = self._histograms[series] = ([0] * (len(BUCKETS_SECONDS) + 1), [0.0], {})
        buckets, total, exemplars = found
        seconds = (event.end - event.start) / NANOS
        at = bisect_left(BUCKETS_SECONDS, seconds)
        buckets[at] += 1
        total[0] += seconds
        exemplars[at] = (seconds, event.context[:16].hex(), event.end / NANOS)

    def _count(self, series: Series) -> None:
        """Add 1 to the series, or to the one that stands for it where its family is full."""
        try:
            # One that is there has been through `_bounded` in this batch.
            self.counters[series] += 1
        except KeyError:
            self._add(self._bounded(series))

    def _add(self, series: Series, increment: float = 1) -> None:
        self.counters[series] = self.counters.get(series, 0) + increment

    def _rise(self, series: Series, nanos: int) -> None:
        seconds = nanos / NANOS
        if seconds > self.gauges.get(series, 0):
            self.gauges[series] = seconds

    def _bounded(self, series: Series) -> Series:
        """Return the series, or where its family is full the one in which all labels but finite ones are
        `other`.
        """
        family = self._families.get(series[0])
        if family is None:
            family = self._families[series[0]] = set()
        if series in family:
            return series
        if len(family) >= SERIES_MAX:
            return (series[0], OTHER, *(label if label in _FINITE else OTHER for label in series[2:]))
        family.add(series)
        return series


_FINITE = METHODS | frozenset(OUTCOMES)
