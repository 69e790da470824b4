"""The metrics of the contract, as a table: what each family is called, counts, and is labelled with.

From this table the scrape is made (`metrics.py`) and the reference is written (`docs/metrics.md`). The stored
series of a family are its name followed by the label values in the order given here. `known` are series that
exist at 0 from the start, because `increase()` cannot see a counter's first step when the series is born with it.
"""

from __future__ import annotations

from itertools import product
from typing import Literal, NamedTuple

from exporter.records import SIGNALS

DURATION_BOUNDS_SECONDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200)
"""Upper bounds of `wok_task_duration_seconds`, from a snapshot's second to a migration's half day."""


class MetricDefinition(NamedTuple):
    """One family: `unit` is empty or the last part of the name before `_total`; `known` are label values."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    unit: str = ""
    known: tuple[tuple[str, ...], ...] = ()


_TASK = ("app", "operation")
_EACH_SIGNAL = tuple((signal,) for signal in SIGNALS)

FAMILIES: tuple[MetricDefinition, ...] = (
    MetricDefinition(
        "wok_requests_total", "counter", ("app", "method", "code"), "Requests in the log, by status code."
    ),
    MetricDefinition(
        "wok_tasks_started_total",
        "counter",
        _TASK,
        "Tasks that have started, by a start record or a request answered 202.",
    ),
    MetricDefinition(
        "wok_tasks_finished_total",
        "counter",
        (*_TASK, "outcome"),
        "Tasks that have ended, by how they ended.",
    ),
    MetricDefinition(
        "wok_task_failures_total",
        "counter",
        (*_TASK, "error_code"),
        "Failed tasks by Wok's error code; for breakdown, not for alerts: a series begins with its first failure.",
    ),
    MetricDefinition(
        "wok_task_repeats_total", "counter", _TASK, "Further final records of tasks that had already ended."
    ),
    MetricDefinition(
        "wok_task_duration_seconds",
        "histogram",
        (*_TASK, "outcome"),
        "Time from a task's start to its end; the log has whole seconds.",
        unit="seconds",
    ),
    MetricDefinition("wok_tasks_in_progress", "gauge", _TASK, "Tasks that have started and not yet ended."),
    MetricDefinition(
        "wok_task_oldest_start_timestamp_seconds",
        "gauge",
        _TASK,
        "Start of the oldest task in progress, in seconds since the epoch; absent without one.",
        unit="seconds",
    ),
    MetricDefinition(
        "wok_task_last_success_timestamp_seconds",
        "gauge",
        _TASK,
        "End of the latest task that succeeded, in seconds since the epoch.",
        unit="seconds",
    ),
    MetricDefinition(
        "wok_task_last_failure_timestamp_seconds",
        "gauge",
        _TASK,
        "End of the latest task that failed, in seconds since the epoch.",
        unit="seconds",
    ),
    MetricDefinition(
        "wok_exporter_records_total",
        "counter",
        ("kind", "dialect"),
        "Records read, by what they record and the form of their line.",
        known=tuple(product(("request", "task_started", "task_finished"), ("text", "coded", "rfc", "json"))),
    ),
    MetricDefinition(
        "wok_exporter_lines_total",
        "counter",
        ("result",),
        "Lines read, by what they turned out to be.",
        known=(("record",), ("continuation",), ("forged",), ("rejected",)),
    ),
    MetricDefinition(
        "wok_exporter_rejected_lines_total",
        "counter",
        ("reason",),
        "Lines, or parts of lines, that are no record.",
        known=(("json",), ("shape",), ("time",), ("too_long",), ("encoding",), ("nul",), ("torn",)),
    ),
    MetricDefinition(
        "wok_exporter_correlations_total",
        "counter",
        ("result",),
        "Ended tasks by how surely their request is known.",
        known=(("exact",), ("likely",), ("ambiguous",), ("none",)),
    ),
    MetricDefinition(
        "wok_exporter_read_bytes_total",
        "counter",
        (),
        "Bytes of the log that have been read, decompressed.",
        unit="bytes",
        known=((),),
    ),
    MetricDefinition(
        "wok_exporter_behind_bytes",
        "gauge",
        (),
        "Bytes of the log that are known to be still unread.",
        unit="bytes",
    ),
    MetricDefinition(
        "wok_exporter_reading_problem",
        "gauge",
        ("kind",),
        "1 while lines are not read, and why: the log cannot be read, or the state cannot be written; else 0.",
        known=(("log",), ("state",)),
    ),
    MetricDefinition(
        "wok_exporter_last_record_timestamp_seconds",
        "gauge",
        (),
        "Time of the latest record read, in seconds since the epoch.",
        unit="seconds",
    ),
    MetricDefinition(
        "wok_exporter_rotations_total",
        "counter",
        ("kind",),
        "Times the log was rotated, truncated or replaced, by how.",
        known=(("rename",), ("compressed",), ("copytruncate",), ("replaced",)),
    ),
    MetricDefinition(
        "wok_exporter_journal_records",
        "gauge",
        ("signal",),
        "Spans or log records still to be sent; absent for a signal that is off.",
    ),
    MetricDefinition(
        "wok_exporter_journal_bytes",
        "gauge",
        ("signal",),
        "Encoded bytes of what is still to be sent.",
        unit="bytes",
    ),
    MetricDefinition(
        "wok_exporter_journal_oldest_timestamp_seconds",
        "gauge",
        ("signal",),
        "Time of the oldest record still to be sent, in seconds since the epoch; absent without one.",
        unit="seconds",
    ),
    MetricDefinition(
        "wok_exporter_delivered_total",
        "counter",
        ("signal",),
        "Spans or log records that the backend has taken.",
        known=_EACH_SIGNAL,
    ),
    MetricDefinition(
        "wok_exporter_rejected_by_backend_total",
        "counter",
        ("signal", "reason"),
        "Spans or log records that the backend has refused for good.",
        known=tuple((signal, "partial") for signal in SIGNALS),
    ),
    MetricDefinition(
        "wok_exporter_delivery_failures_total",
        "counter",
        ("signal", "reason"),
        "Requests to the backend that have failed and are tried again.",
    ),
    MetricDefinition(
        "wok_exporter_lost_records_total",
        "counter",
        ("reason",),
        "Spans and log records given up unsent, and gaps in the log (reason gap, one each).",
        known=(("journal_full",), ("switched_off",), ("gap",)),
    ),
    MetricDefinition(
        "wok_exporter_collect_errors_total",
        "counter",
        (),
        "Scrapes that could not read the state and showed the values of the one before; since the start.",
    ),
    MetricDefinition(
        "wok_exporter_build_info", "gauge", ("version",), "Always 1; the version of wok-exporter."
    ),
)
