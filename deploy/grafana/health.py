"""Exporter health: the dashboard for those who run the exporters."""

from __future__ import annotations

from deploy.grafana.expressions import grown, hourly, increase, metric, rate, total
from deploy.grafana.layout import Row, rendered
from deploy.grafana.panels import BAD, WARNING, Column, Curve, graph, listing, number

IN_RANGE = "$__range"
BUILD = metric("wok_exporter_build_info")
UP = f"{metric('up')} and on (job) last_over_time({BUILD}[1d])"
"""Without the second half, `All` would include every job of Prometheus."""
LAST_RECORD = metric("wok_exporter_last_record_timestamp_seconds")
OLDEST = metric("wok_exporter_journal_oldest_timestamp_seconds")
PROBLEM = metric("wok_exporter_reading_problem")
RELOADED = metric("wok_exporter_last_reload_successful")
CONFIGURED = metric("wok_exporter_last_reload_success_timestamp_seconds")
BEHIND = metric("wok_exporter_behind_bytes")


def dashboard() -> str:
    """Return the dashboard's JSON."""
    return rendered(
        "Exporter health",
        "wok-exporter-health",
        "Whether the exporters read Wok's log, parse it, and deliver the data.",
        [_at_a_glance(), _exporters(), _reading(), _understanding(), _delivering()],
        from_time="now-6h",
    )


def _at_a_glance() -> Row:
    return Row(
        "At a glance",
        [
            number(
                "Exporters up",
                "Exporters that Prometheus can scrape now.",
                f"sum({UP})",
                decimals=0,
            ),
            number(
                "Exporters down",
                "Exporters that Prometheus cannot scrape. Nothing is lost as long as Wok's log is kept, "
                "but the state of these hosts is unknown.",
                f"count({UP} == 0) or 0 * count({UP})",
                steps={1: BAD},
                decimals=0,
            ),
            number(
                "Without task metrics",
                "Exporters without metrics of Wok: they are still reading their first backlog, or Wok "
                "has not logged anything yet.",
                f"count({BUILD} unless on (job, instance) {metric('wok_requests_total')}) or 0 * count({BUILD})",
                steps={1: WARNING},
                decimals=0,
            ),
            number(
                "Unread log",
                "Unread bytes of Wok's log; the maximum over all exporters. It is almost always 0.",
                f"max({BEHIND})",
                "bytes",
                steps={1_000_000: WARNING},
                empty="Unknown",
            ),
            number(
                "Queued",
                "Age of the oldest span or log record that a backend has not accepted yet.",
                f"time() - min({OLDEST})",
                "s",
                steps={300: WARNING, 3600: BAD},
                empty="None",
            ),
            number(
                "Lost",
                "Spans and log records that were dropped in the selected time.",
                f"round({increase('wok_exporter_lost_records_total', '', over=IN_RANGE)})",
                steps={1: BAD},
                decimals=0,
            ),
            number(
                "Rejected by a backend",
                "Spans and log records that a backend permanently rejected in the selected time.",
                grown("wok_exporter_rejected_by_backend_total", ""),
                steps={1: WARNING},
                decimals=0,
            ),
            number(
                "Rejected lines",
                "Lines of the log in the selected time that are not in any known format of Wok.",
                f"round({increase('wok_exporter_rejected_lines_total', '', over=IN_RANGE)})",
                steps={1: WARNING},
                decimals=0,
            ),
        ],
    )


