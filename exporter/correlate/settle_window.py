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
HOLD_NANOS = 15 * NANOS
"""The window of an end that may be a nested task's: Kimchi's own end follows within seconds."""
HOLD_QUIET_NANOS = HOLD_NANOS + NANOS
SETTLING_MAX = 4096
"""Records that may wait at one time; above it the oldest settle early. Two seconds of the densest log have 200."""


class SettleWindow:
    """The queue of all that waits, in the order of the log; `settle` is called with each whose window is over.

    What has found its partner is withdrawn, and settles no more. `settle` may add and withdraw.
    """

    def __init__(
        self,
        settle: Callable[[Waiting], None],
        *,
        nanos: int = SETTLE_NANOS,
        quiet_nanos: int = SETTLE_QUIET_NANOS,
    ) -> None:
        self._settle = settle
        self._nanos = nanos
        self._quiet_nanos = quiet_nanos
        # Pairs of a time and what waits since then: nothing where it was withdrawn.
        self._queue: deque[_Place] = deque()
        self._places: dict[int, _Place] = {}
        self._ahead_since = 0

    def add(self, waiting: Waiting) -> None:
        """Let it wait; if too much does, the oldest windows are closed early."""
        place = _Place(waiting.time, waiting)
        self._queue.append(place)
        self._places[id(waiting)] = place
        waiting.waiting = True
        while len(self._places) > SETTLING_MAX:
            self._close_first()

    def withdraw(self, waiting: Waiting) -> None:
        """Let it wait no more, if it did."""
        if waiting.waiting:
            waiting.waiting = False
            self._places.pop(id(waiting)).waiting = None

    def pass_record(self, time: int) -> None:
        """Close the windows that a record of this time closes; it may be earlier, where a clock was set back.

        What was withdrawn closes nothing and keeps nothing open: a restart of the exporter does not know it.
        """
        queue = self._queue
        self._ahead_since = 0
        while queue and (queue[0].waiting is None or abs(time - queue[0].time) >= self._nanos):
            self._close_first()

    def pass_quiet(self, now: int) -> None:
        """Close the windows that the wall clock closes, of a reader that has read everything there is."""
        while self.is_due(now):
            self._close_first()

    def close_all(self) -> None:
        """Close every window."""
        while self._queue:
            self._close_first()

    def close_before(self, time: int) -> None:
        """Close the windows that opened before this time, in order."""
        for place in list(self._queue):
            waiting = place.waiting
            if waiting is not None and place.time < time:
                self.withdraw(waiting)
                self._settle(waiting)

    def is_due(self, now: int) -> bool:
        """Tell whether the wall clock closes a window.

        The time of a record may lie ahead of the wall clock: then what counts is since when that is seen.
        """
        queue = self._queue
        while queue and queue[0].waiting is None:
            queue.popleft()
        if not queue:
            return False
        since = queue[0].time
        if since > now:
            self._ahead_since = since = min(self._ahead_since or now, now)
        return now - since >= self._quiet_nanos

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._queue

    def since(self, now: int) -> int:
        """Return the time of what has waited for longest, `now` where nothing does or its time lies ahead."""
        for place in self._queue:
            if place.waiting is not None:
                return min(place.time, now)
        return now

    def waiting(self) -> list[Waiting]:
        """Return what waits, in order."""
        return [place.waiting for place in self._queue if place.waiting is not None]

    def to_json(self) -> list[dict[str, Any]]:
        """Return what waits, in order, as JSON values."""
        return [waiting_to_json(waiting) for waiting in self.waiting()]

    def _close_first(self) -> None:
        waiting = self._queue.popleft().waiting
        if waiting is not None:
            waiting.waiting = False
            del self._places[id(waiting)]
            self._settle(waiting)


class _Place:
    """A place in the queue."""

    __slots__ = ("time", "waiting")

    def __init__(self, time: int, waiting: Waiting) -> None:
        self.time = time
        self.waiting: Waiting | None = waiting
