"""The settling window: what waits for a partner or a second record, in one queue, until the log has gone on.

A window is measured on the log's own times, so that batches make no difference, and by the wall clock only when
everything there is has been read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from exporter.correlate.stored import waiting_to_json
from exporter.correlate.task_state import Waiting
from exporter.records import NANOS

SETTLE_NANOS = 2 * NANOS
"""A record this far away in the log's time closes the settling window: the gap between a fast task's record and
its request's line was always under a second, and the log has whole seconds."""
SETTLE_QUIET_NANOS = 3 * NANOS
"""The same by the wall clock, when caught up: one second more, for the line that is just being written."""
SETTLING_MAX = 4096
"""Records that may wait at one time; above it the oldest settle early. Two seconds of the densest log have 200."""


class SettleWindow:
    """The queue of all that waits, in the order of the log; `settle` is called with each whose window is over.

    What has found its partner is withdrawn, and settles no more. `settle` may add and withdraw.
    """

    def __init__(self, settle: Callable[[Waiting], None]) -> None:
        self._settle = settle
        self._queue: deque[tuple[int, Waiting]] = deque()
        self._count = 0

    def add(self, waiting: Waiting) -> None:
        """Let it wait; if too much does, the oldest windows are closed early."""
        self._queue.append((waiting.time, waiting))
        self._count += 1
        waiting.waiting = True
        while self._count > SETTLING_MAX:
            self._close_first()

    def withdraw(self, waiting: Waiting) -> None:
        """Let it wait no more, if it did."""
        if waiting.waiting:
            waiting.waiting = False
            self._count -= 1

    def pass_record(self, time: int) -> None:
        """Close the windows that a record of this time closes; it may be earlier, where a clock was set back."""
        queue = self._queue
        while queue and abs(time - queue[0][0]) >= SETTLE_NANOS:
            self._close_first()

    def pass_quiet(self, now: int) -> None:
        """Close the windows that the wall clock closes, of a reader that has read everything there is."""
        queue = self._queue
        while queue and now - queue[0][0] >= SETTLE_QUIET_NANOS:
            self._close_first()

    def close_all(self) -> None:
        """Close every window."""
        while self._queue:
            self._close_first()

    @property
    def due(self) -> int | None:
        """When `pass_quiet` will next have something to do, by the wall clock in nanoseconds."""
        return self._queue[0][0] + SETTLE_QUIET_NANOS if self._queue else None

    def to_json(self) -> list[dict[str, Any]]:
        """Return what waits, in order, as JSON values."""
        return [waiting_to_json(waiting) for _, waiting in self._queue if waiting.waiting]

    def _close_first(self) -> None:
        _, waiting = self._queue.popleft()
        if waiting.waiting:
            self.withdraw(waiting)
            self._settle(waiting)
