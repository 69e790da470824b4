"""The JSON API: the histories and the status of the exporter. `docs/api.md` describes it.

Every answer is a read of the store, bounded in the rows it reads and in its size. The daemon adds
what is not in the store through `Live`: how far the log has been read, and the state of the
deliveries. Texts come from a log that anybody can write into. They are returned unchanged, as JSON
in ASCII.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from exporter.http.routes import Handler, Request, Response, as_json
from exporter.records import NANOS, OUTCOMES, DeliveryStatus, Live, RequestRow, Signal
from exporter.store.database import StoreError
from exporter.store.reader import Overview, Reader
from exporter.store.task_view import TaskView, Usual, usual, view_of
from exporter.web.parameters import (
    NANOS_A_MILLISECOND,
    REQUEST_PARAMETERS,
    TASK_PARAMETERS,
    ParameterError,
    before_of,
    no_query,
    request_query,
    task_query,
)

MEANWHILE_MAX = 200
USUAL_OF_TASKS = 1000
"""The newest successful ones: what is usual changes with the hardware."""

CONTEXT_BYTES = 24
TRACE_ID_BYTES = 16

_ID = re.compile(rf"[0-9a-f]{{{2 * CONTEXT_BYTES}}}", re.ASCII)


class About(NamedTuple):
    """What stays the same while the daemon runs.

    `zone` is an IANA name, or empty for the browser's zone. `trace_url` contains `{trace_id}`, or
    is empty.
    """

    version: str
    host: str
    zone: str
    log_path: str
    trace_url: str


def api_routes(
    reader: Reader, about: About, live: Callable[[], Live], *, now: Callable[[], int] = time.time_ns
) -> dict[str, Handler]:
    """Return the one route of the API, `/api/*`.

    `now` is the clock in nanoseconds, for the duration of running tasks. The answer is 503 when the
    state cannot be read or a query takes too long, 400 for a wrong parameter and 404 for an unknown
    path, each with `error`, a sentence.
    """
    return {"/api/*": _Api(reader, about, live, now).answer}


class _Api:
    def __init__(
        self, reader: Reader, about: About, live: Callable[[], Live], now: Callable[[], int]
    ) -> None:
        self._reader = reader
        self._about = about
        self._live = live
        self._now = now
        self._answers: Mapping[str, Callable[[Request], dict[str, Any]]] = {
            "/api/": self._index,
            "/api/status": self._status,
            "/api/tasks": self._tasks,
            "/api/requests": self._requests,
        }

    def answer(self, request: Request) -> Response:
        """Answer a request of a path under `/api/`."""
        try:
            answer = self._answers.get(request.path)
            found = answer(request) if answer else self._task(request)
        except ParameterError as error:
            return as_json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except StoreError as error:
            return as_json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)})
        if found is None:
            return as_json(HTTPStatus.NOT_FOUND, {"error": _missing(request.path)})
        return as_json(HTTPStatus.OK, found)

    def _index(self, request: Request) -> dict[str, Any]:
        no_query(request.query, request.path)
        return {
            "version": self._about.version,
            "paths": {
                "/api/status": {
                    "what": "the status of the exporter, and the values to filter by",
                    "parameters": [],
                },
                "/api/tasks": {
                    "what": "running and ended tasks",
                    "parameters": list(TASK_PARAMETERS),
                },
                "/api/tasks/ID": {
                    "what": "one task, its request, the usual duration, the other requests meanwhile",
                    "parameters": [],
                },
                "/api/requests": {
                    "what": "requests, newest first",
                    "parameters": list(REQUEST_PARAMETERS),
                },
            },
        }

    def _status(self, request: Request) -> dict[str, Any]:
        no_query(request.query, request.path)
        overview, live, about = self._reader.overview(), self._live(), self._about
        return {
            "revision": overview.revision,
            "now": _milliseconds(self._now()),
            "version": about.version,
            "host": about.host,
            "zone": about.zone,
            "ready": overview.is_ready,
            "log": {
                "path": about.log_path,
                "behind_bytes": live.behind_bytes,
                "last_record": _of_seconds(overview.last_record_seconds),
            },
            "delivery": [
                _delivery(signal, status, overview) for signal, status in sorted(live.deliveries.items())
            ],
            "counts": _counts(overview),
            "problems": [problem._asdict() for problem in live.problems],
            "apps": overview.apps,
            "operations": sorted({operation for _, operation in overview.operations}),
            "trace_url": about.trace_url,
        }

    def _tasks(self, request: Request) -> dict[str, Any]:
        asked, now = task_query(request.query), self._now()
        found = self._reader.find_tasks(
            asked.sought, running=asked.running, ended=asked.ended, place=asked.place, limit=asked.limit
        )
        usually = self._reader.usual()
        return {
            "tasks": [
                {
                    **_task_object(view_of(one, now=now, requests=found.requests), one.message),
                    "usual": _usual_object(usually.get((one.row.app, one.row.operation))),
                }
                for one in found.tasks
            ],
            "before": before_of(found.next),
            "truncated": found.is_truncated,
            "now": _milliseconds(now),
        }

    def _task(self, request: Request) -> dict[str, Any] | None:
        text = request.path.removeprefix("/api/tasks/")
        if not _ID.fullmatch(text):
            return None
        no_query(request.query, "/api/tasks/ID")
        story = self._reader.story(
            bytes.fromhex(text), meanwhile_max=MEANWHILE_MAX, durations_max=USUAL_OF_TASKS
        )
        if story is None:
            return None
        now = self._now()
        view = view_of(story.task, now=now, requests=story.requests)
        return {
            **_task_object(view, story.task.message),
            "stack": view.stack,
            "request": _request_object(story.request) if story.request else None,
            "usual": _usual_object(usual(story.durations)),
            "candidates": [_request_object(row) for row in story.candidates],
            "meanwhile": [_request_object(row) for row in story.meanwhile],
            "now": _milliseconds(now),
        }

    def _requests(self, request: Request) -> dict[str, Any]:
        asked = request_query(request.query)
        found = self._reader.find_requests(asked.sought, before=asked.before, limit=asked.limit)
        return {
            "requests": [_request_object(row) for row in found.requests],
            "before": None if found.before is None else str(found.before),
            "truncated": found.is_truncated,
            "now": _milliseconds(self._now()),
        }


def _missing(path: str) -> str:
    name = path.removeprefix("/api/tasks/")
    if name != path and _ID.fullmatch(name):
        return "no task with this id; it may be too old for the history"
    return "unknown path; /api/ lists the paths"


def _task_object(task: TaskView, request_message: str) -> dict[str, Any]:
    return {
        "id": task.context.hex(),
        **_ids(task.context),
        "state": task.state,
        "app": task.app,
        "operation": task.operation,
        "resource": task.resource,
        "target_uri": task.target_uri,
        "task_id": task.task_id,
        "start": _milliseconds(task.start),
        "end": None if task.end is None else _milliseconds(task.end),
        "duration": None if task.duration is None else _milliseconds(task.duration),
        "correlation": task.correlation,
        "user": task.user,
        "address": task.address,
        "request_message": request_message,
        "error_code": task.error_code,
        "exception": task.exception,
        "why": task.why,
        "concurrent": task.concurrent,
        "request": task.request,
    }


def _usual_object(often: Usual | None) -> dict[str, int] | None:
    if often is None:
        return None
    return {
        "count": often.tasks,
        "median": _milliseconds(often.median),
        "p90": _milliseconds(often.p90),
    }


def _request_object(row: RequestRow) -> dict[str, Any]:
    return {
        "ordinal": row.ordinal,
        "time": _milliseconds(row.time),
        **_ids(row.context),
        "app": row.app,
        "method": row.method,
        "operation": row.operation,
        "status": row.status,
        "user": row.user,
        "address": row.address,
        "record_id": row.record_id,
        "message": row.message,
        "resource": row.resource,
    }


def _ids(context: bytes) -> dict[str, str]:
    return {"trace_id": context[:TRACE_ID_BYTES].hex(), "span_id": context[TRACE_ID_BYTES:].hex()}


def _delivery(signal: Signal, status: DeliveryStatus, overview: Overview) -> dict[str, Any]:
    waiting = overview.journal.get(signal)
    oldest = waiting.oldest_ns if waiting else None
    return {
        "signal": signal,
        "endpoint": status.endpoint,
        "waiting": waiting.records if waiting else 0,
        "oldest": None if oldest is None else _milliseconds(oldest),
        "last_success": _of_seconds(status.last_success),
        "failing_since": _of_seconds(status.failing_since),
        "reason": status.reason,
        "message": status.message,
        "held": status.held,
        "rejection": status.rejection,
        "remedy": status.remedy,
    }


def _counts(overview: Overview) -> dict[str, int]:
    counts = dict.fromkeys(("running", *OUTCOMES, *_COUNTED.values()), 0)
    counts["running"] = overview.running
    for series, value in overview.counters.items():
        name = series[-1] if series[0] == "wok_tasks_finished_total" else _COUNTED.get(series[:2], "")
        name = name or _COUNTED.get(series[:1], "")
        if name in counts:
            counts[name] += int(value)
    return counts


_COUNTED: Mapping[tuple[str, ...], str] = {
    ("wok_exporter_lines_total", "rejected"): "rejected_lines",
    ("wok_exporter_lines_total", "forged"): "forged_lines",
    ("wok_exporter_lost_records_total",): "lost_records",
    ("wok_exporter_log_gaps_total",): "log_gaps",
    ("wok_exporter_rejected_by_backend_total",): "refused_items",
}


def _milliseconds(nanos: int) -> int:
    return nanos // NANOS_A_MILLISECOND


def _of_seconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * NANOS) // NANOS_A_MILLISECOND
