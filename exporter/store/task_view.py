"""A task as the page and the terminal show it.

A row of the store has the values from the log. People ask how long a task took or has been running,
why it failed, and how certain the match with its request is.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from exporter.records import Grade, OpenTask, Outcome, TaskRow, requests_between

CONTEXT_BYTES = 24

State = Literal["running", "failed", "lost", "unknown", "done"]

STATES: dict[Outcome, State] = {"success": "done", "failure": "failed", "lost": "lost", "unknown": "unknown"}
BAD: tuple[Outcome, ...] = ("failure", "lost")
"""The outcomes that count as failures."""

CANDIDATES_MAX = 32
"""As many candidates of a task are kept. Where there are so many, there may have been more."""


class Asked(NamedTuple):
    """What a request says of its task. A value is None where it is too long to be compared."""

    user: str | None
    address: str | None
    message: str | None
    resource: str | None


def agreed(candidates: Sequence[Asked | None]) -> tuple[str, str, str, str]:
    """Return user, address, sentence and resource, each empty unless all requests that may have
    started a task say the same.

    A candidate is None if the history does not have it any more. Then nothing is agreed on. What is
    agreed on is a fact whichever request it was, and makes the match no more certain.
    """
    known = [each for each in candidates if each is not None]
    if len(known) < len(candidates) or not 2 <= len(known) < CANDIDATES_MAX:
        return "", "", "", ""
    user, address, message, resource = (
        values[0] or "" if len(set(values)) == 1 else "" for values in zip(*known, strict=True)
    )
    return user, address, message, resource


class Running(NamedTuple):
    """A running task, with the user, address, sentence and resource of its request if the history
    has it. Of an ambiguous task these are what all candidates agree on.
    """

    row: OpenTask
    user: str
    address: str
    message: str
    resource: str


class Ended(NamedTuple):
    """An ended task, with the user, address, sentence and resource of its request if the history
    has it. Of an ambiguous task these are what all candidates agree on.
    """

    id: int
    row: TaskRow
    user: str
    address: str
    message: str
    resource: str


class TaskView(NamedTuple):
    """One task, ready to be shown. Its texts come from a log that anybody can write into.

    `end` is None while the task is running and if its end is unknown. `duration` is in nanoseconds,
    up to now while it is running, None if unknown. `why` is the reason of a failure or loss.
    `exception` and `stack` come from wok-error.log, if they are certain. `resource` is what it
    works on in words: as its request says, else as its target_uri says. `request` is the ordinal of
    its request, 0 without one; `user` and `address` are that request's, empty when the history no
    longer has it. Of an ambiguous task they, and `resource`, are what all candidates agree on
    (`agreed`). The other requests between start and end are
    `since < ordinal <= until`, `concurrent` in number. `candidates` are the contexts of other
    requests that an ambiguous task might belong to.
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
    candidates: tuple[bytes, ...] = ()
    exception: str = ""
    stack: str = ""
    resource: str = ""


class Usual(NamedTuple):
    """The median and the 90th percentile of the durations of so many `tasks`, in nanoseconds."""

    tasks: int
    median: int
    p90: int


def of_running(
    row: OpenTask, *, now: int, requests: int, user: str = "", address: str = "", resource: str = ""
) -> TaskView:
    """Return a running task; `now` is in nanoseconds, `requests` the ordinal of the last request in
    the log.
    """
    own = 1 if row.since < row.request <= requests else 0
    kept = _kept(row)
    return TaskView(
        state="running",
        app=row.app,
        operation=row.operation,
        target_uri=row.target_uri,
        task_id=row.task_id,
        start=row.start,
        end=None,
        duration=max(0, now - row.start),
        correlation=_grade(kept),
        context=row.context,
        error_code="",
        why="",
        user=user,
        address=address,
        request=row.request,
        since=row.since,
        until=requests,
        concurrent=max(0, requests_between(row.since, requests) - own),
        candidates=_contexts(kept.get("candidates")) if _grade(kept) == "ambiguous" else (),
        resource=resource,
    )


def of_ended(row: TaskRow, *, user: str = "", address: str = "", resource: str = "") -> TaskView:
    """Return a task that has ended; `resource` is that of its request."""
    # Without a request and a start, only the end record of the task is known.
    is_brief = row.start == row.end and not row.request
    is_unknown = row.outcome == "unknown"
    return TaskView(
        state=STATES[row.outcome],
        app=row.app,
        operation=row.operation,
        target_uri=row.target_uri,
        task_id=row.task_id or row.found_id,
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
        candidates=_contexts(row.candidates.hex()),
        exception=row.exception,
        stack=row.stack,
        resource=resource or row.resource,
    )


def view_of(task: Running | Ended, *, now: int, requests: int) -> TaskView:
    """Return a task of the history; `now` and `requests` as for `of_running`."""
    if isinstance(task, Ended):
        return of_ended(task.row, user=task.user, address=task.address, resource=task.resource)
    return of_running(
        task.row, now=now, requests=requests, user=task.user, address=task.address, resource=task.resource
    )


def other_candidates(task: Running | Ended) -> tuple[bytes, ...] | None:
    """Return the contexts of the other requests that an ambiguous task might belong to, None of any
    other task.
    """
    if isinstance(task, Ended) and task.row.correlation != "ambiguous":
        return None
    view = view_of(task, now=0, requests=0)
    return view.candidates if view.correlation == "ambiguous" else None


def usual(durations: Sequence[int]) -> Usual | None:
    """Return median and percentile of durations in nanoseconds, None without any."""
    if not durations:
        return None
    ordered = sorted(durations)
    nearest_rank = -(-9 * len(ordered) // 10)
    return Usual(len(ordered), int(statistics.median(ordered)), ordered[nearest_rank - 1])


def _kept(row: OpenTask) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(row.data)
    return kept


def _grade(kept: Mapping[str, Any]) -> Grade:
    # A task that its request opened is certain. A start record was matched to a request.
    grade: Grade = kept.get("grade", "none") if kept.get("by_start") else "exact"
    return grade


def _contexts(joined: object) -> tuple[bytes, ...]:
    if not isinstance(joined, str):
        joined = ""  # of an earlier release
    data = bytes.fromhex(joined)
    return tuple(data[at : at + CONTEXT_BYTES] for at in range(0, len(data), CONTEXT_BYTES))
