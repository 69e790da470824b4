"""The requests that may have started a task, by the form of the target_uri and the second of the
record.

The memory also knows whether the task of a request may still run. If several tasks with one
target_uri run, nothing says which of them a final record has ended. A request whose task has ended
without certainty therefore *may run* until all requests with one of its forms have ended.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from exporter.records import NANOS

SECONDS_MAX = 1024
"""Maximum number of seconds of running tasks that are searched for one failure."""


class Started(NamedTuple):
    """A request that can have started a task: the second of its log line, and its span context."""

    time: int
    context: bytes


class Asked(NamedTuple):
    """A request and the properties of its task.

    forms   The forms that the target_uri of the task can have.
    values  The values of the request, if the forms name nothing.
    """

    app: str
    operation: str
    forms: tuple[str, ...]
    request: Started
    values: tuple[str, ...] = ()

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


class RequestMemory:
    """The known requests by the forms of their tasks' target_uris: those of running tasks, and the
    last `limit` of ended tasks.
    """

    def __init__(self, limit: int, state: str = "") -> None:
        self._limit = limit
        self._ended: deque[Asked] = deque()
        self._by_form: dict[tuple[str, str], dict[int, list[Started]]] = {}
        # Running tasks by the span context of their request, and their number by form.
        self._running: dict[bytes, Asked] = {}
        self._running_forms: Counter[tuple[str, str]] = Counter()
        # Tasks that may run, by operation and by each form.
        self._possible: dict[tuple[str, str], dict[int, dict[bytes, Asked]]] = {}
        self._unsure: dict[tuple[str, str], dict[bytes, Asked]] = {}
        for app, operation, forms, time, context, values, is_unsure in json.loads(state) if state else ():
            request = Started(time, bytes.fromhex(context))
            asked = Asked(app, operation, tuple(forms), request, tuple(values))
            self._find(asked)
            self._ended.append(asked)
            if is_unsure:
                self._let_run(asked)
                self._doubt(asked)

    def add(self, asked: Asked) -> None:
        """Add the request of a running task."""
        self._find(asked)
        self._running[asked.request.context] = asked
        for form in asked.forms:
            self._running_forms[asked.app, form] += 1
        self._let_run(asked)

    def end(self, context: bytes, *, is_sure: bool) -> None:
        """Note that the task of a request has ended, if it is known to run.

        Forget the oldest ended ones.

        `is_sure` means that it was certainly this task.
        """
        asked = self._running.pop(context, None)
        if asked is None:
            return
        if is_sure:
            self._stop(asked)
        else:
            self._doubt(asked)
        for form in asked.forms:
            key = asked.app, form
            self._running_forms[key] -= 1
            if not self._running_forms[key]:
                del self._running_forms[key]
                for other in list(self._unsure.get(key, {}).values()):
                    self._stop(other)
        self._ended.append(asked)
        while len(self._ended) > self._limit:
            self._forget(self._ended.popleft())

    def _find(self, asked: Asked) -> None:
        for form in asked.forms:
            seconds = self._by_form.setdefault((asked.app, form), {})
            seconds.setdefault(asked.request.time, []).append(asked.request)

    def _forget(self, asked: Asked) -> None:
        self._stop(asked)
        time = asked.request.time
        for form in asked.forms:
            seconds = self._by_form[asked.app, form]
            seconds[time].remove(asked.request)
            if not seconds[time]:
                del seconds[time]
            if not seconds:
                del self._by_form[asked.app, form]

    def _let_run(self, asked: Asked) -> None:
        for name in (asked.operation, *asked.forms):
            seconds = self._possible.setdefault((asked.app, name), {})
            seconds.setdefault(asked.request.time, {})[asked.request.context] = asked

    def _doubt(self, asked: Asked) -> None:
        for form in asked.forms:
            self._unsure.setdefault((asked.app, form), {})[asked.request.context] = asked

    def _stop(self, asked: Asked) -> None:
        """Note that a task does not run."""
        time, context = asked.request
        for name in (asked.operation, *asked.forms):
            seconds = self._possible.get((asked.app, name))
            if seconds is None or time not in seconds or seconds[time].pop(context, None) is None:
                continue
            if not seconds[time]:
                del seconds[time]
            if not seconds:
                del self._possible[asked.app, name]
        for form in asked.forms:
            unsure = self._unsure.get((asked.app, form))
            if unsure is not None and unsure.pop(context, None) is not None and not unsure:
                del self._unsure[asked.app, form]

    def logged(self, app: str, form: str, first: int, last: int) -> Sequence[Started]:
        """Return the requests with a form that were logged in the whole seconds from `first` to
        `last`.
        """
        seconds = self._by_form.get((app, form))
        if seconds is None:
            return ()
        return [request for second in range(first, last + 1, NANOS) for request in seconds.get(second, ())]

    def count(self, app: str, form: str) -> int:
        """Return how many requests with a form are known."""
        return sum(map(len, self._by_form.get((app, form), {}).values()))

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
            seconds = self._possible.get((app, name))
            if seconds is not None and any(
                self._may_still_run(asked, ending)
                and not (told is not None and self._is_excluded(asked, told))
                for second in range(first, last + 1, NANOS)
                for asked in seconds.get(second, {}).values()
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
        for running in islice(self._possible.get((app, form), {}).values(), SECONDS_MAX):
            yield from running.values()

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
        reach = nanos // NANOS * NANOS + NANOS
        for name in names:
            seconds = self._possible.get((app, name), {})
            if len(seconds) > SECONDS_MAX:
                return True
            for second, running in seconds.items():
                is_near = any(self.logged(app, form, second - reach, second + reach) for form in forms)
                if is_near and any(self._may_still_run(asked, ending) for asked in running.values()):
                    return True
        return False

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
        seconds = self._possible.get((asked.app, form), {})
        near = (seconds.get(time + off, {}) for off in (-NANOS, 0, NANOS))
        return count >= sum(map(len, near))

    def _running_by(self, app: str, form: str, until: int) -> int:
        """Return how many running tasks with a form were requested up to this time."""
        count = self._running_forms[app, form]
        for second, members in reversed(self._possible.get((app, form), {}).items()):
            if second <= until:
                break
            count -= sum(context in self._running for context in members)
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
                    any(
                        asked.request.context in self._unsure.get((asked.app, form), ())
                        for form in asked.forms
                    ),
                ]
                for asked in self._ended
            ],
            separators=(",", ":"),
        )
