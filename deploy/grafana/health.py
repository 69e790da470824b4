"""Exporter health: whether the exporters themselves are well; the dashboard for whoever runs them."""

from __future__ import annotations

from deploy.grafana.expressions import grown, hourly, increase, metric, rate, total
from deploy.grafana.layout import Row, rendered
from deploy.grafana.panels import BAD, WARNING, Column, Curve, graph, listing, number

IN_RANGE = "$__range"
BUILD = metric("wok_exporter_build_info")
UP = f"{metric('up')} and on (job) last_over_time({BUILD}[1d])"
"""Without the second half, `All` would be every job that Prometheus has."""
LAST_RECORD = metric("wok_exporter_last_record_timestamp_seconds")
OLDEST = metric("wok_exporter_journal_oldest_timestamp_seconds")
PROBLEM = metric("wok_exporter_reading_problem")
BEHIND = metric("wok_exporter_behind_bytes")


def dashboard() -> str:
    """Return the dashboard's JSON."""
    return rendered(
        "Exporter health",
        "wok-exporter-health",
        "Whether the exporters read Wok's log, understand it, and get rid of what they make of it.",
        [_at_a_glance(), _exporters(), _reading(), _understanding(), _delivering()],
        from_time="now-6h",
    )


def _at_a_glance() -> Row:
    return Row(
        "At a glance",
        [
            number(
                "Exporters up",
                "Exporters that Prometheus can read, now.",
                f"sum({UP})",
                decimals=0,
            ),
            number(
                "Exporters down",
                "Exporters that it cannot read. Nothing is lost as long as Wok's log is kept, but nothing is known either.",
                f"count({UP} == 0) or 0 * count({UP})",
                steps={1: BAD},
                decimals=0,
            ),
            number(
                "Without task metrics",
                "Exporters that tell of themselves but not of Wok: they are still reading their first backlog, or Wok has not logged anything yet.",
                f"count({BUILD} unless on (job, instance) {metric('wok_requests_total')}) or 0 * count({BUILD})",
                steps={1: WARNING},
                decimals=0,
            ),
            number(
                "Unread log",
                "Bytes of Wok's log that are still to be read; the most of any exporter. It is 0 nearly all of the time.",
                f"max({BEHIND})",
                "bytes",
                steps={1_000_000: WARNING},
                empty="Not known",
            ),
            number(
                "Waiting to be sent",
                "The age of the oldest span or log record that a backend has not taken yet.",
                f"time() - min({OLDEST})",
                "s",
                steps={300: WARNING, 3600: BAD},
                empty="None waits",
            ),
            number(
                "Lost",
                "Spans and log records given up unsent in the chosen time, and gaps in the log (one each).",
                f"round({increase('wok_exporter_lost_records_total', '', over=IN_RANGE)})",
                steps={1: BAD},
                decimals=0,
            ),
            number(
                "Refused by a backend",
                "Spans and log records that a backend refused for good in the chosen time.",
                grown("wok_exporter_rejected_by_backend_total", ""),
                steps={1: WARNING},
                decimals=0,
            ),
            number(
                "Lines not understood",
                "Lines of the log in the chosen time that are no record of any known release of Wok.",
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
                "Each exporter: whether it answers, whether it can read the log (its /readyz says why not), how long ago the latest record of its log was made, what it has not read yet, and what waits to be sent.",
                {"instance": "Instance", "version": "Version"},
                [
                    Column(f"max by (instance, version) ({BUILD})", "Answers", "bool_yes_no"),
                    Column(f"1 - max by ({by}) ({PROBLEM})", "Reads", "bool_yes_no"),
                    Column(f"time() - max by ({by}) ({LAST_RECORD})", "Latest record", "s"),
                    Column(f"max by ({by}) ({BEHIND})", "Unread", "bytes", bad_from=1_000_000),
                    Column(f"{total(metric('wok_exporter_journal_bytes'), by)}", "Waits", "bytes"),
                    Column(
                        f"{increase('wok_exporter_lost_records_total', by, over=IN_RANGE)}",
                        "Lost",
                        bad_from=1,
                        decimals=0,
                    ),
                ],
                sort_by="Unread",
                empty="No exporter answers",
                width=14,
                height=8,
            ),
            graph(
                "Exporters that answer",
                "1 while Prometheus can read an exporter, 0 while it cannot.",
                [Curve(UP, "{{instance}}")],
                "bool_on_off",
                width=5,
                height=8,
            ),
            graph(
                "Versions",
                "How many exporters run which version.",
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
                "Bytes of the log that are known to be still unread. A line that does not fall is an exporter that is stuck.",
                [Curve(BEHIND, "{{instance}}")],
                "bytes",
                width=8,
                height=8,
            ),
            graph(
                "Read",
                "Bytes of the log read, a second, decompressed.",
                [Curve(rate("wok_exporter_read_bytes_total", "instance"), "{{instance}}")],
                "Bps",
                width=8,
                height=8,
            ),
            graph(
                "Age of the latest record",
                "How long ago the latest record of the log was made. It grows while nobody uses Wok; a negative one is a wrong time zone.",
                [Curve(f"time() - {LAST_RECORD}", "{{instance}}")],
                "s",
                width=8,
                height=8,
            ),
            graph(
                "Rotations",
                "Times that the log was rotated, truncated or replaced. With copytruncate lines can be lost.",
                [
                    Curve(
                        f"{increase('wok_exporter_rotations_total', 'instance, kind')} > 0",
                        "{{kind}} on {{instance}}",
                    )
                ],
                bars=True,
                empty="No rotation",
                width=12,
                height=7,
            ),
            graph(
                "Failed looks at the state",
                "Scrapes that could not read the exporter's state and showed the values of the one before.",
                [Curve(increase("wok_exporter_collect_errors_total", "instance"), "{{instance}}")],
                bars=True,
                width=12,
                height=7,
            ),
        ],
    )


