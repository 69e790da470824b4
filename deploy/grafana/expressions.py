"""The PromQL of the panels: selectors with the dashboard's variables, and frequent expressions.

Use `increase` for a counter that exists at 0 (docs/metrics.md). Use `grown` for a counter whose
series start with their first count, because `increase` misses that first step.
"""

from __future__ import annotations

CHOSEN = 'job=~"$job",instance=~"$instance"'
"""Part of every selector: the jobs and instances that are selected at the top of the dashboard."""
ENDED = 'outcome=~"success|failure|lost"'
"""Tasks with a known outcome. Most `unknown` tasks ended without a report."""
USUAL_MEDIAN = "instance_app_operation:wok_task_duration_seconds:p50_7d"
USUAL = "instance_app_operation:wok_task_duration_seconds:usual"
"""The usual duration of an operation on a host. It needs the recording rules of deploy/prometheus.
"""


def metric(name: str, *matchers: str) -> str:
    """Return the selector of a metric, for the selected jobs and instances."""
    return f"{name}{{{','.join((*matchers, CHOSEN))}}}"


def increase(name: str, by: str, *matchers: str, over: str = "$__rate_interval") -> str:
    """Return the increase of a counter, summed by labels, or over all without labels."""
    return total(f"increase({metric(name, *matchers)}[{over}])", by)


def rate(name: str, by: str, *matchers: str) -> str:
    """Return the rate of a counter per second, summed by labels."""
    return total(f"rate({metric(name, *matchers)}[$__rate_interval])", by)


def hourly(name: str, by: str, *matchers: str) -> str:
    """Return the rate of a counter per hour, summed by labels: a host has few requests per hour."""
    return f"{rate(name, by, *matchers)} * 3600"


def total(expression: str, by: str = "") -> str:
    """Return a sum by labels, or over all."""
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def grown(name: str, by: str, *matchers: str) -> str:
    """Return the increase of counters whose series start with their first count, in the dashboard's
    range.

    The last value of the hour before the range is subtracted, or nothing if the series did not
    exist. An exporter that is new in the range counts with all of its values.
    """
    series = metric(name, *matchers)
    now, before = f"max_over_time({series}[$__range])", f"last_over_time({series}[1h] offset $__range)"
    return total(f"{now} - ({before} or {now} * 0)", by)


def quantile(share: float, by: str, *matchers: str, over: str = "$__rate_interval") -> str:
    """Return a quantile of task durations in seconds, or no result if no task has ended."""
    buckets = increase("wok_task_duration_seconds_bucket", f"{by}, le" if by else "le", *matchers, over=over)
    # The comparison drops the NaN of no tasks.
    return f"histogram_quantile({share}, {buckets}) >= 0"
