"""Encodes requests and ended tasks as OTLP spans.

A request is a root span of kind SERVER. An ended task is a child span of kind INTERNAL. A task
links to the requests between its start and its end, and to the other candidates of an ambiguous
match. All tasks that were running at the time of a request link to it, so encoded links are cached.
"""

from __future__ import annotations

import struct
from typing import Final

from exporter import otlp_encoding
from exporter.records import RequestSeen, TaskEnded
from exporter.telemetry import formats
from exporter.telemetry.attributes import EventAttributes, Shared

_DESCRIPTION_BYTES_MAX: Final = 1024  # the backends show it in one line
_LINKS_MAX: Final = 8192  # the requests during a long task, two megabytes at most
_CANDIDATE_LINKS_MAX: Final = 32  # as many as of the concurrent requests

# Jaeger treats an end that is not after its start as a negative duration. It then adds a warning to
# the span, and no longer recognises a duplicate of it. It treats a child that begins after its
# parent, and is not longer, as clock skew.
_REQUEST_NANOS_MIN: Final = 1
_TASK_NANOS_MIN: Final = 2

_CONCURRENT: Final = otlp_encoding.link_end([otlp_encoding.attribute("wok.link", "concurrent")])
_CANDIDATE: Final = otlp_encoding.link_end([otlp_encoding.attribute("wok.link", "candidate")])

_FORMATS_MAX: Final = 2048
_time: Final = struct.Struct("<Q").pack

SPAN_FIELD: Final = b"\x12"
"""Tag of the `spans` field of ScopeSpans."""


class _Links(dict[bytes, bytes]):
    """Encoded links by the context of their target, encoded at first use."""

    def __init__(self, end: bytes) -> None:
        super().__init__()
        self._end = end

    def __missing__(self, context: bytes) -> bytes:
        if len(self) >= _LINKS_MAX:
            self.clear()
        link = self[context] = otlp_encoding.link(context[:16], context[16:], self._end)
        return link


def _request_format(event: RequestSeen, shared: Shared) -> bytes:
    """Return the format of all spans of requests that share these attributes, and so the status."""
    status = event.record.status
    failed = status is not None and status // 100 == 5
    encoded = otlp_encoding.span(
        formats.TRACE_ID,
        formats.SPAN_ID,
        b"",
        shared.name,
        otlp_encoding.KIND_SERVER,
        start=formats.time_of(formats.START),
        end=formats.time_of(formats.END),
        attributes=(shared.of_span, formats.ATTRIBUTES),
        status=otlp_encoding.STATUS_ERROR if failed else otlp_encoding.STATUS_UNSET,
    )
    return formats.format_of(
        encoded,
        (formats.TRACE_ID, formats.SPAN_ID, formats.START, formats.END, formats.ATTRIBUTES),
    )


class Spans:
    """Encodes spans as `spans` fields of ScopeSpans: tag, length, Span."""

    def __init__(self) -> None:
        self._concurrent = _Links(_CONCURRENT)
        self._candidates = _Links(_CANDIDATE)
        self._request_formats: dict[Shared, bytes] = {}

    def of_request(self, event: RequestSeen, attributes: EventAttributes) -> bytes:
        """Return the span of a request."""
        shared = attributes.shared
        request = self._request_formats.get(shared)
        if request is None:
            if len(self._request_formats) >= _FORMATS_MAX:
                self._request_formats.clear()
            request = self._request_formats[shared] = _request_format(event, shared)
        context = event.context
        message = request % (
            context[:16],
            context[16:],
            _time(event.start),
            _time(max(event.record.time, event.start + _REQUEST_NANOS_MIN)),
            otlp_encoding.SPAN_ATTRIBUTE.join(attributes.own),
        )
        return SPAN_FIELD + otlp_encoding.sized(message)

    def of_task(self, event: TaskEnded, attributes: EventAttributes, failure: str) -> bytes:
        """Return the span of an ended task; `failure` is why it failed or was lost, or empty."""
        context = event.context
        links = [*map(self._concurrent.__getitem__, event.links)]
        if event.correlation == "ambiguous":
            links += map(self._candidates.__getitem__, event.candidates[:_CANDIDATE_LINKS_MAX])
        message = otlp_encoding.span(
            context[:16],
            context[16:],
            event.parent[16:],
            attributes.shared.name,
            otlp_encoding.KIND_INTERNAL,
            start=event.start,
            end=max(event.end, event.start + _TASK_NANOS_MIN),
            attributes=(attributes.shared.of_span, *attributes.own),
            links=links,
            status=otlp_encoding.STATUS_ERROR if failure else otlp_encoding.STATUS_UNSET,
            description=otlp_encoding.clip(failure, _DESCRIPTION_BYTES_MAX),
        )
        return SPAN_FIELD + otlp_encoding.sized(message)
