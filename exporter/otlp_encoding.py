"""Encodes OTLP's protobuf messages.

The official encoder builds an object for every attribute before it writes a byte, which takes
longer than everything else in this program. Only a few flat messages are needed here, and most
attributes repeat. So this module writes the wire format directly, and the caller can keep encoded
pieces. The bytes are the same as those of the official serializer: fields in ascending order of
their numbers, without default values. A property test compares both.

Every attribute is a *piece*: an encoded KeyValue preceded by its length, but without the tag of its
field. The tag differs between spans (9), log records (6), links (4) and resources (1), so the same
piece can be used in all of them.

Source: opentelemetry-proto 1.x, `common/v1`, `resource/v1`, `trace/v1`, `logs/v1`; the protobuf
encoding specification.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

Value = str | bool | int | float | Sequence[str]

KIND_INTERNAL: Final = 1
KIND_SERVER: Final = 2
STATUS_UNSET: Final = 0
STATUS_ERROR: Final = 2
SEVERITY_INFO: Final = 9
SEVERITY_WARN: Final = 13
SEVERITY_ERROR: Final = 17

_FLAGS_NOT_REMOTE: Final = 0x100
"""SpanFlags: it is known whether the parent (or the linked span) is remote, and it is not."""
_FLAGS_SAMPLED: Final = 1
"""W3C trace flags of a log record: its span is sent too."""

SPAN_ATTRIBUTE: Final = b"\x4a"
LOG_ATTRIBUTE: Final = b"\x32"
"""Tags of the attribute fields of a Span and a LogRecord. Join pieces with one of them."""

_STRING: Final = b"\x0a"
_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1
_UINT64_MASK: Final = 2**64 - 1
_NO_TRACE_ID: Final = bytes(16)
_NO_SPAN_ID: Final = bytes(8)
_SURROGATE: Final = re.compile(f"[{chr(0xD800)}-{chr(0xDFFF)}]")
_UTF8_BYTES_MAX: Final = 4
_ELLIPSIS: Final = "\N{HORIZONTAL ELLIPSIS}"

_double = struct.Struct("<d").pack
_fixed64 = struct.Struct("<Q").pack
_span_times = struct.Struct("<BQBQ").pack
_span_flags_tag = b"\x85\x01"
_span_flags = _span_flags_tag + struct.pack("<I", _FLAGS_NOT_REMOTE)
_link_flags = b"\x35" + struct.pack("<I", _FLAGS_NOT_REMOTE)
_log_flags = b"\x45" + struct.pack("<I", _FLAGS_SAMPLED)


def utf8(text: str) -> bytes:
    """Return `text` as UTF-8; each lone surrogate becomes U+FFFD.

    Protobuf strings are UTF-8. A receiver rejects the whole request if one string is not.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text).encode()


def clip(text: str, limit_bytes: int) -> str:
    """Return `text`, cut between two characters to `limit_bytes` of UTF-8; an ellipsis marks the
    cut.
    """
    if len(text) * _UTF8_BYTES_MAX <= limit_bytes:
        return text
    # A character takes at least one byte, so the rest cannot fit.
    data = utf8(text[: limit_bytes + 1])
    if len(data) <= limit_bytes:
        return text
    return data[: limit_bytes - len(_ELLIPSIS.encode())].decode(errors="ignore") + _ELLIPSIS


def varint(value: int) -> bytes:
    """Return a number from 0 to 2**64 - 1 as a protobuf varint."""
    if value < 0x80:
        return value.to_bytes(1, "little")
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    # Most long numbers are offsets in a log. Many lines share the upper parts of theirs.
    return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80)) + _length(value >> 14)


_length = lru_cache(maxsize=4096)(varint)  # few lengths, needed ten times an item


def sized(message: bytes) -> bytes:
    """Return `message` preceded by its length, as it follows the tag of its field."""
    return _length(len(message)) + message


def _any_value(value: Value) -> bytes:
    if isinstance(value, str):
        return b"\x0a" + sized(utf8(value))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        if _INT64_MIN <= value <= _INT64_MAX:
            return b"\x18" + varint(value & _UINT64_MASK)
        return _any_value(_digits(value))
    if isinstance(value, float):
        return b"\x21" + _double(value)
    return b"\x2a" + sized(b"".join(b"\x0a" + sized(_any_value(item)) for item in value))


def _digits(value: int) -> str:
    # Python limits the conversion of very long numbers to decimal, because it is slow, but not to
    # hex.
    try:
        return str(value)
    except ValueError:
        return hex(value)


def key(name: str) -> bytes:
    """Return an attribute's key, encoded for `piece`."""
    return _text(b"\x0a", name)


def piece(encoded_key: bytes, value: Value) -> bytes:
    """Return an attribute as a piece (see the head of this module).

    An integer beyond 64 bits becomes a string of its digits. A sequence becomes an array of
    strings.
    """
    if isinstance(value, str):
        return text_piece(encoded_key, value)
    return sized(encoded_key + b"\x12" + sized(_any_value(value)))


def text_piece(encoded_key: bytes, text: str) -> bytes:
    """Return what `piece` returns, for a text."""
    data = utf8(text)
    return _piece_head(encoded_key, _STRING, len(data)) + data


def count_piece(encoded_key: bytes, count: int) -> bytes:
    """Return what `piece` returns, for an integer that is not negative."""
    if count > _INT64_MAX:
        return piece(encoded_key, count)
    number = varint(count)
    return _piece_head(encoded_key, b"\x18", len(number)) + number


