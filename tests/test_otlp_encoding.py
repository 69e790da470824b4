"""The wire format is held to the official encoder: equal values give equal bytes, and all of it decodes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope as ScopeMessage
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from exporter import otlp_encoding

TRACE = bytes(range(1, 17))
SPAN = bytes(range(1, 9))

trace_ids = st.binary(min_size=16, max_size=16).filter(any)
span_ids = st.binary(min_size=8, max_size=8).filter(any)
times = st.integers(0, 2**64 - 1)
texts = st.text(max_size=300)
values = (
    texts
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.lists(texts, max_size=4).map(tuple)
)
attributes = st.dictionaries(st.text(min_size=1, max_size=40), values, max_size=6)
links = st.lists(st.tuples(trace_ids, span_ids, attributes), max_size=3)
kinds = st.sampled_from(
    [(otlp_encoding.KIND_INTERNAL, SpanKind.INTERNAL), (otlp_encoding.KIND_SERVER, SpanKind.SERVER)]
)
severities = st.sampled_from(
    [
        (otlp_encoding.SEVERITY_INFO, SeverityNumber.INFO),
        (otlp_encoding.SEVERITY_WARN, SeverityNumber.WARN),
        (otlp_encoding.SEVERITY_ERROR, SeverityNumber.ERROR),
    ]
)


def context(trace_id: bytes, span_id: bytes) -> SpanContext:
    return SpanContext(
        int.from_bytes(trace_id), int.from_bytes(span_id), is_remote=False, trace_flags=TraceFlags(1)
    )


def pieces(items: dict[str, otlp_encoding.Value]) -> list[bytes]:
    return [otlp_encoding.attribute(key, value) for key, value in items.items()]


def decoded(piece: bytes) -> KeyValue:
    span = SpanMessage.FromString(b"\x4a" + piece)
    assert len(span.attributes) == 1
    return span.attributes[0]


@given(
    trace_id=trace_ids,
    span_id=span_ids,
    parent=st.none() | span_ids,
    name=texts,
    kind=kinds,
    start=times,
    end=times,
    items=attributes,
    others=links,
    failure=st.none() | texts,
)
def test_spans_are_the_official_bytes(
    *,
    trace_id: bytes,
    span_id: bytes,
    parent: bytes | None,
    name: str,
    kind: tuple[int, SpanKind],
    start: int,
    end: int,
    items: dict[str, otlp_encoding.Value],
    others: list[tuple[bytes, bytes, dict[str, otlp_encoding.Value]]],
    failure: str | None,
) -> None:
    """A span with any names, times, attributes, links and status is what the official encoder writes."""
    official = encode_spans(
        [
            ReadableSpan(
                name,
                context(trace_id, span_id),
                context(trace_id, parent) if parent else None,
                Resource({}),
                items,
                (),
                [Link(context(a, b), more) for a, b, more in others],
                kind[1],
                None,
                Status(StatusCode.UNSET) if failure is None else Status(StatusCode.ERROR, failure),
                start,
                end,
                InstrumentationScope("x"),
            )
        ]
    )
    expected = official.resource_spans[0].scope_spans[0].spans[0]
    actual = otlp_encoding.span(
        trace_id,
        span_id,
        parent or b"",
        name,
        kind[0],
        start=start,
        end=end,
        attributes=pieces(items),
        links=[otlp_encoding.link(a, b, otlp_encoding.link_end(pieces(more))) for a, b, more in others],
        status=otlp_encoding.STATUS_UNSET if failure is None else otlp_encoding.STATUS_ERROR,
        description=failure or "",
    )

    assert expected == SpanMessage.FromString(actual)
    assert expected.SerializeToString(deterministic=True) == actual


@given(
    trace_id=trace_ids,
    span_id=span_ids,
    time=times,
    severity=severities,
    severity_text=texts,
    body=texts,
    event_name=texts,
    items=attributes,
)
def test_log_records_are_the_official_bytes(
    *,
    trace_id: bytes,
    span_id: bytes,
    time: int,
    severity: tuple[int, SeverityNumber],
    severity_text: str,
    body: str,
    event_name: str,
    items: dict[str, otlp_encoding.Value],
) -> None:
    """A log record with any body, names, time and attributes is what the official encoder writes."""
    record = LogRecord(
        timestamp=time,
        observed_timestamp=time,
        context=set_span_in_context(NonRecordingSpan(context(trace_id, span_id))),
        severity_number=severity[1],
        severity_text=severity_text,
        body=body,
        attributes=items,
        event_name=event_name,
    )
    official = encode_logs([ReadableLogRecord(record, Resource({}), InstrumentationScope("x"))])
    expected = official.resource_logs[0].scope_logs[0].log_records[0].SerializeToString(deterministic=True)
    actual = otlp_encoding.log_record(
        trace_id,
        span_id,
        time,
        severity=severity[0],
        severity_text=severity_text,
        body=body,
        event_name=event_name,
        attributes=pieces(items),
    )

    assert expected == actual


@given(attributes, texts, texts)
def test_resource_and_scope_are_the_official_bytes(
    items: dict[str, otlp_encoding.Value], name: str, version: str
) -> None:
    """A resource and a scope are what the official messages serialize to."""
    resource = ResourceMessage(attributes=[decoded(otlp_encoding.attribute(*item)) for item in items.items()])

    assert resource.SerializeToString(deterministic=True) == otlp_encoding.resource(pieces(items))
    assert ScopeMessage(name=name, version=version).SerializeToString() == otlp_encoding.scope(name, version)


@given(st.integers(0, 2**64 - 1))
def test_varints_are_those_of_protobuf(value: int) -> None:
    """Every number of 64 bits is written as protobuf's own uint64, checked through a KeyValue's int."""
    signed = value - 2**64 if value >= 2**63 else value
    message = KeyValue()
    message.value.int_value = signed

    assert message.SerializeToString().endswith(otlp_encoding.varint(value))
    assert signed == decoded(otlp_encoding.attribute("n", signed)).value.int_value


@pytest.mark.parametrize(
    "length", [0, 1, 100, 119, 120, 121, 122, 123, 124, 125, 127, 128, 16383, 16384, 70000]
)
def test_every_length_of_a_text_is_written_right(length: int) -> None:
    """The short cut for short texts and the way for long ones meet without a gap."""
    for key in ("k", "wok.record.id", "x" * 130):
        attribute = decoded(otlp_encoding.attribute(key, "v" * length))

        assert (key, "v" * length) == (attribute.key, attribute.value.string_value)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 2**30 - 1, 2**30, 2**63 - 1, -1, -(2**63)])
def test_integers_are_written_right(value: int) -> None:
    """The short cut for small positive integers and the way for all others meet without a gap."""
    for key in ("k", *("x" * length for length in range(90, 130))):
        attribute = decoded(otlp_encoding.attribute(key, value))

        assert (key, "int_value", value) == (
            attribute.key,
            attribute.value.WhichOneof("value"),
            attribute.value.int_value,
        )


def test_booleans_are_no_integers() -> None:
    """True and False stay booleans, False with its presence kept."""
    kinds = [decoded(otlp_encoding.attribute("k", value)).value for value in (True, False)]

    expected = [("bool_value", True), ("bool_value", False)]

    assert expected == [(kind.WhichOneof("value"), kind.bool_value) for kind in kinds]


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**100])
def test_integers_beyond_64_bits_become_text(value: int) -> None:
    """A number that int64 cannot hold is sent as its digits instead of being lost."""
    assert str(value) == decoded(otlp_encoding.attribute("n", value)).value.string_value


def test_an_integer_too_long_for_decimal_digits_is_still_sent() -> None:
    """Python's limit on converting huge numbers does not become an exception here."""
    assert hex(10**5000) == decoded(otlp_encoding.attribute("n", 10**5000)).value.string_value


