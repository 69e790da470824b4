"""The scrape: a read of the store, turned into Prometheus families; the only user of
prometheus_client.

Only the last good snapshot is kept between scrapes. If the state cannot be read, a scrape returns
that snapshot and counts the error: a failing scrape would hide all other values as well. Values
that are not stored are computed here: tasks in progress from the open tasks, and series at 0 from
the table of operations.

Until the backlog has been read for the first time, scrapes have no `wok_*` families. Otherwise
Prometheus would see the log's history as one step, and alert on failures of last month.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, gzip_accepted

from exporter.http.routes import Handler, Request, Response
from exporter.metrics.definitions import DURATION_BOUNDS_SECONDS, FAMILIES, MetricDefinition
from exporter.metrics.process import PROCESS_FAMILIES, process_values
from exporter.metrics.series import TASKS_MAX
from exporter.records import NANOS, OUTCOMES, Histogram, LastReload, Series
from exporter.store.database import StoreError
from exporter.store.reader import InProgress, Snapshot

GZIP_LEVEL = 1
"""It halves the size. Higher levels take ten times as long and gain little."""

_OTHER = ("other", "other")


class Operations(Protocol):
    """The table of operations, as far as a scrape needs it."""

    def tasks(self, app: str) -> Sequence[str]:
        """Return the operations of an application that start tasks; none for an unknown one."""


class StoreCollector:
    """Makes all families of `docs/metrics.md` from one snapshot of the store.

    `snapshot` reads the store and may raise StoreError. `apps` are the applications whose series
    exist at 0 before the log names them. `behind_bytes` returns how much of the log is unread, None
    if unknown. `problems` returns the kinds of problems that keep the log from being read now,
    `last_reload` how the last reload of the configuration ended.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        operations: Operations,
        *,
        apps: Sequence[str],
        behind_bytes: Callable[[], int | None],
        problems: Callable[[], Iterable[str]],
        last_reload: Callable[[], LastReload],
        version: str,
    ) -> None:
        self._snapshot = snapshot
        self._operations = operations
        self._apps = tuple(apps)
        self._behind_bytes = behind_bytes
        self._problems = problems
        self._last_reload = last_reload
        self._version = version
        self._lock = threading.Lock()
        self._last: Snapshot | None = None
        self._errors = 0

    def describe(self) -> Iterator[Metric]:
        """Return the families without samples, for the registry; the store is not read."""
        return (_family(definition) for definition in FAMILIES)

    def collect(self) -> Iterator[Metric]:
        """Return the families as of now."""
        snapshot, errors = self._read()
        is_ready = snapshot is not None and snapshot.is_ready
        values: dict[str, dict[tuple[str, ...], float]] = {
            definition.name: dict.fromkeys(definition.known, 0) for definition in FAMILIES
        }
        histograms: Mapping[Series, Histogram] = {}
        if snapshot is not None:
            histograms = snapshot.histograms
            _add_stored(values, snapshot)
            _add_derived(values, snapshot)
            if is_ready:
                self._add_zeros(values)
        behind = self._behind_bytes()
        if behind is not None:
            values["wok_exporter_behind_bytes"][()] = behind
        values["wok_exporter_reading_problem"].update(((kind,), 1) for kind in self._problems())
        reload = self._last_reload()
        values["wok_exporter_last_reload_successful"][()] = reload.is_successful
        values["wok_exporter_last_reload_success_timestamp_seconds"][()] = reload.success
        values["wok_exporter_collect_errors_total"][()] = errors
        values["wok_exporter_build_info"][self._version,] = 1
        for definition in FAMILIES:
            if is_ready or definition.name.startswith("wok_exporter_"):
                yield _filled(definition, values[definition.name], histograms)

    def _read(self) -> tuple[Snapshot | None, int]:
        try:
            snapshot = self._snapshot()
        except StoreError:
            with self._lock:
                self._errors += 1
                return self._last, self._errors
        with self._lock:
            self._last = snapshot
            return snapshot, self._errors

    def _add_zeros(self, values: Mapping[str, dict[tuple[str, ...], float]]) -> None:
        started, finished = values["wok_tasks_started_total"], values["wok_tasks_finished_total"]
        apps = {
            labels[0]
            for definition in FAMILIES
            if "app" in definition.labels
            for labels in values[definition.name]
        }
        tasks = {
            (app, operation) for app in apps.union(self._apps) for operation in self._operations.tasks(app)
        }
        for task in sorted(tasks.union(started)):
            started.setdefault(task, 0)
            values["wok_tasks_in_progress"].setdefault(task, 0)
            for outcome in OUTCOMES:
                finished.setdefault((*task, outcome), 0)