def _exporters() -> Row:
    by = "instance"
    return Row(
        "Exporters",
        [
            listing(
                "Exporters",
                "Each exporter: whether it answers, whether it can read the log (its /readyz states the "
                "reason), the age of its latest record, unread and queued bytes, whether its last reload was "
                "accepted, and how long ago its configuration came into force.",
                {"instance": "Instance", "version": "Version"},
                [
                    Column(f"max by (instance, version) ({BUILD})", "Answers", "bool_yes_no"),
                    Column(f"1 - max by ({by}) ({PROBLEM})", "Reads", "bool_yes_no"),
                    Column(f"time() - max by ({by}) ({LAST_RECORD})", "Latest record", "s"),
                    Column(f"max by ({by}) ({BEHIND})", "Unread", "bytes", bad_from=1_000_000),
                    Column(f"{total(metric('wok_exporter_journal_bytes'), by)}", "Queued bytes", "bytes"),
                    Column(
                        f"{increase('wok_exporter_lost_records_total', by, over=IN_RANGE)}",
                        "Lost",
                        bad_from=1,
                        decimals=0,
                    ),
                    Column(
                        f"{increase('wok_exporter_log_gaps_total', by, over=IN_RANGE)}",
                        "Gaps in the log",
                        bad_from=1,
                        decimals=0,
                    ),
                    Column(f"min by ({by}) ({RELOADED})", "Reload accepted", "bool_yes_no"),
                    Column(f"time() - max by ({by}) ({CONFIGURED})", "Configured", "s"),
                ],
                sort_by="Unread",
                empty="No exporter answers",
                width=14,
                height=8,
            ),
            graph(
                "Exporters that answer",
                "1 while Prometheus can scrape an exporter, otherwise 0.",
                [Curve(UP, "{{instance}}")],
                "bool_on_off",
                width=5,
                height=8,
            ),
            graph(
                "Versions",
                "Number of exporters by version.",
                [Curve(f"count by (version) ({BUILD})", "{{version}}")],
                is_stacked=True,
                width=5,
                height=8,
            ),
        ],
    )


def _reading() -> Row:
    return Row(
        "Reading Wok's log",
        [
            graph(
                "Unread log",
                "Unread bytes of the log. If a line does not fall, that exporter is stuck.",
                [Curve(BEHIND, "{{instance}}")],
                "bytes",
                width=8,
                height=8,
            ),
            graph(
                "Read",
                "Bytes of the log read per second, after decompression.",
                [Curve(rate("wok_exporter_read_bytes_total", "instance"), "{{instance}}")],
                "Bps",
                width=8,
                height=8,
            ),
            graph(
                "Age of the latest record",
                "Age of the latest record of the log. It grows while nobody uses Wok. A negative age "
                "means a wrong time zone.",
                [Curve(f"time() - {LAST_RECORD}", "{{instance}}")],
                "s",
                width=8,
                height=8,
            ),
            graph(
                "Rotations",
                "How often the log was rotated, truncated or replaced. copytruncate can lose lines.",
                [
                    Curve(
                        f"{increase('wok_exporter_rotations_total', 'instance, kind')} > 0",
                        "{{kind}} on {{instance}}",
                    )
                ],
                bars=True,
                empty="No rotation",
                width=8,
                height=7,
            ),
            graph(
                "Gaps in the log",
                "Log files that were gone before they were read to their end. The number of lost lines "
                "is unknown.",
                [
                    Curve(
                        f"{increase('wok_exporter_log_gaps_total', 'instance')} > 0",
                        "{{instance}}",
                    )
                ],
                bars=True,
                empty="No gap",
                width=8,
                height=7,
            ),
            graph(
                "Scrapes without the state",
                "Scrapes that could not read the exporter's state and returned the values of the "
                "previous scrape.",
                [Curve(increase("wok_exporter_collect_errors_total", "instance"), "{{instance}}")],
                bars=True,
                width=8,
                height=7,
            ),
            graph(
                "State size",
                "Size of the state on disk, with its write-ahead log.",
                [Curve(metric("wok_exporter_state_bytes"), "{{instance}}")],
                "bytes",
                width=12,
                height=7,
            ),
            graph(
                "Damaged state",
                "Parts of the state that were damaged by the disk or by a person, and set aside.",
                [
                    Curve(
                        f"{increase('wok_exporter_state_damages_total', 'instance, part')} > 0",
                        "{{part}} on {{instance}}",
                    )
                ],
                bars=True,
                empty="No damage",
                width=12,
                height=7,
            ),
        ],
    )