def _understanding() -> Row:
    return Row(
        "Understanding it",
        [
            graph(
                "Lines",
                "Log lines per hour, by result: records, further lines of a record, forged records (somebody wrote a record into the log), and lines that cannot be parsed.",
                [Curve(hourly("wok_exporter_lines_total", "result"), "{{result}}")],
                is_stacked=True,
                width=8,
                height=8,
            ),
            graph(
                "Lines not understood",
                "Lines that are no record, in the time that a bar stands for, by what is wrong with them.",
                [
                    Curve(
                        f"{increase('wok_exporter_rejected_lines_total', 'instance, reason')} > 0",
                        "{{reason}} on {{instance}}",
                    )
                ],
                bars=True,
                empty="All lines were understood",
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
                "Joined to their requests",
                "How sure it is which request a task belongs to: exact, likely, ambiguous, or none.",
                [Curve(increase("wok_exporter_correlations_total", "result"), "{{result}}")],
                bars=True,
                width=12,
                height=8,
            ),
            listing(
                "Tasks that ended more than once",
                "Further final records, in the chosen time, of tasks that had already ended. Wok reports some failures twice; many repeats of an operation are a bug of its plug-in.",
                {"app": "Application", "operation": "Operation"},
                [Column(f"{grown('wok_task_repeats_total', 'app, operation')} > 0", "Repeats", decimals=0)],
                sort_by="Repeats",
                empty="None",
                width=12,
                height=8,
            ),
        ],
    )


def _delivering() -> Row:
    return Row(
        "Delivering spans and log records",
        [
            graph(
                "Waiting to be sent",
                "Spans and log records that a backend has not taken yet.",
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
                "Bytes waiting",
                "How much room they take. At the limit (512 MiB unless configured) the oldest are given up.",
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
                "Oldest waiting",
                "The age of the oldest span or log record that waits. It rises while a backend does not take what it is sent.",
                [Curve(f"time() - {OLDEST}", "{{signal}} of {{instance}}")],
                "s",
                empty="None waits",
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
                "Requests to a backend that failed and are tried again, in the time that a bar stands for, by the reason.",
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
                "Refused and lost",
                "Spans and log records that a backend refused for good, and such that were given up unsent, in the time that a bar stands for.",
                [
                    Curve(
                        increase("wok_exporter_rejected_by_backend_total", "signal, reason"),
                        "refused {{signal}}: {{reason}}",
                    ),
                    Curve(increase("wok_exporter_lost_records_total", "reason"), "lost: {{reason}}"),
                ],
                bars=True,
                width=8,
                height=8,
            ),
        ],
    )