class _ProcessCollector:
    """Makes the families of this process, at each scrape."""

    def collect(self) -> Iterator[Metric]:
        values = process_values()
        return (_filled(doc, {(): values[doc.name]}, {}) for doc in PROCESS_FAMILIES if doc.name in values)


def _add_stored(values: Mapping[str, dict[tuple[str, ...], float]], snapshot: Snapshot) -> None:
    # Another release may have stored families that this one does not have.
    arity = {definition.name: len(definition.labels) for definition in FAMILIES}
    for stored in (snapshot.counters, snapshot.gauges):
        for (name, *labels), value in stored.items():
            if arity.get(name) == len(labels):
                values[name][tuple(labels)] = value


def _add_derived(values: Mapping[str, dict[tuple[str, ...], float]], snapshot: Snapshot) -> None:
    in_progress = values["wok_tasks_in_progress"]
    oldest = values["wok_task_oldest_start_timestamp_seconds"]
    counted = values["wok_tasks_started_total"]
    for task, running in _by_operation(snapshot.in_progress, counted).items():
        in_progress[task] = running.tasks
        oldest[task] = running.oldest / NANOS
    values["wok_exporter_state_bytes"][()] = snapshot.state_bytes
    for signal, status in snapshot.journal.items():
        values["wok_exporter_journal_records"][signal,] = status.records
        values["wok_exporter_journal_bytes"][signal,] = status.bytes
        if status.oldest_ns is not None:
            values["wok_exporter_journal_oldest_timestamp_seconds"][signal,] = status.oldest_ns / NANOS


def _by_operation(
    in_progress: Mapping[tuple[str, str], InProgress], counted: Mapping[tuple[str, ...], float]
) -> dict[tuple[str, str], InProgress]:
    """Return the open tasks by the series under which they were counted as started."""
    by_series = dict(in_progress)
    if len(by_series) > TASKS_MAX:
        for key in by_series.keys() - counted.keys() - {_OTHER}:
            rest, before = by_series.pop(key), by_series.get(_OTHER)
            by_series[_OTHER] = (
                InProgress(rest.tasks + before.tasks, min(rest.oldest, before.oldest)) if before else rest
            )
    return by_series


_Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def _family(definition: MetricDefinition) -> _Family:
    make: type[_Family] = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }[definition.type]
    return make(definition.name, definition.help, labels=definition.labels, unit=definition.unit)


def _filled(
    definition: MetricDefinition,
    values: Mapping[tuple[str, ...], float],
    histograms: Mapping[Series, Histogram],
) -> Metric:
    family = _family(definition)
    if isinstance(family, HistogramMetricFamily):
        for (name, *labels), histogram in sorted(histograms.items()):
            if name == definition.name and len(labels) == len(definition.labels):
                family.add_metric(labels, _buckets(histogram), histogram.sum)
    else:
        for label_values, value in sorted(values.items()):
            family.add_metric(label_values, value)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    exemplars = {
        index: Exemplar({"trace_id": trace_id}, seconds, at)
        for index, seconds, trace_id, at in histogram.exemplars
    }
    bounds = [*(str(float(bound)) for bound in DURATION_BOUNDS_SECONDS), "+Inf"]
    buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    cumulative = 0
    for index, (bound, count) in enumerate(zip(bounds, histogram.buckets, strict=True)):
        cumulative += count
        exemplar = exemplars.get(index)
        buckets.append((bound, cumulative, exemplar) if exemplar else (bound, cumulative))
    return buckets


def metrics_handler(collector: StoreCollector) -> Handler:
    """Return the handler of `/metrics`.

    The Accept header chooses between OpenMetrics and the text format, Accept-Encoding enables gzip,
    and `?name[]=` selects samples by name.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    registry.register(_ProcessCollector())

    def handle(request: Request) -> Response:
        try:
            encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        except (TypeError, ValueError):
            # The version is not a number. All clients understand the oldest format.
            encode, content_type = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
        names = request.query.get("name[]")
        body = encode(registry.restricted_registry(names) if names else registry)
        headers = {"Vary": "Accept, Accept-Encoding"}
        if gzip_accepted(request.headers.get("Accept-Encoding", "")):
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return Response(200, content_type, body, headers)

    return handle
