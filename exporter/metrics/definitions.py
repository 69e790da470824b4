"""All metrics as a table: name, type, labels and help text of each family.

The scrape (`scrape.py`) and the reference (`docs/metrics.md`) are made from this table. A stored
series is the family's name followed by the label values in the order given here. `known` are series
that exist at 0 from the start, because `increase()` does not see the first step of a counter that
appears with it.
"""

from __future__ import annotations

from itertools import product
from typing import Literal, NamedTuple

from exporter.records import REJECT_REASONS, SIGNALS

DURATION_BOUNDS_SECONDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200)
"""Upper bounds of `wok_task_duration_seconds`, from a snapshot's second to a
migration's half day.
"""


class MetricDefinition(NamedTuple):
    """One family. `unit` is empty or the last part of the name before `_total`; `known` are label
    values.
    """

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
        "Tasks started: by a start record, or by a request that was answered with 202.",
    ),
    MetricDefinition(
        "wok_tasks_finished_total",
        "counter",
        (*_TASK, "outcome"),
        "Tasks ended, by outcome.",
    ),
    MetricDefinition(
        "wok_task_failures_total",
        "counter",
        (*_TASK, "error_code"),
        "Failed tasks by Wok's error code. For breakdowns, not for alerts: a series appears with its first failure.",
    ),
    MetricDefinition(
        "wok_task_repeats_total", "counter", _TASK, "Final records of tasks that had already ended."
    ),
    MetricDefinition(
        "wok_task_duration_seconds",
        "histogram",
        (*_TASK, "outcome"),
        "Time from the start of a task to its end. The log has whole seconds.",
        unit="seconds",
    ),
    MetricDefinition("wok_tasks_in_progress", "gauge", _TASK, "Tasks that have started and not ended."),
    MetricDefinition(
        "wok_task_oldest_start_timestamp_seconds",
        "gauge",
        _TASK,
        "Start of the oldest task in progress, in seconds since the epoch. Absent without one.",
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
        "Records read, by kind and by the format of the line.",
        known=tuple(product(("request", "task_started", "task_finished"), ("text", "coded", "rfc", "json"))),
    ),
    MetricDefinition(
        "wok_exporter_lines_total",
        "counter",
        ("result",),
        "Log lines read, by result.",
        known=(("record",), ("continuation",), ("forged",), ("rejected",)),
    ),
    MetricDefinition(
        "wok_exporter_rejected_lines_total",
        "counter",
        ("reason",),
        "Lines, or parts of lines, that could not be parsed as a record, by reason.",
        known=tuple((reason,) for reason in REJECT_REASONS),
    ),
    MetricDefinition(
        "wok_exporter_correlations_total",
        "counter",
        ("result",),
        "Tasks ended, by how sure the match with their request is.",
        known=(("exact",), ("likely",), ("ambiguous",), ("none",)),
    ),
    MetricDefinition(
        "wok_exporter_error_blocks_total",
        "counter",
        ("result",),
        "Exceptions of tasks in wok-error.log, by what became of them: matched with a failed task, unsure,"
        " discredited (may be forged), or without a record in the log.",
        known=(("joined",), ("unsure",), ("discredited",), ("without_record",)),
    ),
    MetricDefinition(
        "wok_exporter_access_answers_total",
        "counter",
        ("result",),
        "Requests that Wok may have logged as 500 by mistake, by what wok-access.log says of them: corrected (to 303 for"
        " renames, 401 for failed logins), confirmed, contested, or missing. All but the corrected ones stay 500.",
        known=(("corrected",), ("confirmed",), ("contested",), ("missing",)),
    ),
    MetricDefinition(
        "wok_exporter_read_bytes_total",
        "counter",
        (),
        "Bytes of the log read, after decompression.",
        unit="bytes",
        known=((),),
    ),
    MetricDefinition(
        "wok_exporter_behind_bytes",
        "gauge",
        (),
        "Bytes of the log known to be unread.",
        unit="bytes",
    ),
    MetricDefinition(
        "wok_exporter_reading_problem",
        "gauge",
        ("kind",),
        "1 while the log cannot be read (log), the state cannot be written (state), or the pipeline hangs"
        " (pipeline); otherwise 0.",
        known=(("log",), ("pipeline",), ("state",)),
    ),
    MetricDefinition(
        "wok_exporter_last_reload_successful",
        "gauge",
        (),
        "1 if the last start or reload of the configuration succeeded, 0 if a reload was rejected.",
    ),
    MetricDefinition(
        "wok_exporter_last_reload_success_timestamp_seconds",
        "gauge",
        (),
        "Time of the last successful start or reload of the configuration, in seconds since the epoch.",
        unit="seconds",
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
        "Rotations, truncations and replacements of the log, by kind.",
        known=(("rename",), ("compressed",), ("copytruncate",), ("replaced",)),
    ),
    MetricDefinition(
        "wok_exporter_journal_records",
        "gauge",
        ("signal",),
        "Spans or log records queued for the backend. Absent for a signal that is off.",
    ),
    MetricDefinition(
        "wok_exporter_journal_bytes",
        "gauge",
        ("signal",),
        "Encoded bytes queued for the backend.",
        unit="bytes",
    ),
    MetricDefinition(
        "wok_exporter_journal_oldest_timestamp_seconds",
        "gauge",
        ("signal",),
        "Time of the oldest queued record, in seconds since the epoch. Absent while the queue is empty.",
        unit="seconds",
    ),
    MetricDefinition(
        "wok_exporter_delivered_total",
        "counter",
        ("signal",),
        "Spans or log records that the backend accepted.",
        known=_EACH_SIGNAL,
    ),
    MetricDefinition(
        "wok_exporter_rejected_by_backend_total",
        "counter",
        ("signal", "reason"),
        "Spans or log records that the backend rejected for good, by reason.",
        known=tuple((signal, "partial") for signal in SIGNALS),
    ),
    MetricDefinition(
        "wok_exporter_delivery_failures_total",
        "counter",
        ("signal", "reason"),
        "Requests to the backend that failed and are retried, by reason.",
    ),
    MetricDefinition(
        "wok_exporter_lost_records_total",
        "counter",
        ("reason",),
        "Spans and log records dropped before they were sent, by reason.",
        known=(("journal_full",), ("switched_off",), ("damaged",)),
    ),
    MetricDefinition(
        "wok_exporter_log_gaps_total",
        "counter",
        (),
        "Log files that were gone before they were read to their end. The number of lost lines is unknown.",
        known=((),),
    ),
    MetricDefinition(
        "wok_exporter_state_bytes",
        "gauge",
        (),
        "Size of the state on disk: state.db and its write-ahead log.",
        unit="bytes",
    ),
    MetricDefinition(
        "wok_exporter_state_damages_total",
        "counter",
        ("part",),
        "Damaged parts of the state that were set aside: a disk or a person has changed them.",
        known=(("file",), ("journal",), ("open_tasks",), ("positions",), ("metrics",), ("history",)),
    ),
    MetricDefinition(
        "wok_exporter_collect_errors_total",
        "counter",
        (),
        "Scrapes that could not read the state and returned the previous values, since the exporter started.",
    ),
    MetricDefinition(
        "wok_exporter_build_info", "gauge", ("version",), "Always 1; the version of wok-exporter."
    ),
)
