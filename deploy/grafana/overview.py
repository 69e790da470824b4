"""Wok overview: what is asked of Wok, what runs, what failed and how long it takes, over all chosen hosts."""

from __future__ import annotations

from deploy.grafana.expressions import ENDED, USUAL, grown, hourly, increase, metric, quantile, total
from deploy.grafana.layout import Row, rendered
from deploy.grafana.panels import BAD, WARNING, Column, Curve, durations, graph, listing, number

FINISHED, STARTED = "wok_tasks_finished_total", "wok_tasks_started_total"
OLDEST = "wok_task_oldest_start_timestamp_seconds"
FAILURE, SUCCESS, LOST = 'outcome="failure"', 'outcome="success"', 'outcome="lost"'
NOT_TOLD = 'outcome=~"lost|unknown"'
DURATION = "wok_task_duration_seconds"
TASK = {"app": "Application", "operation": "Operation"}
ON_HOST = "instance, app, operation"
IN_RANGE = "$__range"


def dashboard() -> str:
    """Return the dashboard's JSON."""
    return rendered(
        "Wok overview",
        "wok-overview",
        "What is asked of Wok, what became of it, and how long it took: requests and tasks of all chosen hosts.",
        [_at_a_glance(), _running(), _failures(), _durations(), _requests()],
    )


def _at_a_glance() -> Row:
    known = increase(FINISHED, "", ENDED, over=IN_RANGE)
    return Row(
        "At a glance",
        [
            number(
                "Running tasks",
                "Tasks that have started and not yet ended, now.",
                total(metric("wok_tasks_in_progress")),
            ),
            number(
                "Longest running",
                "For how long the oldest task in progress has been running. A task whose end Wok never logs is given up after a day.",
                f"time() - min({metric(OLDEST)})",
                "s",
                empty="None runs",
            ),
            number(
                "Failed tasks",
                "Tasks that failed in the chosen time. Their requests were answered as a success before: this is the only place where the failure shows.",
                f"round({increase(FINISHED, '', FAILURE, over=IN_RANGE)})",
                steps={1: BAD},
                decimals=0,
            ),
            number(
                "Success ratio",
                "Of the tasks that succeeded, failed or were lost in the chosen time: how many succeeded.",
                f"{increase(FINISHED, '', SUCCESS, over=IN_RANGE)} / {known} >= 0",
                "percentunit",
                steps={0: BAD, 0.9: WARNING, 0.99: "green"},
                empty="No task",
                decimals=1,
            ),
            number(
                "Lost tasks",
                "Tasks that died in the chosen time because Wok was restarted while they ran.",
                f"round({increase(FINISHED, '', LOST, over=IN_RANGE)})",
                steps={1: WARNING},
                decimals=0,
            ),
            number(
                "Finished tasks",
                "Tasks that ended in the chosen time, however they ended.",
                f"round({increase(FINISHED, '', over=IN_RANGE)})",
                decimals=0,
            ),
            number(
                "Requests",
                "Requests that changed something (POST, PUT, DELETE) in the chosen time; Wok does not log the others.",
                f"round({increase('wok_requests_total', '', over=IN_RANGE)})",
                decimals=0,
            ),
            number(
                "Exporters down",
                "Exporters that Prometheus cannot read. Of their hosts nothing is known: see the dashboard Exporter health.",
                f"count({metric('up')} == 0 and on (job) last_over_time({metric('wok_exporter_build_info')}[1d])) or 0 * count({metric('up')})",
                steps={1: BAD},
                decimals=0,
            ),
        ],
    )


def _running() -> Row:
    oldest = metric(OLDEST)
    return Row(
        "Running now",
        [
            listing(
                "Running tasks",
                "What runs where, for how long the oldest of it has been running, and within which time 95 % of such tasks succeeded in the last week "
                "(from the recording rules; empty for tasks that are rare). Click an operation for its details.",
                {"instance": "Instance", **TASK},
                [
                    Column(f"{total(metric('wok_tasks_in_progress'), ON_HOST)} > 0", "Running", decimals=0),
                    Column(f"time() - min by ({ON_HOST}) ({oldest})", "Oldest", "s"),
                    Column(
                        f"max by ({ON_HOST}) ({metric(USUAL)}) and on ({ON_HOST}) {oldest}",
                        "Usual (95 %)",
                        "s",
                    ),
                ],
                sort_by="Oldest",
                empty="No task is running",
                width=14,
                height=8,
            ),
            graph(
                "Tasks in progress",
                "How many tasks of each operation were running.",
                [
                    Curve(
                        f"{total(metric('wok_tasks_in_progress'), 'app, operation')} > 0",
                        "{{app}} {{operation}}",
                    )
                ],
                is_stacked=True,
                empty="No task was running",
                width=10,
                height=8,
            ),
        ],
    )


