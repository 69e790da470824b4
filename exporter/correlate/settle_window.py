"""The settling window: one queue of items that wait for a partner or a second record.

A window uses the times of the log, so that batches do not change the result. It uses the wall clock
only when the reader has caught up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from exporter.records import NANOS

SETTLE_NANOS = 2 * NANOS
"""A record this far away in log time closes the window. The gap between a fast task's record and
the line of its request was always under a second, and the log has whole seconds."""
SETTLE_QUIET_NANOS = 3 * NANOS
"""The same in wall-clock time when caught up. One second more, for a line that is just being
written."""
HOLD_NANOS = 15 * NANOS
"""The window of a final record that may end a nested task. Kimchi's own record follows within
seconds."""
HOLD_QUIET_NANOS = HOLD_NANOS + NANOS
SETTLING_MAX = 4096
"""Maximum number of waiting items. Above it, the oldest ones settle early. Two seconds of the
densest log have 200."""


class _Item(Protocol):
    """What can wait: `waiting` is set while it is in a window."""

    waiting: bool

    @property
    def time(self) -> int: ...


_Waiting = TypeVar("_Waiting", bound=_Item)


class SettleWindow(Generic[_Waiting]):
    """The queue of waiting items, in the order of the log.

    `settle` is called with each item whose window has closed.

    An item that has found its partner is withdrawn and does not settle. `settle` may add and
    withdraw items.
    """

    def __init__(
        self,
        settle: Callable[[_Waiting], None],
        *,
        nanos: int = SETTLE_NANOS,
        quiet_nanos: int = SETTLE_QUIET_NANOS,
        items_max: int | None = None,
    ) -> None:
        self._settle = settle
        self._nanos = nanos
        self._quiet_nanos = quiet_nanos
        self._items_max = SETTLING_MAX if items_max is None else items_max
        # The places in order. The place of a withdrawn item stays, without the item.
        self._queue: deque[_Place[_Waiting]] = deque()
        self._places: dict[int, _Place[_Waiting]] = {}
        self._ahead_since = 0

    def add(self, waiting: _Waiting) -> None:
        """Add an item. If there are too many, the oldest windows close early."""
        place = _Place(waiting.time, waiting)
        self._queue.append(place)
        self._places[id(waiting)] = place
        waiting.waiting = True
        while len(self._places) > self._items_max:
            self._close_first()

    def withdraw(self, waiting: _Waiting) -> None:
        """Remove an item, if it is waiting."""
        if waiting.waiting:
            waiting.waiting = False
            self._places.pop(id(waiting)).waiting = None

    def pass_record(self, time: int) -> None:
        """Close the windows that a record of this time closes.

        The time may go back if a clock was set back.

        A withdrawn item neither closes a window nor keeps one open: after a restart, the exporter
        does not have it.
        """
        queue = self._queue
        self._ahead_since = 0
        while queue and (queue[0].waiting is None or abs(time - queue[0].time) >= self._nanos):
            self._close_first()

    def pass_quiet(self, now: int) -> None:
        """Close the windows that the wall clock closes.

        Call this when the reader has read everything.
        """
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
        """Return whether the wall clock closes a window.

        The time of a record may be ahead of the wall clock. Then the window runs from the moment
        when that was noticed.
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
        """Whether no item waits."""
        return not self._queue

    def since(self, now: int) -> int:
        """Return the time of the oldest waiting item, or `now` if there is none or its time is
        ahead.
        """
        for place in self._queue:
            if place.waiting is not None:
                return min(place.time, now)
        return now

    def waiting(self) -> list[_Waiting]:
        """Return the waiting items in order."""
        return [place.waiting for place in self._queue if place.waiting is not None]

    def _close_first(self) -> None:
        waiting = self._queue.popleft().waiting
        if waiting is not None:
            waiting.waiting = False
            del self._places[id(waiting)]
            self._settle(waiting)


class _Place(Generic[_Waiting]):
    """A place in the queue."""

    __slots__ = ("time", "waiting")

    def __init__(self, time: int, waiting: _Waiting) -> None:
        self.time = time
        self.waiting: _Waiting | None = waiting
