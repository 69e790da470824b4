"""Encodes each event as an OTLP log record, in the context of the span that it belongs to.

A failure has `exception.type` (Wok's error code, or the class of the exception if there is none)
and `exception.message`. It also has `exception.stacktrace` if wok-error.log contains the exception.

The name of an event is in the field for it, and as `event.name`: Loki drops the field.
"""

from __future__ import annotations

from typing import Final

from exporter import otlp_encoding
from exporter.ids import event_uid, record_uid
from exporter.records import Event, Record, RequestSeen, TaskEnded, TaskRepeated, TaskStarted
from exporter.telemetry.attributes import EventAttributes, text_piece
from exporter.telemetry.reasons import unreported
from exporter.wok.sentences import Texts

_BODY_BYTES_MAX: Final = 4096
_STACK_BYTES_MAX: Final = 16384
_EVENT_NAMES: Final = {
    name: otlp_encoding.attribute("event.name", name)
    for name in (
        "wok.request",
        "wok.task.started",
        "wok.task.completed",
        "wok.task.failed",
        "wok.task.lost",
        "wok.task.expired",
        "wok.task.repeated",
    )
}
_UID: Final = otlp_encoding.key("log.record.uid")
_EXCEPTION_TYPE: Final = otlp_encoding.key("exception.type")
_EXCEPTION_MESSAGE: Final = otlp_encoding.key("exception.message")
_EXCEPTION_STACKTRACE: Final = otlp_encoding.key("exception.stacktrace")
_SEVERITY_TEXTS: Final = {
    otlp_encoding.SEVERITY_INFO: "INFO",
    otlp_encoding.SEVERITY_WARN: "WARN",
    otlp_encoding.SEVERITY_ERROR: "ERROR",
}

LOG_RECORD_FIELD: Final = b"\x12"
"""Tag of the `log_records` field of ScopeLogs."""


def reported(event: Event, record: Record, attributes: EventAttributes, texts: Texts) -> bytes:
    """Return the log record of an event that `record` reports; `texts` are the
    record's sentences.
    """
    event_name, severity = _event_name_and_severity(event, record)
    uid = record.record_id or record_uid(record.trace_id, record.file, record.offset)
    own = [text_piece(_UID, uid)]
    if severity != otlp_encoding.SEVERITY_INFO:
        ended = event if isinstance(event, TaskEnded) and event.exception else None
        exception = record.error_code or (ended.exception if ended is not None else "")
        if exception:
            own.append(text_piece(_EXCEPTION_TYPE, exception))
        message = ended.exception_text if ended is not None else texts.error
        if message:
            own.append(text_piece(_EXCEPTION_MESSAGE, message))
        if ended is not None:
            stack = otlp_encoding.clip(ended.stack, _STACK_BYTES_MAX)
            own.append(otlp_encoding.text_piece(_EXCEPTION_STACKTRACE, stack))
    time = event.reported if isinstance(event, TaskEnded) else record.time
    return _encoded(event, time, event_name, severity, texts.message, attributes, own)


def unreported_end(event: TaskEnded, attributes: EventAttributes) -> bytes:
    """Return the log record of a lost or expired task, which no record reports."""
    event_name = "wok.task.lost" if event.outcome == "lost" else "wok.task.expired"
    own = [text_piece(_UID, event_uid(event.context, event_name))]
    body = unreported(event)
    return _encoded(event, event.reported, event_name, otlp_encoding.SEVERITY_WARN, body, attributes, own)


def _encoded(
    event: Event,
    time: int,
    event_name: str,
    severity: int,
    body: str,
    attributes: EventAttributes,
    own: list[bytes],
) -> bytes:
    context = event.context
    message = otlp_encoding.log_record(
        context[:16],
        context[16:],
        time,
        severity=severity,
        severity_text=_SEVERITY_TEXTS[severity],
        body=otlp_encoding.clip(body, _BODY_BYTES_MAX),
        event_name=event_name,
        attributes=(attributes.shared.of_log, *attributes.own, _EVENT_NAMES[event_name], *own),
    )
    return LOG_RECORD_FIELD + otlp_encoding.sized(message)


def _event_name_and_severity(event: Event, record: Record) -> tuple[str, int]:
    if isinstance(event, RequestSeen):
        return "wok.request", _severity_of_status(record.status or 0)
    if isinstance(event, TaskStarted):
        return "wok.task.started", otlp_encoding.SEVERITY_INFO
    severity = otlp_encoding.SEVERITY_ERROR if record.failed else otlp_encoding.SEVERITY_INFO
    if isinstance(event, TaskRepeated):
        return "wok.task.repeated", severity
    return "wok.task.failed" if record.failed else "wok.task.completed", severity


def _severity_of_status(status: int) -> int:
    if 500 <= status <= 599:
        return otlp_encoding.SEVERITY_ERROR
    return otlp_encoding.SEVERITY_WARN if 400 <= status <= 499 else otlp_encoding.SEVERITY_INFO
