"""Computes the ids of spans and log records. The same log always gives the same ids.

The trace id of a request is in its record. All other ids are a digest of that trace id and the
position of a line: the identity of its file and the offset in it. Rotations and restarts do not
change these. A label tells the kinds of ids apart, so that a request and a task of the same line
never share a span id. Each variable part is preceded by its length, so that different parts never
give the same input.
"""

from __future__ import annotations

from hashlib import sha256

TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8
_UID_HEX_DIGITS = 32  # as many as a uuid, which is used if the record has one
_NO_SPAN_ID = bytes(SPAN_ID_BYTES)


def _digest(label: bytes, trace_id: bytes, file: bytes, offset: int) -> bytes:
    # The offset needs no length: it is the last part.
    return sha256(b"%b;%d:%b%d:%b%d" % (label, len(trace_id), trace_id, len(file), file, offset)).digest()


def _span_id(digest: bytes) -> bytes:
    # OpenTelemetry reserves eight zero bytes for "no span". Then take the next bytes of the digest.
    while digest[:SPAN_ID_BYTES] == _NO_SPAN_ID:
        digest = digest[SPAN_ID_BYTES:]
    return digest[:SPAN_ID_BYTES]


def request_span_id(trace_id: bytes, file: bytes, offset: int) -> bytes:
    """Return the span id of the request whose record is at `offset` of `file`.

    Eight bytes, never all zero (OpenTelemetry specification, Trace API, SpanContext).
    """
    return _span_id(_digest(b"request", trace_id, file, offset))


def task_span_id(trace_id: bytes, file: bytes, offset: int) -> bytes:
    """Return the span id of the task that the record at `offset` of `file` identifies.

    Eight bytes, never all zero. `trace_id` is the trace of the task: that of its request, if known.
    Two tasks in one trace are identified by different records.
    """
    return _span_id(_digest(b"task", trace_id, file, offset))


def record_uid(trace_id: bytes, file: bytes, offset: int) -> str:
    """Return the `log.record.uid` of a record without an id of its own: 32 hex digits.

    `trace_id` is that of the record, not that of the request to which its task was matched.
    """
    return _digest(b"record", trace_id, file, offset).hex()[:_UID_HEX_DIGITS]


def event_uid(context: bytes, event_name: str) -> str:
    """Return the `log.record.uid` of an event without a record: 32 hex digits.

    Such an event is a lost or expired task. `context` is that of the task. A task ends only once,
    so the name of the event is enough to make the id unique.
    """
    return _digest(event_name.encode(), context, b"", 0).hex()[:_UID_HEX_DIGITS]