@lru_cache(maxsize=4096)
def _piece_head(encoded_key: bytes, value_head: bytes, length: int) -> bytes:
    """Return the bytes before a value in a piece. There are few keys and few lengths of values."""
    if value_head == _STRING:
        value_head += _length(length)
    length += len(value_head)
    before = encoded_key + b"\x12" + _length(length) + value_head
    return _length(len(before) + length - len(value_head)) + before


def attribute(name: str, value: Value) -> bytes:
    """Return an attribute as a piece. Use `piece` for names that are known in advance."""
    return piece(key(name), value)


def resource(attributes: Iterable[bytes]) -> bytes:
    """Return a Resource message; `attributes` are pieces."""
    return b"\x0a".join((b"", *attributes))


def scope(name: str, version: str) -> bytes:
    """Return an InstrumentationScope message."""
    return _text(b"\x0a", name) + _text(b"\x12", version)


def _text(tag: bytes, text: str) -> bytes:
    if not text:
        return b""
    data = utf8(text)
    return tag + _length(len(data)) + data


def _check_ids(trace_id: bytes, span_id: bytes) -> None:
    if len(trace_id) != 16 or trace_id == _NO_TRACE_ID:
        raise ValueError(f"not a trace id: {trace_id.hex()}")
    if len(span_id) != 8 or span_id == _NO_SPAN_ID:
        raise ValueError(f"not a span id: {span_id.hex()}")


def _time(tag: bytes, nanoseconds: int) -> bytes:
    # Zero is a default value, which is not written.
    return tag + _fixed64(nanoseconds) if nanoseconds else b""


def link_end(attributes: Iterable[bytes]) -> bytes:
    """Return the part of a Span.Link message after the ids, for `link`; `attributes` are pieces."""
    return b"\x22".join((b"", *attributes)) + _link_flags


def link(trace_id: bytes, span_id: bytes, end: bytes) -> bytes:
    """Return a link to a span of this same log as one `links` field of Span: tag, length,
    Span.Link.

    `end` is what `link_end` gave.
    Raises ValueError for ids that are not 16 and 8 bytes, or all zero.
    """
    _check_ids(trace_id, span_id)
    return b"\x6a%b\x0a\x10%b\x12\x08%b%b" % (_length(28 + len(end)), trace_id, span_id, end)


def span(
    trace_id: bytes,
    span_id: bytes,
    parent_span_id: bytes,
    name: str,
    kind: int,
    *,
    start: int,
    end: int,
    attributes: Iterable[bytes],
    links: Iterable[bytes] = (),
    status: int = STATUS_UNSET,
    description: str = "",
) -> bytes:
    """Return a Span message.

    `start` and `end` are nanoseconds since the epoch, `attributes` are pieces, and `links` are the
    results of `link`. `parent_span_id` is empty for a root. Raises ValueError for ids that are not
    16 and 8 bytes, or all zero, and struct.error for times that are not unsigned 64-bit integers.
    """
    _check_ids(trace_id, span_id)
    if parent_span_id:
        _check_ids(trace_id, parent_span_id)
    state = _text(b"\x12", description) + (b"\x18" + varint(status) if status else b"")
    return b"".join(
        (
            b"\x0a\x10",
            trace_id,
            b"\x12\x08",
            span_id,
            b"\x22\x08" if parent_span_id else b"",
            parent_span_id,
            _text(b"\x2a", name),
            b"\x30",
            _length(kind),
            _span_times(0x39, start, 0x41, end)
            if start and end
            else _time(b"\x39", start) + _time(b"\x41", end),
            SPAN_ATTRIBUTE.join((b"", *attributes)),
            *links,
            # The official encoder writes an empty status too.
            b"\x7a" + sized(state) if state else b"\x7a\x00",
            _span_flags,
        )
    )


def log_record(
    trace_id: bytes,
    span_id: bytes,
    time: int,
    *,
    severity: int,
    severity_text: str,
    body: str,
    event_name: str,
    attributes: Iterable[bytes],
) -> bytes:
    """Return a LogRecord message whose observed time is its time.

    `time` is in nanoseconds since the epoch, `attributes` are pieces, `severity` is one of the
    SEVERITY constants. Raises ValueError for ids that are not 16 and 8 bytes, or all zero, and
    struct.error for a time that is not an unsigned 64-bit integer.
    """
    _check_ids(trace_id, span_id)
    data = utf8(body)
    # Zero is a default value, which is not written.
    time_data = _fixed64(time) if time else b""
    return b"".join(
        (
            b"\x09" if time else b"",
            time_data,
            _severity(severity, severity_text),
            _body_head(len(data)),
            data,
            LOG_ATTRIBUTE.join((b"", *attributes)),
            _log_flags,
            b"\x4a\x10",
            trace_id,
            b"\x52\x08",
            span_id,
            b"\x59" if time else b"",
            time_data,
            _word(b"\x62", event_name),
        )
    )


_word = lru_cache(maxsize=64)(_text)  # for texts from finite sets


@lru_cache(maxsize=64)
def _severity(number: int, text: str) -> bytes:
    return b"\x10" + varint(number) + _text(b"\x1a", text)


@lru_cache(maxsize=4096)
def _body_head(length: int) -> bytes:
    before = _STRING + _length(length)
    return b"\x2a" + _length(len(before) + length) + before
