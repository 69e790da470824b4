"""Task detail: one operation of one application, over the selected hosts, with traces and log
records.
"""

from __future__ import annotations

from deploy.grafana.expressions import (
    CHOSEN,
    ENDED,
    USUAL,
    USUAL_MEDIAN,
    grown,
    increase,
    metric,
    quantile,
    total,
)
from deploy.grafana.layout import Row, one_of, rendered, source
from deploy.grafana.panels import (
    BAD,
    WARNING,
    Column,
    Curve,
    durations,
    graph,
    listing,
    number,
    records,
    traces,
)

FINISHED, STARTED = "wok_tasks_finished_total", "wok_tasks_started_total"
THIS = 'app="$app",operation="$operation"'
FAILURE, SUCCESS = 'outcome="failure"', 'outcome="success"'
IN_RANGE = "$__range"
NAME = "$app $operation"


def dashboard() -> str:
    """Return the dashboard's JSON."""
    app = f"label_values(wok_tasks_started_total{{{CHOSEN}}}, app)"
    operation = f'label_values(wok_tasks_started_total{{app="$app",{CHOSEN}}}, operation)'
    return rendered(
        "Task detail",
        "wok-task",
        "One operation: who started it, how it ended, how long it takes, and what else was "
        "requested meanwhile.",
        [_at_a_glance(), _over_time(), _durations(), _why()],
        variables=[
            one_of("app", "Application", "The application (plug-in) of the operation.", app),
            one_of("operation", "Operation", "What the task does.", operation),
            source("tempo", "Traces", "tempo", "Tempo"),
            source("loki", "Log records", "loki", "Loki"),
        ],
    )


def _of(name: str) -> str:
    return metric(name, THIS)


def _at_a_glance() -> Row:
    return Row(
        "This operation",
        [
            number(
                "Running",
                "Running tasks of this operation.",
                total(_of("wok_tasks_in_progress")),
            ),
            number(
                "Oldest",
                "Time since the oldest of them started.",
                f"time() - min({_of('wok_task_oldest_start_timestamp_seconds')})",
                "s",
                empty="None",
            ),
            number(
                "Usual (95 %)",
                "Time within which 95 % of such tasks succeeded in the last week, on the slowest of the "
                "selected hosts (from the recording rules).",
                f"max({_of(USUAL)})",
                "s",
                empty="Unknown",
            ),
            number(
                "Succeeded",
                "Tasks that succeeded in the selected time.",
                f"round({increase(FINISHED, '', THIS, SUCCESS, over=IN_RANGE)})",
                decimals=0,
            ),
            number(
                "Failed",
                "Tasks that failed in the selected time.",
                f"round({increase(FINISHED, '', THIS, FAILURE, over=IN_RANGE)})",
                steps={1: BAD},
                decimals=0,
            ),
            number(
                "Success ratio",
                "Share of successful tasks among those that succeeded, failed or were lost in the "
                "selected time.",
                f"{increase(FINISHED, '', THIS, SUCCESS, over=IN_RANGE)} / {increase(FINISHED, '', THIS, ENDED, over=IN_RANGE)} >= 0",
                "percentunit",
                steps={0: BAD, 0.9: WARNING, 0.99: "green"},
                empty="No task",
                decimals=1,
            ),
            number(
                "Last success",
                "End of the latest successful task.",
                f"max({_of('wok_task_last_success_timestamp_seconds')}) * 1000",
                "dateTimeFromNow",
                empty="Never",
            ),
            number(
                "Last failure",
                "End of the latest failed task.",
                f"max({_of('wok_task_last_failure_timestamp_seconds')}) * 1000",
                "dateTimeFromNow",
                empty="Never",
            ),
        ],
    )


def _over_time() -> Row:
    return Row(
        f"{NAME} over time",
        [
            graph(
                "Started and finished",
                "Started and finished tasks, by outcome.",
                [
                    Curve(increase(STARTED, "", THIS), "started"),
                    Curve(increase(FINISHED, "outcome", THIS), "{{outcome}}"),
                ],
                width=12,
                height=8,
            ),
            graph(
                "Failed by instance",
                "Failed tasks, by host.",
                [Curve(f"{increase(FINISHED, 'instance', THIS, FAILURE)} > 0", "{{instance}}")],
                bars=True,
                empty="No task has failed",
                width=12,
                height=8,
            ),
            graph(
                "In progress",
                "Running tasks, by host.",
                [Curve(total(_of("wok_tasks_in_progress"), "instance"), "{{instance}}")],
                is_stacked=True,
                width=12,
                height=8,
            ),
            graph(
                "Running compared with usual",
                "Time since the oldest running task started, by host, and the time within which 50 % "
                "and 95 % of such tasks succeed there (from the recording rules). If a line rises above "
                "the usual time, check that host.",
                [
                    Curve(
                        f"time() - min by (instance) ({_of('wok_task_oldest_start_timestamp_seconds')})",
                        "{{instance}} oldest",
                    ),
                    Curve(f"max by (instance) ({_of(USUAL_MEDIAN)})", "{{instance}} usual median"),
                    Curve(f"max by (instance) ({_of(USUAL)})", "{{instance}} usual 95 %"),
                ],
                "s",
                empty="No task was running",
                width=12,
                height=8,
            ),
        ],
    )


def _durations() -> Row:
    return Row(
        f"Durations of {NAME}",
        [
            durations(
                "Durations",
                "Durations of tasks by the time of their end. Darker cells contain more tasks. A point "
                "is one task: click it for its trace.",
                increase("wok_task_duration_seconds_bucket", "le", THIS),
                width=12,
                height=9,
            ),
            graph(
                "Median and 95 %",
                "Median and 95th percentile of successful tasks.",
                [
                    Curve(quantile(0.5, "", THIS, SUCCESS), "median"),
                    Curve(quantile(0.95, "", THIS, SUCCESS), "95 %"),
                ],
                "s",
                interval="5m",
                empty="No task has succeeded",
                width=12,
                height=9,
            ),
        ],
    )


def _why() -> Row:
    return Row(
        f"Outcome of {NAME}, and concurrent requests",
        [
            listing(
                "Failures by error code",
                "Failed tasks in the selected time, by Wok's error code. `none` means that Wok logged "
                "no code.",
                {"instance": "Instance", "error_code": "Error code"},
                [
                    Column(
                        f"{grown('wok_task_failures_total', 'instance, error_code', THIS)} > 0",
                        "Failed",
                        decimals=0,
                    )
                ],
                sort_by="Failed",
                empty="No task has failed",
                width=8,
                height=9,
            ),
            traces(
                "Traces of failed tasks",
                "Traces from Tempo in which this operation failed or was lost: who started it, and why "
                "it failed. The links of the task's span are the requests that were made meanwhile.",
                '{ span.wok.app = "$app" && span.wok.operation = "$operation" && status = error }',
                width=8,
                height=9,
            ),
            traces(
                "All traces",
                "All traces from Tempo with this operation.",
                '{ span.wok.app = "$app" && span.wok.operation = "$operation" }',
                width=8,
                height=9,
            ),
            records(
                "Log records of this operation",
                "From Loki: requests, starts and ends of tasks, and reasons of failures. The details of "
                "a record link to its trace.",
                '{service_namespace="wok"} | wok_app="$app" | wok_operation="$operation"',
                width=12,
                height=10,
            ),
            records(
                "Concurrent requests",
                "From Loki: all requests to Wok in the selected time, of any operation. Zoom in to the "
                "time of a task to see what else was requested while it ran.",
                '{service_namespace="wok"} | http_request_method!=""',
                width=12,
                height=10,
            ),
        ],
    )
