"""Messages of one shape, encoded once, with places for the values that differ.

The spans of two requests with the same shared attributes differ in their ids, times and own
attributes only. A `Format` is made from what the encoder (`otlp_encoding`) writes for stand-ins, so
it knows nothing of the wire form itself, and a property test compares it with the encoder.

Stand-ins begin with the byte 0xFF, which occurs in no UTF-8 text. Nothing that a log holds can
therefore be taken for a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

TRACE_ID: Final = b"\xfftrace id\xff------"
SPAN_ID: Final = b"\xffspan id"
PARENT_ID: Final = b"\xffparent "
START: Final = b"\xff start\xff"
END: Final = b"\xff  end \xff"
ATTRIBUTES: Final = b"\xffattributes"
"""Stand-ins for the values of a span or log record, of the length that each has on the wire."""


def time_of(stand_in: bytes) -> int:
    """Return the time, in nanoseconds, that is encoded as a stand-in of eight bytes."""
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
