"""Requests and ended tasks as rows of the history, for `tasks`, `trace`, the page and the API."""

from __future__ import annotations

from typing import Final

from exporter import otlp_encoding
from exporter.records import RequestRow, RequestSeen, TaskEnded, TaskRow
from exporter.telemetry.reasons import EXPIRED, failure_of
from exporter.wok.sentences import People, Sentences

CANDIDATES_KEPT = 32
"""Stored candidates of a task: as many as its span links to."""
_STACK_BYTES_MAX: Final = 4096
"""The history stores this much of a stack. The log record has all of it."""


def of_request(event: RequestSeen, people: People, sentences: Sentences, resource: str) -> RequestRow:
    """Return the history row of a request; the privacy setting applies here too."""
    record = event.record
    return RequestRow(
        event.ordinal,
        record.time,
        event.context,
        record.app,
        record.method,
        event.operation,
        record.status,
        people.user(record.user),
        people.address(record.address),
        record.record_id,
        sentences.of(record).message,
        resource,
    )


def of_task(event: TaskEnded, sentences: Sentences, resource: str) -> TaskRow:
    """Return the history row of a task; `message` is the error, or the outcome in words."""
    record = event.record
    failure = failure_of(event, sentences)
    return TaskRow(
        event.context,
        event.parent,
        event.app,
        event.operation,
        event.target_uri,
        event.task_id,
        event.start,
        event.end,
        event.outcome,
        event.correlation,
        event.request,
        event.concurrent,
        record.error_code if record else "",
        failure or ("succeeded" if event.outcome == "success" else EXPIRED),
        event.since,
        event.until,
        b"".join(event.candidates[:CANDIDATES_KEPT]) if event.correlation == "ambiguous" else b"",
        event.found_id,
        event.exception,
        otlp_encoding.clip(event.stack, _STACK_BYTES_MAX),
        resource,
    )