def _understanding() -> Row:
    return Row(
        "Parsing",
        [
            graph(
                "Lines",
                "Log lines per hour, by result: records, further lines of a record, forged records, and "
                "lines that cannot be parsed.",
                [Curve(hourly("wok_exporter_lines_total", "result"), "{{result}}")],
                is_stacked=True,
                width=8,
                height=8,
            ),
            graph(
                "Rejected lines",
                "Lines that could not be parsed, by reason.",
                [
                    Curve(
                        f"{increase('wok_exporter_rejected_lines_total', 'instance, reason')} > 0",
                        "{{reason}} on {{instance}}",
                    )
                ],
                bars=True,
                empty="All lines were parsed",
                width=8,
                height=8,
            ),
            graph(
                "Records",
                "Records per hour, by kind and by the format of the line.",
                [
                    Curve(
                        f"{hourly('wok_exporter_records_total', 'kind, dialect')} > 0",
                        "{{kind}} ({{dialect}})",
                    )
                ],
                is_stacked=True,
                width=8,
                height=8,
            ),
            graph(
                "Matches with requests",
                "Ended tasks by how certain their request is: exact, likely, ambiguous, or none.",
                [Curve(increase("wok_exporter_correlations_total", "result"), "{{result}}")],
                bars=True,
                width=6,
                height=8,
            ),
            graph(
                "Exceptions in wok-error.log",
                "Exceptions of tasks, by result: matched with a failed task, unsure, discredited (may be "
                "forged), or without a record in the log.",
                [Curve(increase("wok_exporter_error_blocks_total", "result"), "{{result}}")],
                bars=True,
                width=6,
                height=8,
            ),
            graph(
                "Answers in wok-access.log",
                "Requests that Wok may have logged as 500 by mistake, by what wok-access.log says of "
                "them: corrected, confirmed, contested, or missing.",
                [Curve(increase("wok_exporter_access_answers_total", "result"), "{{result}}")],
                bars=True,
                width=6,
                height=8,
            ),
            listing(
                "Tasks that ended more than once",
                "End records of tasks that had already ended. Wok reports some failures twice. Many "
                "repeats of one operation are a bug of its plug-in.",
                {"app": "Application", "operation": "Operation"},
                [Column(f"{grown('wok_task_repeats_total', 'app, operation')} > 0", "Repeats", decimals=0)],
                sort_by="Repeats",
                empty="None",
                width=6,
                height=8,
            ),
        ],
    )


def _delivering() -> Row:
    return Row(
        "Delivery of spans and log records",
        [
            graph(
                "Queued",
                "Spans and log records that a backend has not accepted yet.",
                [
                    Curve(
                        total(metric("wok_exporter_journal_records"), "instance, signal"),
                        "{{signal}} of {{instance}}",
                    )
                ],
                width=8,
                height=8,
            ),
            graph(
                "Queued bytes",
                "Size of the delivery queue. At its limit (512 MiB by default), the oldest items are "
                "dropped.",
                [
                    Curve(
                        total(metric("wok_exporter_journal_bytes"), "instance, signal"),
                        "{{signal}} of {{instance}}",
                    )
                ],
                "bytes",
                width=8,
                height=8,
            ),
            graph(
                "Oldest queued item",
                "Age of the oldest queued span or log record. It rises while a backend does not accept data.",
                [Curve(f"time() - {OLDEST}", "{{signal}} of {{instance}}")],
                "s",
                empty="None",
                width=8,
                height=8,
            ),
            graph(
                "Delivered",
                "Spans and log records per hour that the backend accepted.",
                [Curve(hourly("wok_exporter_delivered_total", "signal"), "{{signal}}")],
                width=8,
                height=8,
            ),
            graph(
                "Failed deliveries",
                "Requests to a backend that failed and are retried, by reason.",
                [
                    Curve(
                        f"{increase('wok_exporter_delivery_failures_total', 'signal, reason')} > 0",
                        "{{signal}}: {{reason}}",
                    )
                ],
                bars=True,
                empty="No delivery has failed",
                width=8,
                height=8,
            ),
            graph(
                "Rejected and dropped",
                "Spans and log records that a backend permanently rejected, and those that were dropped.",
                [
                    Curve(
                        increase("wok_exporter_rejected_by_backend_total", "signal, reason"),
                        "rejected {{signal}}: {{reason}}",
                    ),
                    Curve(increase("wok_exporter_lost_records_total", "reason"), "dropped: {{reason}}"),
                ],
                bars=True,
                width=8,
                height=8,
            ),
        ],
    )
