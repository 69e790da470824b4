"""Encodes messages that differ in a few values only once, with placeholders for these values.

The spans of two requests with the same shared attributes differ only in their ids, times and own
attributes. `format_of` makes a format from a message that the encoder (`otlp_encoding`) wrote with
placeholders, so it does not know the wire format. A property test compares it with the encoder.

Placeholders begin with the byte 0xFF, which never occurs in UTF-8. So nothing in a log can be
mistaken for a placeholder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

TRACE_ID: Final = b"\xfftrace id\xff------"
SPAN_ID: Final = b"\xffspan id"
START: Final = b"\xff start\xff"
END: Final = b"\xff  end \xff"
ATTRIBUTES: Final = b"\xffattributes"
"""Placeholders for the values of a span or log record, with the lengths that these have on the
wire.
"""


def time_of(stand_in: bytes) -> int:
    """Return the time, in nanoseconds, that is encoded as a placeholder of eight bytes."""
    return int.from_bytes(stand_in, "little")


def format_of(encoded: bytes, places: Sequence[bytes]) -> bytes:
    """Return a format for the operator `%`, which takes the values in the order of `places`.

    Raises ValueError if a place does not occur, or not in this order.
    """
    parts = []
    at = 0
    for place in places:
        found = encoded.index(place, at)
        parts.append(encoded[at:found].replace(b"%", b"%%"))
        at = found + len(place)
    parts.append(encoded[at:].replace(b"%", b"%%"))
    return b"%b".join(parts)
