"""Turns parsed lines and events into increments of the counters and histograms in
`docs/metrics.md`.

Every line is counted exactly once because the increments are committed with the read position.
This module only adds them up. `series.py` chooses the series under which something is counted.

Nanoseconds are divided by `truediv`: a compiled `/` rounds both numbers to floats first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from operator import truediv

from exporter.metrics.definitions import DURATION_BOUNDS_SECONDS
from exporter.metrics.series import SeriesLimits
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
_RECORD_LINES: Series = ("wok_exporter_lines_total", "record")
_LAST_RECORD: Series = ("wok_exporter_last_record_timestamp_seconds",)
_KINDS = {"request": "request", "started": "task_started", "finished": "task_finished"}


class Tally:
    """The increments of one batch, by series. If `latest` is set, no gauge of a time rises above
    it.
    """

    def __init__(self, limits: SeriesLimits) -> None:
        self._limits = limits
        self.latest: int | None = None
        self._begin()

    def _begin(self) -> None:
        self.counters: dict[Series, float] = {}
        self.gauges: dict[Series, float] = {}
        # Series that were already looked up for this batch.
        self._request_series: dict[tuple[str, str, int | None], Series] = {}
        self._started_series: dict[tuple[str, str], Series] = {}
        self._task_labels: dict[tuple[str, str], tuple[str, str]] = {}
        self._histograms: dict[
            Series, tuple[list[int], list[float], dict[int, tuple[float, str, float]]]
        ] = {}

    def take(self) -> tuple[dict[Series, float], dict[Series, float], dict[Series, Histogram]]:
        """Return counters, gauges and histograms of the batch, and start the next batch."""
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
        """Count bytes, rotations and gaps of a chunk."""
        size_bytes = sum([line.length + line.ended for line in chunk.lines])
        self._add(("wok_exporter_read_bytes_total",), size_bytes)
        for event in chunk.events:
            if event.kind == "gap":
                # The number of records in a lost file is unknown, so each lost file counts as one.
                self._add(("wok_exporter_log_gaps_total",))
            elif event.kind != "unreadable":
                self._add(("wok_exporter_rotations_total", event.kind))

    def parsed(self, item: Parsed) -> None:
        """Count a line by the result of parsing it."""
        counters = self.counters
        if isinstance(item, Record):
            counters[_RECORD_LINES] = counters.get(_RECORD_LINES, 0) + 1
            series = ("wok_exporter_records_total", _KINDS[item.kind], item.dialect)
            counters[series] = counters.get(series, 0) + 1
            if self.latest is None or item.time <= self.latest:
                self.gauges[_LAST_RECORD] = truediv(item.time, NANOS)
        elif isinstance(item, Rejected):
            self._add(("wok_exporter_lines_total", "rejected"))
            self._add(("wok_exporter_rejected_lines_total", item.reason))
        else:
            self._add(("wok_exporter_lines_total", "forged" if item.forged else "continuation"))

    def blocks(self, counts: Mapping[str, int]) -> None:
        """Count exceptions in wok-error.log, by result."""
        for result, count in counts.items():
            self._add(("wok_exporter_error_blocks_total", result), count)

    def answers(self, counts: Mapping[str, int]) -> None:
        """Count requests whose answer was looked up in wok-access.log, by result."""
        for result, count in counts.items():
            self._add(("wok_exporter_access_answers_total", result), count)

    def event(self, event: Event) -> None:
        """Count a request, or the start, end or repeat of a task."""
        if isinstance(event, RequestSeen):
            record = event.record
            key = (record.app, record.method, record.status)
            series = self._request_series.get(key)
            if series is None:
                series = self._request_series[key] = self._limits.request(*key)
            self._add(series)
            if event.opens_task:
                self._started(record.app, event.operation)
        elif isinstance(event, TaskStarted):
            if event.counts:
                self._started(event.record.app, event.operation)
        elif isinstance(event, TaskRepeated):
            self._add(("wok_task_repeats_total", *self._task(event.record.app, event.operation)))
        else:
            self._ended(event)

    def started(self, app: str, operation: str) -> None:
        """Count the start of a task that was found later, by `backfill`."""
        self._started(app, operation)

    def _task(self, app: str, operation: str) -> tuple[str, str]:
        """Return the labels of a task, `other` if there are too many series."""
        labels = self._task_labels.get((app, operation))
        if labels is None:
            labels = self._task_labels[app, operation] = self._limits.task(app, operation)
        return labels

    def _started(self, app: str, operation: str) -> None:
        series = self._started_series.get((app, operation))
        if series is not None:
            self.counters[series] += 1
            return
        task = self._task(app, operation)
        series = self._started_series[app, operation] = ("wok_tasks_started_total", *task)
        self._add(series)
        # increase() sees the first failure only if its series already exists at 0.
        for outcome in OUTCOMES:
            self._add(("wok_tasks_finished_total", *task, outcome), 0)

    def _ended(self, event: TaskEnded) -> None:
        outcome = event.outcome
        task = self._task(event.app, event.operation)
        if event.counts_start:
            self._started(event.app, event.operation)
        self._add(("wok_tasks_finished_total", *task, outcome))
        self._add(("wok_exporter_correlations_total", event.correlation))
        if outcome == "failure":
            error_code = event.record.error_code if event.record else ""
            self._add(self._limits.failure(*task, error_code, event.exception))
        if outcome in ("success", "failure"):
            self._set((f"wok_task_last_{outcome}_timestamp_seconds", *task), event.end)
        if outcome != "unknown" and not event.counts_start:
            self._observe(event, ("wok_task_duration_seconds", *task, outcome))

    def _observe(self, event: TaskEnded, series: Series) -> None:
        found = self._histograms.get(series)
        if found is None:
            found = self._histograms[series] = ([0] * (len(BUCKETS_SECONDS) + 1), [0.0], {})
        buckets, total, exemplars = found
        seconds = truediv(event.end - event.start, NANOS)
        at = bisect_left(BUCKETS_SECONDS, seconds)
        buckets[at] += 1
        total[0] += seconds
        exemplars[at] = (seconds, event.context[:16].hex(), truediv(event.end, NANOS))

    def _add(self, series: Series, increment: float = 1) -> None:
        self.counters[series] = self.counters.get(series, 0) + increment

    def _set(self, series: Series, nanos: int) -> None:
        # Take the last value in the log, not the highest: a clock that was ahead must not leave its
        # time.
        if self.latest is None or nanos <= self.latest:
            self.gauges[series] = truediv(nanos, NANOS)
