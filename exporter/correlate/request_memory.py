"""The requests that may have started a task, by the form of the target_uri and the second of the
record.

The memory also knows whether the task of a request may still run. If several tasks with one
target_uri run, nothing says which of them a final record has ended. A request whose task has ended
without certainty therefore *may run* until all requests with one of its forms have ended.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, Protocol

from exporter.records import NANOS

SECONDS_MAX = 1024
"""Maximum number of seconds of running tasks that are searched for one failure."""


class Started(NamedTuple):
    """A request that can have started a task: the second of its log line, and its span context."""

    time: int
    context: bytes


@dataclass(slots=True, eq=False)
class Asked:
    """A request and the properties of its task.

    forms       The forms that the target_uri of the task can have.
    values      The values of the request, if the forms name nothing.
    is_running  The task has not ended.
    may_run     The task runs, or it is unknown whether the end that it was given was its own.
    is_unsure   That is unknown.
    alike       Where the memory has this request: by its operation, then by each form.
    """

    app: str
    operation: str
    forms: tuple[str, ...]
    request: Started
    values: tuple[str, ...] = ()
    is_running: bool = False
    may_run: bool = False
    is_unsure: bool = False
    alike: list[_Alike] = field(default_factory=list)

    def names(self, texts: Collection[str]) -> bool:
        """Return whether all these texts are values of the request or segments of its task's
        target_uri.
        """
        return all(
            text in self.values or any(text in form.split("/") for form in self.forms) for text in texts
        )


class Ending(Protocol):
    """The final records in open settling windows, while one of them, a failure, is decided."""

    @property
    def time(self) -> int:
        """When the failure was logged."""

    def count(self, app: str, form: str, until: int) -> int:
        """Return how many waiting final records with a form were logged up to this time."""

    def count_of_second(self, app: str, form: str, second: int) -> int:
        """Return how many waiting final records with a form have a start time in this second, or
        just before.
        """


class Told(NamedTuple):
    """What a failure and an exception both tell about their request.

    `forms` are those of the failure.
    """

    texts: Collection[str]
    forms: frozenset[str]


class _Alike:
    """The known requests of one application with the same form or operation, by the second of their
    log line.

    `running` is the number of running tasks. Most forms have a single request. It has no lists of
    its own: with 100,000 running tasks these would need 40 MiB.
    """

    __slots__ = ("_only", "_seconds", "_unsure", "key", "running")

    def __init__(self, key: tuple[str, str]) -> None:
        self.key = key
        self._only: Asked | None = None
        self._seconds: dict[int, list[Asked]] | None = None
        self.running = 0
        self._unsure: list[Asked] | None = None

    @property
    def unsure(self) -> Sequence[Asked]:
        """The requests of the ended tasks that may run."""
        return self._unsure or ()

    @property
    def seconds(self) -> dict[int, list[Asked]]:
        """The requests by second, in the order of the log."""
        if self._seconds is not None:
            return self._seconds
        return {} if self._only is None else {self._only.request.time: [self._only]}

    def at(self, second: int) -> Sequence[Asked]:
        """Return the requests of a second whose task may run."""
        return [asked for asked in self.seconds.get(second, ()) if asked.may_run]

    def add(self, asked: Asked) -> None:
        """Add a request."""
        if self._seconds is None:
            if self._only is None:
                self._only = asked
                return
            self._seconds = {self._only.request.time: [self._only]}
            self._only = None
        self._seconds.setdefault(asked.request.time, []).append(asked)

    def remove(self, asked: Asked) -> None:
        """Remove a request."""
        if self._seconds is None:
            self._only = None
            return
        members = self._seconds[asked.request.time]
        members.remove(asked)
        if not members:
            del self._seconds[asked.request.time]

    def doubt(self, asked: Asked) -> None:
        """Note that a task has ended without certainty."""
        if self._unsure is None:
            self._unsure = []
        self._unsure.append(asked)

    def decide(self, asked: Asked) -> None:
        """Note that such a task has ended."""
        if self._unsure is not None:
            self._unsure.remove(asked)


_NOBODY = _Alike(("", ""))


class RequestMemory:
    """The known requests by the forms of their tasks' target_uris, and by operation: those of
    running tasks, and the last `limit` of ended tasks.
    """

    def __init__(self, limit: int, state: str = "") -> None:
        self._limit = limit
        self._running: dict[bytes, Asked] = {}
        self._ended: deque[Asked] = deque()
        self._alike: dict[tuple[str, str], _Alike] = {}
        for app, operation, forms, time, context, values, is_unsure in json.loads(state) if state else ():
            request = Started(time, bytes.fromhex(context))
            asked = Asked(app, operation, tuple(forms), request, tuple(values), may_run=is_unsure)
            self._add(asked, 0)
            if is_unsure:
                self._doubt(asked)
            self._ended.append(asked)

    def add(self, asked: Asked) -> None:
        """Add the request of a running task."""
        asked.is_running = asked.may_run = True
        self._running[asked.request.context] = asked
        self._add(asked, 1)

    def end(self, context: bytes, *, is_sure: bool) -> None:
        """Note that the task of a request has ended, if it is known to run.

        Forget the oldest ended ones.

        `is_sure` means that it was certainly this task.
        """
        asked = self._running.pop(context, None)
        if asked is None:
            return
        asked.is_running = False
        if is_sure:
            asked.may_run = False
        else:
            self._doubt(asked)
        for alike in asked.alike:
            alike.running -= 1
            if alike.unsure and not alike.running:
                for other in [*alike.unsure]:
                    self._stop(other)
        self._ended.append(asked)
        while len(self._ended) > self._limit:
            self._forget(self._ended.popleft())

    def _add(self, asked: Asked, running: int) -> None:
        for name in (asked.operation, *asked.forms):
            key = asked.app, name
            alike = self._alike.get(key)
            if alike is None:
                alike = self._alike[key] = _Alike(key)
            alike.running += running
            alike.add(asked)
            asked.alike.append(alike)

    def _forget(self, asked: Asked) -> None:
        self._stop(asked)
        for alike in asked.alike:
            alike.remove(asked)
            if not alike.seconds:
                del self._alike[alike.key]

    def _doubt(self, asked: Asked) -> None:
        asked.is_unsure = bool(asked.forms)
        for alike in asked.alike[1:]:
            alike.doubt(asked)

    def _stop(self, asked: Asked) -> None:
        """Note that a task does not run."""
        asked.may_run = False
        if asked.is_unsure:
            asked.is_unsure = False
            for alike in asked.alike[1:]:
                alike.decide(asked)

    def _of(self, app: str, name: str) -> _Alike:
        return self._alike.get((app, name), _NOBODY)

    def logged(self, app: str, form: str, first: int, last: int) -> Sequence[Started]:
        """Return the requests with a form that were logged in the whole seconds from `first` to
        `last`.
        """
        seconds = self._of(app, form).seconds
        return [
            asked.request for second in range(first, last + 1, NANOS) for asked in seconds.get(second, ())
        ]

    def count(self, app: str, form: str) -> int:
        """Return how many requests with a form are known."""
        return sum(map(len, self._of(app, form).seconds.values()))

    def may_run(
        self,
        app: str,
        names: Collection[str],
        first: int,
        last: int,
        ending: Ending,
        told: Told | None = None,
    ) -> bool:
        """Return whether a task with one of these operations or forms may still run whose request
        came in these seconds.
        """
        for name in names:
            alike = self._of(app, name)
            for second in range(first, last + 1, NANOS):
                for asked in alike.at(second):
                    if self._may_still_run(asked, ending) and not (
                        told is not None and self._is_excluded(asked, told)
                    ):
                        return True
        return False

    def _is_excluded(self, asked: Asked, told: Told) -> bool:
        """Return whether an exception with these texts cannot belong to this task, because the task
        continues.
        """
        if not asked.names(told.texts):
            return True
        if told.forms.isdisjoint(asked.forms):
            return False
        alike = [
            other
            for form in asked.forms
            for other in self._of_form(asked.app, form)
            if other.request != asked.request and other.names(told.texts)
        ]
        # The failure has the same texts: it is the end of the only task with them.
        return not alike

    def _of_form(self, app: str, form: str) -> Iterator[Asked]:
        for members in islice(self._of(app, form).seconds.values(), SECONDS_MAX):
            for asked in members:
                if asked.may_run:
                    yield asked

    def known_names(self, app: str, forms: Iterable[str], texts: Collection[str]) -> set[str]:
        """Return which of these texts belong to a request with one of these forms whose task may
        run or just ends.
        """
        known: set[str] = set()
        for form in forms:
            for asked in self._of_form(app, form):
                known.update(text for text in texts if asked.names((text,)))
        return known

    def may_run_beside(
        self,
        app: str,
        names: Collection[str],
        forms: Collection[str],
        nanos: int,
        ending: Ending,
    ) -> bool:
        """Return whether a task with one of these operations or forms may still run that was
        requested near one of `forms`.

        Near means within `nanos` and a second of a request with one of `forms`.
        """
        named = [self._of(app, name) for name in names]
        if any(len(alike.seconds) > SECONDS_MAX for alike in named):
            return True
        reach = nanos // NANOS * NANOS + NANOS
        near = {
            second + off
            for form in forms
            for second in self._of(app, form).seconds
            for off in range(-reach, reach + NANOS, NANOS)
        }
        return any(
            self._may_still_run(asked, ending)
            for alike in named
            for second in near
            for asked in alike.at(second)
        )

    def _may_still_run(self, asked: Asked, ending: Ending) -> bool:
        return not any(self._has_ended(asked, form, ending) for form in asked.forms)

    def _has_ended(self, asked: Asked, form: str, ending: Ending) -> bool:
        """Return whether all tasks with a form that were requested up to some time have ended by
        then.

        A final record does not belong to a task that was requested in a later second.
        """
        for until in (ending.time, ending.time + NANOS, ending.time + 2 * NANOS):
            if asked.request.time <= until:
                count = ending.count(asked.app, form, until)
                if count and count >= self._running_by(asked.app, form, until):
                    return True
        time = asked.request.time
        count = ending.count_of_second(asked.app, form, time)
        if not count:
            return False
        alike = self._of(asked.app, form)
        return count >= sum(len(alike.at(time + off)) for off in (-NANOS, 0, NANOS))

    def _running_by(self, app: str, form: str, until: int) -> int:
        """Return how many running tasks with a form were requested up to this time."""
        alike = self._of(app, form)
        count = alike.running
        for second, members in reversed(alike.seconds.items()):
            if second <= until:
                break
            count -= sum(asked.is_running for asked in members)
        return count

    @property
    def state(self) -> str:
        """The requests of ended tasks as JSON text.

        Requests of running tasks are stored with their tasks.
        """
        return json.dumps(
            [
                [
                    asked.app,
                    asked.operation,
                    asked.forms,
                    asked.request.time,
                    asked.request.context.hex(),
                    asked.values,
                    asked.is_unsure,
                ]
                for asked in self._ended
            ],
            separators=(",", ":"),
        )
