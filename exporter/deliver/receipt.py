"""What a response has settled and the store does not know yet.

A response arrives once. If the store cannot be written at that moment (a full disk), the receipt is
kept and committed before the next request, so that nothing is sent again for that reason.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exporter.records import Series, Signal
    from exporter.store.journal import JournalEntry

DELIVERED = "wok_exporter_delivered_total"
REJECTED = "wok_exporter_rejected_by_backend_total"
LOST = "wok_exporter_lost_records_total"
FAILURES = "wok_exporter_delivery_failures_total"


class DeliveryQueue(Protocol):
    """What delivery needs from the store. Used by one thread; may raise anything, and is then
    called again.
    """

    def journal_read(self, signal: Signal, items_max: int, bytes_max: int) -> Sequence[JournalEntry]:
        """Rows after the cursor, whole and in order, within the limits, but at least one if there
        is any.
        """

    def journal_advance(self, signal: Signal, row: int, item: int, counters: Mapping[Series, float]) -> None:
        """In one transaction: the first `item` items of `row` and all rows before it are done;
        count.
        """

    def count(self, counters: Mapping[Series, float]) -> None:
        """Count, without moving the cursor."""


class Receipt:
    """The cursor and the counters of one signal that are still to be committed."""

    def __init__(self, signal: Signal) -> None:
        self._signal = signal
        self._cursor: tuple[int, int] | None = None
        self._counters: Counter[Series] = Counter()

    def add_failure(self, reason: str) -> None:
        """Count a failed request."""
        self._counters[FAILURES, self._signal, reason] += 1

    def add_settled(self, row: int, item: int, delivered: int, rejected: int, reason: str) -> None:
        """Move the cursor to `item` of `row`, and count what became of the items before it."""
        self._cursor = (row, item)
        self._counters[DELIVERED, self._signal] += delivered
        self._counters[REJECTED, self._signal, reason] += rejected

    def add_lost(self, row: int, item: int, items: int) -> None:
        """Move the cursor past a damaged row, and count its items."""
        self._cursor = (row, item)
        self._counters[LOST, "damaged"] += items

    def commit(self, queue: DeliveryQueue) -> None:
        """Write everything in one transaction; raises what the queue raises, and is then complete
        still.
        """
        counters = {series: float(value) for series, value in self._counters.items() if value}
        if self._cursor is not None:
            queue.journal_advance(self._signal, *self._cursor, counters)
        elif counters:
            queue.count(counters)
        self._cursor = None
        self._counters.clear()
