"""The PromQL of the panels: selectors that heed the dashboard's variables, and what is done to them often.

A counter that is there before it first counts (docs/metrics.md) is asked with `increase`. One whose series begin
with their first count is asked with `grown`, because `increase` cannot see that first step.
"""

from __future__ import annotations

CHOSEN = 'job=~"$job",instance=~"$instance"'
"""What every selector of a metric has: the jobs and instances chosen at the top of the dashboard."""
ENDED = 'outcome=~"success|failure|lost"'
"""Tasks whose outcome is known. Of `unknown` ones most ended in silence: they say nothing about success."""
USUAL_MEDIAN = "instance_app_operation:wok_task_duration_seconds:p50_7d"
USUAL = "instance_app_operation:wok_task_duration_seconds:usual"
"""How long an operation usually takes on a host: the one thing that needs the recording rules of deploy/prometheus."""


def metric(name: str, *matchers: str) -> str:
    """Return the selector of a metric, for the chosen jobs and instances."""
    return f"{name}{{{','.join((*matchers, CHOSEN))}}}"


def increase(name: str, by: str, *matchers: str, over: str = "$__rate_interval") -> str:
    """Return how much a counter has grown in a time, summed by labels; without labels, over all."""
    return total(f"increase({metric(name, *matchers)}[{over}])", by)


def rate(name: str, by: str, *matchers: str) -> str:
    """Return the speed of a counter, a second, summed by labels."""
    return total(f"rate({metric(name, *matchers)}[$__rate_interval])", by)


def hourly(name: str, by: str, *matchers: str) -> str:
    """Return the speed of a counter, per hour, summed by labels: a host has a few requests an hour."""
    return f"{rate(name, by, *matchers)} * 3600"


def total(expression: str, by: str = "") -> str:
    """Return a sum by labels, or over all."""
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def grown(name: str, by: str, *matchers: str) -> str:
    """Return how much counters whose series begin with their first count have grown in the dashboard's range.

    What a series had an hour before the range began is taken off; nothing, if it was not there yet. An exporter
    that is new in the range is told with all it has counted.
    """
    series = metric(name, *matchers)
    now, before = f"max_over_time({series}[$__range])", f"last_over_time({series}[1h] offset $__range)"
    return total(f"{now} - ({before} or {now} * 0)", by)


def quantile(share: float, by: str, *matchers: str, over: str = "$__rate_interval") -> str:
    """Return a quantile of the durations of tasks, in seconds; nothing where no task has ended."""
    buckets = increase("wok_task_duration_seconds_bucket", f"{by}, le" if by else "le", *matchers, over=over)
    # The comparison drops the NaN of no tasks.
    return f"histogram_quantile({share}, {buckets}) >= 0"