def _failures() -> Row:
    failed = increase(FINISHED, "app, operation", FAILURE, over=IN_RANGE)
    known = increase(FINISHED, "app, operation", ENDED, over=IN_RANGE)
    last = metric("wok_task_last_failure_timestamp_seconds")
    return Row(
        "Failures",
        [
            graph(
                "Failed tasks by operation",
                "Tasks that failed, in the time that a bar stands for.",
                [Curve(f"{increase(FINISHED, 'app, operation', FAILURE)} > 0", "{{app}} {{operation}}")],
                bars=True,
                empty="No task has failed",
                width=12,
                height=8,
            ),
            listing(
                "Most failing operations",
                "Operations with failed tasks in the chosen time: how many failed, which share that is of those whose outcome is known, and when it happened last. "
                "Click an operation for its details.",
                TASK,
                [
                    Column(f"round({failed}) > 0", "Failed", bad_from=1, decimals=0),
                    Column(f"{failed} / {known} > 0", "Share failed", "percentunit", decimals=1),
                    Column(
                        f"max by (app, operation) ({last}) * 1000 and on (app, operation) (round({failed}) > 0)",
                        "Last failure",
                        "dateTimeFromNow",
                    ),
                ],
                sort_by="Failed",
                empty="No task has failed",
                width=12,
                height=8,
            ),
            listing(
                "Failures by error code",
                "Why tasks failed in the chosen time: Wok's own error codes; `none` where Wok gave no reason.",
                {**TASK, "error_code": "Error code"},
                [
                    Column(
                        f"{grown('wok_task_failures_total', 'app, operation, error_code')} > 0",
                        "Failed",
                        decimals=0,
                    )
                ],
                sort_by="Failed",
                empty="No task has failed",
                width=12,
                height=8,
            ),
            graph(
                "Lost and unknown tasks",
                "Tasks that died in a restart of Wok (lost), and tasks whose end Wok never logged (unknown; most of them ended in silence).",
                [
                    Curve(
                        f"{increase(FINISHED, 'app, operation, outcome', NOT_TOLD)} > 0",
                        "{{outcome}}: {{app}} {{operation}}",
                    )
                ],
                bars=True,
                empty="No task was lost",
                width=12,
                height=8,
            ),
        ],
    )


def _durations() -> Row:
    return Row(
        "Durations",
        [
            durations(
                "Durations of tasks",
                "How long tasks took that ended then; the darker, the more of them. A point is one task: click it for its trace.",
                increase(f"{DURATION}_bucket", "le"),
                width=12,
                height=9,
            ),
            graph(
                "Durations by operation",
                "The median of the tasks that succeeded, and the time within which 95 % of them did.",
                [
                    Curve(quantile(0.5, "app, operation", SUCCESS), "{{app}} {{operation}} median"),
                    Curve(quantile(0.95, "app, operation", SUCCESS), "{{app}} {{operation}} 95 %"),
                ],
                "s",
                interval="5m",
                empty="No task has succeeded",
                width=12,
                height=9,
            ),
            listing(
                "Slowest operations",
                "How long the tasks took that succeeded in the chosen time, how many there were, and when the last one succeeded. "
                "Quantiles are as exact as the buckets of the histogram. Click an operation for its details.",
                TASK,
                [
                    Column(quantile(0.95, "app, operation", SUCCESS, over=IN_RANGE), "95 %", "s"),
                    Column(quantile(0.5, "app, operation", SUCCESS, over=IN_RANGE), "Median", "s"),
                    Column(
                        f"{increase(f'{DURATION}_sum', 'app, operation', SUCCESS, over=IN_RANGE)}"
                        f" / {increase(f'{DURATION}_count', 'app, operation', SUCCESS, over=IN_RANGE)} >= 0",
                        "Mean",
                        "s",
                    ),
                    Column(
                        f"round({increase(FINISHED, 'app, operation', SUCCESS, over=IN_RANGE)}) > 0",
                        "Succeeded",
                        decimals=0,
                    ),
                    Column(
                        f"max by (app, operation) ({metric('wok_task_last_success_timestamp_seconds')}) * 1000"
                        f" and on (app, operation) ({increase(FINISHED, 'app, operation', SUCCESS, over=IN_RANGE)} > 0)",
                        "Last success",
                        "dateTimeFromNow",
                    ),
                ],
                sort_by="95 %",
                empty="No task has succeeded",
                width=24,
                height=9,
            ),
        ],
    )


def _requests() -> Row:
    refused = increase("wok_requests_total", "app, method, code", 'code!~"[123].."')
    return Row(
        "Requests",
        [
            graph(
                "Requests per hour by application",
                "Requests that changed something, per hour, by the plug-in that answered them.",
                [Curve(hourly("wok_requests_total", "app"), "{{app}}")],
                is_stacked=True,
                width=8,
                height=8,
            ),
            graph(
                "Requests per hour by status",
                "The same by status code. 202 are the requests that started a task.",
                [Curve(hourly("wok_requests_total", "code"), "{{code}}")],
                is_stacked=True,
                width=8,
                height=8,
            ),
            graph(
                "Refused and failed requests",
                "Requests that were answered with an error at once (4xx, 5xx), in the time that a bar stands for.",
                [Curve(f"{refused} > 0", "{{code}} {{method}} {{app}}")],
                bars=True,
                empty="No request was refused",
                width=8,
                height=8,
            ),
            graph(
                "Tasks started and finished",
                "Tasks in the time that a point stands for. Where more start than finish, work piles up.",
                [
                    Curve(increase(STARTED, ""), "started"),
                    Curve(increase(FINISHED, "outcome"), "{{outcome}}"),
                ],
                width=24,
                height=7,
            ),
        ],
    )
