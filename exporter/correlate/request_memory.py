"""The requests that may have started a task, found by the form of its target_uri and the second of their record."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from exporter.records import NANOS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Started(NamedTuple):
    """A request that can have started a task: the second in which it was logged, and its span."""

    time: int
    context: bytes


class Requests(Protocol):
    """The requests that are known, by the forms of the target_uri that their tasks can have; those whose task has
    ended a while ago are among them.
    """

    def logged(self, app: str, form: str, first: int, last: int) -> Sequence[Started]:
        """Return the requests of a form that were logged in the whole seconds from `first` to `last`."""

    def count(self, app: str, form: str) -> int:
        """Return how many requests of a form are known."""


class RequestMemory:
    """The requests whose tasks run, and the last `limit` of those whose tasks have ended."""

    def __init__(self, limit: int, state: str = "") -> None:
        self._limit = limit
        self._ended: deque[tuple[str, tuple[str, ...], Started]] = deque()
        self._by_form: dict[tuple[str, str], dict[int, list[Started]]] = {}
        for app, forms, time, context in json.loads(state) if state else ():
            request = Started(time, bytes.fromhex(context))
            self.add(app, forms, request)
            self.end(app, forms, request)

    def add(self, app: str, forms: Iterable[str], request: Started) -> None:
        """Remember a request whose task can have one of these forms."""
        for form in dict.fromkeys(forms):
            self._by_form.setdefault((app, form), {}).setdefault(request.time, []).append(request)

    def end(self, app: str, forms: Iterable[str], request: Started) -> None:
        """Say that the task of a request has ended; the oldest of these are forgotten."""
        self._ended.append((app, tuple(forms), request))
        while len(self._ended) > self._limit:
            self._forget(*self._ended.popleft())

    def _forget(self, app: str, forms: Iterable[str], request: Started) -> None:
        for form in dict.fromkeys(forms):
            seconds = self._by_form[app, form]
            seconds[request.time].remove(request)
            if not seconds[request.time]:
                del seconds[request.time]
            if not seconds:
                del self._by_form[app, form]

    def logged(self, app: str, form: str, first: int, last: int) -> Sequence[Started]:
        """Return the requests of a form that were logged in the whole seconds from `first` to `last`."""
        seconds = self._by_form.get((app, form))
        if seconds is None:
            return ()
        return [request for second in range(first, last + 1, NANOS) for request in seconds.get(second, ())]

    def count(self, app: str, form: str) -> int:
        """Return how many requests of a form are known."""
        return sum(map(len, self._by_form.get((app, form), {}).values()))

    @property
    def state(self) -> str:
        """The requests whose tasks have ended, as JSON text; the others are known with their tasks."""
        return json.dumps(
            [[app, forms, request.time, request.context.hex()] for app, forms, request in self._ended],
            separators=(",", ":"),
        )
