"""Which other requests were made while a task ran: how many, and the first of them.

Requests are numbered without gaps. A task knows the number of the last request before its start, and so needs no
list of its own until there are enough of them after it: until then those are the latest that came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from exporter.correlate.task_state import Task

LINKS_MAX = 32
"""Concurrent requests that a task's span links to; the count goes on."""
LATEST_MAX = LINKS_MAX + 1
"""Requests that are kept for tasks that have not seen so many yet: one more, for a task's own may be among them."""


class ConcurrentRequests:
    """Numbers the requests (`ordinal` is the last one's) and remembers the first after each task's start.

    `touch` is told which tasks have been given their list.
    """

    def __init__(self, touch: Callable[[Task], None]) -> None:
        self._touch = touch
        self.ordinal = 0
        self._latest: deque[bytes] = deque(maxlen=LATEST_MAX)
        self.times: deque[int] = deque(maxlen=LATEST_MAX)
        """The times of the latest requests."""
        self._filling: dict[int, Task] = {}

    def request(self, context: bytes, time: int) -> None:
        """Take the context and the time of the next request."""
        self.ordinal += 1
        self.times.append(time)
        self._latest.append(context)
        filling = self._filling
        while filling:
            task = next(iter(filling.values()))
            if task.since + LATEST_MAX > self.ordinal:
                break
            del filling[task.seq]
            task.links = tuple(self._latest)
            self._touch(task)

    def ordinal_before(self, time: int) -> int:
        """Return the number of the last request before a time that is a moment ago."""
        after = 0
        for each in reversed(self.times):
            if each < time:
                break
            after += 1
        return self.ordinal - after

    def begin(self, task: Task) -> None:
        """Watch for a task that has opened, unless it has its list already, or it is too late to make one."""
        if not task.links and self.ordinal - task.since <= LATEST_MAX:
            self._filling[task.seq] = task

    def end(self, task: Task) -> None:
        """Watch no more for a task."""
        self._filling.pop(task.seq, None)

    def links(self, task: Task, until: int, own: int) -> list[bytes]:
        """Return the contexts of the first requests after a task's start and up to number `until`, without `own`."""
        links = list(task.links)
        if task.seq in self._filling:
            # Ordinals have no gaps: what came after the task's start are the last so many.
            count = self.ordinal - task.since
            links = list(self._latest)[-count:] if count else []
        links = links[: until - task.since]
        if own and own - task.since <= len(links):
            del links[own - task.since - 1]
        return links[:LINKS_MAX]

    @property
    def latest(self) -> list[str]:
        """The contexts of the latest requests in hex, oldest first: what the store keeps beside the ordinal."""
        return [context.hex() for context in self._latest]

    def restore(self, ordinal: int, latest: Iterable[str]) -> None:
        """Go on from what the store has kept."""
        self.ordinal = ordinal
        self._latest.extend(map(bytes.fromhex, latest))