@given(st.text(st.characters(codec=None), max_size=50))
def test_lone_surrogates_are_replaced(text: str) -> None:
    """Text that is no valid Unicode is sent with replacement characters and the rest intact."""
    expected = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)

    assert expected == decoded(otlp_encoding.attribute("k", text)).value.string_value


@given(st.text(st.characters(codec=None), max_size=60), st.integers(3, 80))
def test_clipping_keeps_the_limit_and_the_beginning(text: str, limit: int) -> None:
    """A clipped text fits, is the beginning of the text, and is marked exactly if something was cut."""
    clipped = otlp_encoding.clip(text, limit)

    assert len(otlp_encoding.utf8(clipped)) <= limit
    if len(otlp_encoding.utf8(text)) <= limit:
        assert text == clipped
    else:
        assert clipped.endswith("\u2026")
        assert otlp_encoding.utf8(text).startswith(otlp_encoding.utf8(clipped[:-1]))
        # a whole character more would not have fitted
        assert len(otlp_encoding.utf8(text[: len(clipped)])) > limit - 3


@pytest.mark.parametrize(
    ("trace_id", "span_id", "parent"),
    [
        (bytes(16), SPAN, b""),
        (TRACE, bytes(8), b""),
        (TRACE[:15], SPAN, b""),
        (TRACE, SPAN + b"x", b""),
        (TRACE, SPAN, bytes(8)),
        (TRACE, SPAN, b"short"),
    ],
)
def test_ids_that_a_backend_refuses_are_refused_here(trace_id: bytes, span_id: bytes, parent: bytes) -> None:
    """Ids of a wrong length or of zeros never reach a request, where they would spoil their neighbours."""
    with pytest.raises(ValueError, match=r"not a (trace|span) id"):
        otlp_encoding.span(
            trace_id, span_id, parent, "n", otlp_encoding.KIND_SERVER, start=1, end=2, attributes=()
        )


@pytest.mark.parametrize("time", [-1, 2**64])
def test_times_outside_of_64_bits_are_refused(time: int) -> None:
    """A time that the wire form cannot hold is an error, not another time."""
    with pytest.raises(struct.error):
        otlp_encoding.span(TRACE, SPAN, b"", "n", otlp_encoding.KIND_SERVER, start=time, end=2, attributes=())


def test_sequences_are_arrays_of_strings() -> None:
    """A list of strings arrives as such, whether it is empty or not."""

    def sent(value: Sequence[str]) -> list[str]:
        return [
            item.string_value
            for item in decoded(otlp_encoding.attribute("k", value)).value.array_value.values
        ]

    for expected in (["a", "", "\u00e9"], []):
        assert expected == sent(expected)
