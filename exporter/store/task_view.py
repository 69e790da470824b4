"""A task as people see it: what the rows of the store mean, without where they are shown.

A row says what the log said. What a person asks is a little different: how long it took *or is taking*, why it
failed (and nothing of the kind where it did not), and how sure it is that this was the request. The answers to
that are the same for the page and for the terminal, and stand here.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

from exporter.records import Grade, OpenTask, Outcome, TaskRow

State = Literal["running", "failed", "lost", "unknown", "done"]

STATES: dict[Outcome, State] = {"success": "done", "failure": "failed", "lost": "lost", "unknown": "unknown"}
BAD: tuple[Outcome, ...] = ("failure", "lost")
"""What went wrong: the tasks that are looked for first."""


class TaskView(NamedTuple):
    """One task, ready to be shown; all texts are as the history has them, so of anybody's making.

    `end` is None while the task runs and where its end is unknown. `duration` is in nanoseconds, up to now while
    it runs, None where nobody can know it. `why` says why it failed or was lost. `request` is the ordinal of its
    request, 0 without one; `user` and `address` are that request's, empty where the history has forgotten it. The
    other requests between start and end are `since < ordinal <= until`, `concurrent` in number.
    """

    state: State
    app: str
    operation: str
    target_uri: str
    task_id: str
    start: int
    end: int | None
    duration: int | None
    correlation: Grade
    context: bytes
    error_code: str
    why: str
    user: str
    address: str
    request: int
    since: int
    until: int
    concurrent: int


class Usual(NamedTuple):
    """How long tasks of a kind take: the median and the 90th percentile of so many `tasks`, in nanoseconds."""

    tasks: int
    median: int
    p90: int


def of_running(row: OpenTask, *, now: int, requests: int, user: str = "", address: str = "") -> TaskView:
    """Return a task that runs; `now` is in nanoseconds, `requests` the ordinal of the last request in the log."""
    own = 1 if row.since < row.request <= requests else 0
    return TaskView(
        state="running",
        app=row.app,
        operation=row.operation,
        target_uri=row.target_uri,
        task_id=row.task_id,
        start=row.start,
        end=None,
        duration=max(0, now - row.start),
        correlation=_grade(row),
        context=row.context,
        error_code="",
        why="",
        user=user,
        address=address,
        request=row.request,
        since=row.since,
        until=requests,
        concurrent=max(0, requests - row.since - own),
    )


def of_ended(row: TaskRow, *, user: str = "", address: str = "") -> TaskView:
    """Return a task that has ended."""
    # Of a task without a request and without a time nothing but its final record is known.
    is_brief = row.start == row.end and not row.request
    is_unknown = row.outcome == "unknown"
    return TaskView(
        state=STATES[row.outcome],
        app=row.app,
        operation=row.operation,
        target_uri=row.target_uri,
        task_id=row.task_id,
        start=row.start,
        end=None if is_unknown else row.end,
        duration=None if is_unknown or is_brief else row.end - row.start,
        correlation=row.correlation,
        context=row.context,
        error_code=row.error_code,
        why=row.message if row.outcome in BAD else "",
        user=user,
        address=address,
        request=row.request,
        since=row.since,
        until=row.until,
        concurrent=row.concurrent,
    )


def usual(durations: Sequence[int]) -> Usual | None:
    """Return what is usual for durations in nanoseconds, None without any; the percentile is one of them."""
    if not durations:
        return None
    ordered = sorted(durations)
    nearest_rank = -(-9 * len(ordered) // 10)
    return Usual(len(ordered), int(statistics.median(ordered)), ordered[nearest_rank - 1])


def _grade(row: OpenTask) -> Grade:
    kept = json.loads(row.data)
    # A request that has opened its task is certainly its own; a start record has had to look for its request.
    grade: Grade = kept.get("grade", "none") if kept.get("by_start") else "exact"
    return grade
