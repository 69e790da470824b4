"""The requests that follow each task, as lists that neighbouring tasks share.

The first requests after a task are mostly those after its neighbour, too. With 100,000 open tasks,
a tuple for each would need 30 MiB.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

LINKS_MAX = 32
"""Maximum number of links to concurrent requests in the span of a task. Further requests are
counted."""
LATEST_MAX = LINKS_MAX + 1
"""Number of requests that are kept for tasks without a list. One more than the links, because the
task's own request may be among them."""


class Window:
    """The contexts of `LATEST_MAX` successive requests, in two shared lists: all of the first one
    from `start` on, and as many of the second one as are missing.
    """

    __slots__ = ("_first", "_second", "_start")

    def __init__(self, first: list[bytes], second: list[bytes], start: int) -> None:
        self._first = first
        self._second = second
        self._start = start

    def __len__(self) -> int:
        return len(self._first) - self._start + min(self._start, len(self._second))

    def __iter__(self) -> Iterator[bytes]:
        return chain(islice(self._first, self._start, None), islice(self._second, self._start))


class Windows:
    """Makes windows that share their lists. Each context may follow all earlier ones."""

    def __init__(self) -> None:
        self._first: list[bytes] = []
        self._second: list[bytes] = []

    def append(self, context: bytes) -> None:
        """Add the next request."""
        self._second.append(context)
        if len(self._second) == LATEST_MAX:
            self._first, self._second = self._second, []

    def recent(self) -> list[bytes]:
        """Return the latest requests, oldest first, at most `LATEST_MAX`."""
        return [*self._first[len(self._second) :], *self._second]

    def latest(self) -> Window:
        """Return the window of the latest requests. There must be enough of them."""
        return Window(self._first, self._second, len(self._second))

    def of(self, contexts: tuple[bytes, ...]) -> tuple[bytes, ...] | Window:
        """Return the same contexts, shared with the previous windows where they overlap."""
        if len(contexts) != LATEST_MAX:
            return contexts
        for _ in range(2):
            if contexts[0] in self._first:
                start = self._first.index(contexts[0])
                further = contexts[LATEST_MAX - start :]
                known = self._second[:start]
                if contexts == (*self._first[start:], *known, *further[len(known) :]):
                    self._second += further[len(known) :]
                    return Window(self._first, self._second, start)
            if len(self._second) < LATEST_MAX:
                break
            self._first, self._second = self._second, []
        self._first, self._second = [*contexts], []
        return Window(self._first, self._second, 0)
