"""Wok overview: requests, running and failed tasks, and durations, over all selected hosts."""

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
        "Requests and tasks of all selected hosts: what was requested, how it ended, and how long it took.",
        [_at_a_glance(), _running(), _failures(), _durations(), _requests()],
    )


def _at_a_glance() -> Row:
    known = increase(FINISHED, "", ENDED, over=IN_RANGE)
    return Row(
        "At a glance",
        [
            number(
                "Running tasks",
                "Tasks that have started and not ended.",
                total(metric("wok_tasks_in_progress")),
            ),
            number(
                "Longest running",
                "Time since the oldest running task started. A task whose end Wok never logs is closed "
                "after a day.",
                f"time() - min({metric(OLDEST)})",
                "s",
                empty="None",
            ),
            number(
                "Failed tasks",
                "Tasks that failed in the selected time. Wok had answered their requests with a "
                "success, so the users may not know.",
                f"round({increase(FINISHED, '', FAILURE, over=IN_RANGE)})",
                steps={1: BAD},
                decimals=0,
            ),
            number(
                "Success ratio",
                "Share of successful tasks among those that succeeded, failed or were lost in the "
                "selected time.",
                f"{increase(FINISHED, '', SUCCESS, over=IN_RANGE)} / {known} >= 0",
                "percentunit",
                steps={0: BAD, 0.9: WARNING, 0.99: "green"},
                empty="No task",
                decimals=1,
            ),
            number(
                "Lost tasks",
                "Tasks that ended in the selected time because wokd restarted.",
                f"round({increase(FINISHED, '', LOST, over=IN_RANGE)})",
                steps={1: WARNING},
                decimals=0,
            ),
            number(
                "Finished tasks",
                "Tasks that ended in the selected time, with any outcome.",
                f"round({increase(FINISHED, '', over=IN_RANGE)})",
                decimals=0,
            ),
            number(
                "Requests",
                "POST, PUT and DELETE requests in the selected time. Wok does not log other requests.",
                f"round({increase('wok_requests_total', '', over=IN_RANGE)})",
                decimals=0,
            ),
            number(
                "Exporters down",
                "Exporters that Prometheus cannot scrape. The state of their hosts is unknown: see the "
                "dashboard Exporter health.",
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
                "Running tasks by host: time since the oldest started, and the time within which 95 % "
                "of such tasks succeeded in the last week (from the recording rules, empty for rare "
                "tasks). Click an operation for its details.",
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
                "Number of running tasks, by operation.",
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
                "Failed tasks, by operation.",
                [Curve(f"{increase(FINISHED, 'app, operation', FAILURE)} > 0", "{{app}} {{operation}}")],
                bars=True,
                empty="No task has failed",
                width=12,
                height=8,
            ),
            listing(
                "Most failing operations",
                "Operations with failed tasks in the selected time: their number, their share of the "
                "tasks with a known outcome, and the latest failure. Click an operation for its "
                "details.",
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
                "Failed tasks in the selected time, by Wok's error code. `none` means that Wok logged "
                "no code.",
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
                "Tasks that ended with a restart of wokd (lost), and tasks whose end Wok never logged "
                "(unknown).",
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
                "Durations of tasks by the time of their end. Darker cells contain more tasks. A point "
                "is one task: click it for its trace.",
                increase(f"{DURATION}_bucket", "le"),
                width=12,
                height=9,
            ),
            graph(
                "Durations by operation",
                "Median and 95th percentile of successful tasks.",
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
                "Successful tasks in the selected time: durations, number, and the latest success. "
                "Quantiles are as precise as the buckets of the histogram. Click an operation for its "
                "details.",
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
                "POST, PUT and DELETE requests per hour, by plug-in.",
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
                "Rejected and failed requests",
                "Requests that were answered with an error (4xx, 5xx).",
                [Curve(f"{refused} > 0", "{{code}} {{method}} {{app}}")],
                bars=True,
                empty="No request was rejected",
                width=8,
                height=8,
            ),
            graph(
                "Tasks started and finished",
                "If more tasks start than finish, they accumulate.",
                [
                    Curve(increase(STARTED, ""), "started"),
                    Curve(increase(FINISHED, "outcome"), "{{outcome}}"),
                ],
                width=24,
                height=7,
            ),
        ],
    )
