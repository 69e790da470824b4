"""The other requests during a task: their number, and the first of them.

Requests are numbered without gaps. A task stores the number of the last request before its start.
It needs no list of its own until enough requests have followed: until then, the list of the latest
requests contains them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from exporter.correlate.request_windows import LATEST_MAX, LINKS_MAX, Windows
from exporter.correlate.task_state import Task
from exporter.records import requests_between


class ConcurrentRequests:
    """Numbers the requests and remembers the first ones after the start of each task.

    `ordinal` is the number of the last request. `touch` is called with each task that gets its
    list.
    """

    def __init__(self, touch: Callable[[Task], None]) -> None:
        self._touch = touch
        self.ordinal = 0
        self._windows = Windows()
        self.times: deque[int] = deque(maxlen=LATEST_MAX)
        """The times of the latest requests."""
        self._filling: dict[int, Task] = {}

    def request(self, context: bytes, time: int) -> None:
        """Add the next request."""
        self.ordinal += 1
        self.times.append(time)
        self._windows.append(context)
        filling = self._filling
        while filling:
            task = next(iter(filling.values()))
            if requests_between(task.since, self.ordinal) < LATEST_MAX:
                break
            del filling[task.seq]
            task.links = self._windows.latest()
            self._touch(task)

    def ordinal_before(self, time: int) -> int:
        """Return the number of the last request before a recent time."""
        after = 0
        for each in reversed(self.times):
            if each < time:
                break
            after += 1
        return self.ordinal - after

    def begin(self, task: Task) -> None:
        """Collect the list of an opened task, unless the task already has one or the requests are
        gone.
        """
        if not task.links and requests_between(task.since, self.ordinal) <= LATEST_MAX:
            self._filling[task.seq] = task

    def end(self, task: Task) -> None:
        """Stop collecting the list of a task."""
        self._filling.pop(task.seq, None)

    def links(self, task: Task, until: int, own: int) -> list[bytes]:
        """Return the contexts of the first requests after the task's start up to number `until`,
        without `own`.
        """
        links = list(task.links)
        if task.seq in self._filling:
            # Ordinals have no gaps, so the requests after the start are the last `count` ones.
            count = requests_between(task.since, self.ordinal)
            links = self._windows.recent()[-count:] if count else []
        links = links[: requests_between(task.since, until)]
        at = requests_between(task.since, own) - 1
        if own and at < len(links):
            del links[at]
        return links[:LINKS_MAX]

    def of_trace(self, trace_id: bytes) -> tuple[bytes, int] | None:
        """Return the context and the number of the newest of these requests with a trace id."""
        for back, context in enumerate(reversed(self._windows.recent())):
            if context.startswith(trace_id):
                return context, self.ordinal - back
        return None

    @property
    def latest(self) -> list[str]:
        """The contexts of the latest requests in hex, oldest first.

        The store keeps them with the ordinal.
        """
        return [context.hex() for context in self._windows.recent()]

    def restore(self, ordinal: int, latest: Iterable[str]) -> None:
        """Continue from the stored values."""
        self.ordinal = ordinal
        for context in map(bytes.fromhex, latest):
            self._windows.append(context)
