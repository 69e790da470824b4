"""The ids of what leaves the program: the same log gives the same ids, whoever reads it and whenever.

A request's trace id comes with its record. Everything else is a digest over that trace id and the place of a
line: the identity of its file and the offset in it, which neither a rotation nor a restart changes. A label
says what the id stands for, so that a request and the task of the same line never share a span id, and every
variable piece is preceded by its length, so that no two sets of pieces look alike to the digest.
"""

from __future__ import annotations

from hashlib import sha256

TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8
_UID_HEX_DIGITS = 32  # as long as the uuid that stands in its place where the log has one
_NO_SPAN_ID = bytes(SPAN_ID_BYTES)


def _digest(label: bytes, trace_id: bytes, file: bytes, offset: int) -> bytes:
    # The offset needs no length: it is all digits, and the last.
    return sha256(b"%b;%d:%b%d:%b%d" % (label, len(trace_id), trace_id, len(file), file, offset)).digest()


def _span_id(digest: bytes) -> bytes:
    # All zeros means "no span" to OpenTelemetry; the later bytes of a digest cannot all be zero as well.
    while digest[:SPAN_ID_BYTES] == _NO_SPAN_ID:
        digest = digest[SPAN_ID_BYTES:]
    return digest[:SPAN_ID_BYTES]


def request_span_id(trace_id: bytes, file: bytes, offset: int) -> bytes:
    """Return the span id of the request whose record stands at `offset` of `file`.

    Eight bytes, never all zero (OpenTelemetry specification, Trace API, SpanContext).
    """
    return _span_id(_digest(b"request", trace_id, file, offset))


def task_span_id(trace_id: bytes, file: bytes, offset: int) -> bytes:
    """Return the span id of the task that the record at `offset` of `file` identifies.

    Eight bytes, never all zero. `trace_id` is the trace the task belongs to: its request's where one is
    known. Two tasks that share a trace differ in the record that identifies them.
    """
    return _span_id(_digest(b"task", trace_id, file, offset))


def record_uid(trace_id: bytes, file: bytes, offset: int) -> str:
    """Return the `log.record.uid` of a record that carries no id of its own: 32 hex digits.

    `trace_id` is the record's own, not that of the trace its task was found to belong to.
    """
    return _digest(b"record", trace_id, file, offset).hex()[:_UID_HEX_DIGITS]


def event_uid(context: bytes, event_name: str) -> str:
    """Return the `log.record.uid` of an event that no record reports (a lost or expired task): 32 hex digits.

    `context` is that of the task, which ends only once, so that its name is enough to tell its events apart.
    """
    return _digest(event_name.encode(), context, b"", 0).hex()[:_UID_HEX_DIGITS]
