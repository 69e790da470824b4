"""Requests and ended tasks as OTLP spans.

A request is a root span of kind SERVER, an ended task a span of kind INTERNAL under it. A task
links to the requests that were made between its start and its end, and to the other candidates of
an ambiguous match. A request is linked to by every task that was running at its time, so encoded
links are cached.
"""

from __future__ import annotations

from typing import Final

from exporter import otlp_encoding
from exporter.records import RequestSeen, TaskEnded
from exporter.telemetry.attributes import EventAttributes

_DESCRIPTION_BYTES_MAX: Final = 1024  # the backends show it in one line
_LINKS_MAX: Final = 8192  # the requests during a long task, two megabytes at most
_CANDIDATE_LINKS_MAX: Final = 32  # as many as of the concurrent requests

# Jaeger takes an end that is not after its start for a negative duration. It then warns on the span
# and, because it changes it, shows a repeat twice. It takes a child that is no longer than its
# parent, and begins after it, for a skewed clock.
_REQUEST_NANOS_MIN: Final = 1
_TASK_NANOS_MIN: Final = 2

_CONCURRENT: Final = otlp_encoding.link_end([otlp_encoding.attribute("wok.link", "concurrent")])
_CANDIDATE: Final = otlp_encoding.link_end([otlp_encoding.attribute("wok.link", "candidate")])

SPAN_FIELD: Final = b"\x12"
"""Tag of the `spans` field of ScopeSpans."""


class _Links(dict[bytes, bytes]):
    """Encoded links by the context that they lead to, made on first use."""

    def __init__(self, end: bytes) -> None:
        super().__init__()
        self._end = end

    def __missing__(self, context: bytes) -> bytes:
        if len(self) >= _LINKS_MAX:
            self.clear()
        link = self[context] = otlp_encoding.link(context[:16], context[16:], self._end)
        return link


class Spans:
    """Encodes spans as `spans` fields of ScopeSpans: tag, length, Span."""

    def __init__(self) -> None:
        self._concurrent = _Links(_CONCURRENT)
        self._candidates = _Links(_CANDIDATE)

    def of_request(self, event: RequestSeen, attributes: EventAttributes) -> bytes:
        """Return the span of a request."""
        record = event.record
        context = event.context
        failed = record.status is not None and record.status // 100 == 5
        message = otlp_encoding.span(
            context[:16],
            context[16:],
            b"",
            attributes.shared.name,
            otlp_encoding.KIND_SERVER,
            start=event.start,
            end=max(record.time, event.start + _REQUEST_NANOS_MIN),
            attributes=(attributes.shared.of_span, *attributes.own),
            status=otlp_encoding.STATUS_ERROR if failed else otlp_encoding.STATUS_UNSET,
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
