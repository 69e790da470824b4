"""Builds requests from rows of the journal, without decoding a single item.

The payload of a row is what OTLP's ScopeSpans (or ScopeLogs) has after the scope: items, one after
the other, as fields of number 2. A request is some consecutive items of some consecutive rows
between a scope and a resource. Only lengths are read, so every item is sent with the bytes that
were committed.

Source: the protobuf encoding specification; opentelemetry-proto 1.x, where traces and logs have the
same field numbers from the request down.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from exporter.otlp_encoding import varint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.store.journal import JournalEntry


class Request(NamedTuple):
    """Some consecutive items of the journal: `parts` are (resource, items as they stand in the
    payload).

    `row` and `item` are where the cursor stands when all of them are done.
    """

    parts: Sequence[tuple[bytes, bytes]]
    items: int
    row: int
    item: int


def cut(entries: Sequence[JournalEntry], passed: int, items_max: int, bytes_max: int) -> Request | None:
    """Return a request for the next items after the first `passed` ones; None if there are none.

    They stay within both limits, but are at least one. Raises ValueError for a damaged payload.
    """
    parts: list[tuple[bytes, bytes]] = []
    items = row = item = 0
    for entry in entries:
        first = entry.skip + passed
        passed = max(0, first - entry.items)
        if first >= entry.items:
            continue
        payload = entry.payload
        if not first and entry.items <= items_max - items and len(payload) <= bytes_max:
            taken, part = entry.items, payload
        else:
            start = _walk(payload, 0, first)
            taken, end = _take(payload, start, min(items_max - items, entry.items - first), bytes_max)
            if not taken and not parts:
                taken, end = 1, _walk(payload, start, 1)
            if not taken:
                break
            part = payload[start:end]
        parts.append((entry.resource, part))
        items, row, item = items + taken, entry.row, first + taken
        bytes_max -= len(part)
        if item < entry.items or items >= items_max:
            break
    return Request(parts, items, row, item) if parts else None


def whole_rows(entries: Sequence[JournalEntry]) -> Sequence[JournalEntry]:
    """Return the rows before the first one whose payload is not what it should be."""

    def is_whole(entry: JournalEntry) -> bool:
        try:
            return _walk(entry.payload, 0, entry.items) == len(entry.payload)
        except ValueError:
            return False

    return list(itertools.takewhile(is_whole, entries))


def first_item(request: Request) -> Request:
    """Return a request for the first item of another one."""
    resource, payload = request.parts[0]
    return Request([(resource, payload[: _walk(payload, 0, 1)])], 1, request.row, request.item)


def wrap(parts: Sequence[tuple[bytes, bytes]], scope: bytes, schema_url: bytes) -> bytes:
    """Return the bytes of an Export...ServiceRequest of either signal.

    Adjacent parts with the same resource share one ResourceSpans. `schema_url` is that of the
    resources and of the scope; it is left out if empty.
    """
    head = _field(1, scope)
    tail = _field(3, schema_url) if schema_url else b""
    pieces: list[bytes] = []  # joined once: a request may have a megabyte
    for resource, group in itertools.groupby(parts, key=lambda part: part[0]):
        items = [part for _, part in group]
        scope_bytes = len(head) + sum(map(len, items)) + len(tail)
        start = _field(1, resource) + _prefix(2, scope_bytes)
        pieces += (_prefix(1, len(start) + scope_bytes + len(tail)), start, head, *items, tail, tail)
    return b"".join(pieces)


def _field(number: int, content: bytes) -> bytes:
    return _prefix(number, len(content)) + content


def _prefix(number: int, length: int) -> bytes:
    """What stands before a field of so many bytes."""
    return bytes((number << 3 | 2,)) + varint(length)


_ITEM_TAG = 2 << 3 | 2


def _walk(payload: bytes, at: int, items: int) -> int:
    """Return the offset after `items` length-delimited fields of number 2, from offset `at` on."""
    taken, end = _take(payload, at, items, len(payload))
    if taken != items:
        raise ValueError(f"a row of the journal ends after {taken} of {items} items")
    return end


def _take(payload: bytes, at: int, items_max: int, bytes_max: int) -> tuple[int, int]:
    """Return how many fields from offset `at` on fit into both limits, and the
    offset after them.
    """
    limit = min(at + bytes_max, len(payload))
    taken = 0
    while taken < items_max and at < limit:
        if payload[at] != _ITEM_TAG:
            raise ValueError(f"no item of the journal begins at offset {at}")
        length, shift, end = 0, 0, at + 1
        while True:
            byte = payload[end] if end < len(payload) else 0
            end += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        end += length
        if end > limit:
            break
        taken, at = taken + 1, end
    return taken, at
