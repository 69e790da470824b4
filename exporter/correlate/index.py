"""Look-ups of requests and tasks: by the form of a target_uri, by id, by the second of a request.

The index makes no decisions. Every result is limited to the newest items, so a flood of tasks with
one target_uri is neither scanned nor copied completely. Most keys have a single item, which has no
dict of its own: with 100,000 open tasks these would need 50 MiB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from itertools import islice
from typing import TypeVar

from exporter.correlate.evidence import is_general
from exporter.correlate.task_state import PendingRequest, Task
from exporter.records import NANOS

CANDIDATES_MAX = 32
"""Maximum number of candidates for one task. More would not make it more ambiguous."""

STARTS_MAX = 256
"""Maximum number of starts for a request of an unknown operation. Two seconds of the densest log
have 200."""

_Item = TypeVar("_Item", PendingRequest, Task)
_Found = dict[Hashable, _Item | dict[int, _Item]]
"""The only item of a key, or several by `seq`."""


class Index:
    """Look-ups of running tasks, pending requests, and starts in open windows."""

    def __init__(self) -> None:
        self._requests: _Found[PendingRequest] = {}
        self._requests_at: _Found[PendingRequest] = {}
        self._by_record_id: dict[str, PendingRequest] = {}
        self._general: Counter[str] = Counter()
        self._starts: _Found[Task] = {}
        self._starts_of: _Found[Task] = {}
        self._by_task_id: _Found[Task] = {}
        self._by_target: _Found[Task] = {}
        self._by_request_id: _Found[Task] = {}

    # Pending requests

    def add_request(self, request: PendingRequest) -> None:
        """Add a request under its forms and the id of its record."""
        for form in request.forms:
            _add(self._requests, (request.app, form.text), request)
            if form.timed:
                key = (request.app, form.text, request.time // NANOS)
                _add(self._requests_at, key, request)
        if _is_general(request):
            self._general[request.app] += 1
        if request.record_id:
            self._by_record_id[request.record_id] = request

    def remove_request(self, request: PendingRequest) -> None:
        """Remove a request."""
        is_found = False
        for form in request.forms:
            is_found = _remove(self._requests, (request.app, form.text), request.seq) or is_found
            if form.timed:
                _remove(self._requests_at, (request.app, form.text, request.time // NANOS), request.seq)
        if is_found and _is_general(request):
            self._general[request.app] -= 1
        if self._by_record_id.get(request.record_id) is request:
            del self._by_record_id[request.record_id]

    def requests(self, app: str, text: str) -> list[PendingRequest]:
        """Return the newest requests with a form, oldest first."""
        return _newest(self._requests.get((app, text)))

    def requests_at(self, app: str, text: str, seconds: Iterable[int]) -> list[PendingRequest]:
        """Return the requests with a form that contains the start time, made in one of these
        seconds.
        """
        found: list[PendingRequest] = []
        if (app, text) in self._requests:
            for second in seconds:
                found += _newest(self._requests_at.get((app, text, second)))
        return found

    def has_general(self, app: str) -> bool:
        """Return whether there are requests of operations that the table does not know."""
        return self._general[app] > 0

    def by_record(self, record_id: str) -> PendingRequest | None:
        """Return the request with this record id."""
        return self._by_record_id.get(record_id)

    # Tasks that start records opened

    def add_running(self, task: Task) -> None:
        """Add a task under its ids and its target_uri."""
        if task.task_id:
            _add(self._by_task_id, task.task_id, task)
        if task.request_id:
            _add(self._by_request_id, task.request_id, task)
        _add(self._by_target, (task.app, task.target_uri), task)

    def remove_running(self, task: Task) -> None:
        """Remove a task."""
        _remove(self._by_task_id, task.task_id, task.seq)
        _remove(self._by_request_id, task.request_id, task.seq)
        _remove(self._by_target, (task.app, task.target_uri), task.seq)

    def running(self, task_id: str) -> list[Task]:
        """Return the newest running tasks with an id, oldest first. Two tasks may share an id."""
        return _newest(self._by_task_id.get(task_id))

    def running_at(self, app: str, target_uri: str) -> list[Task]:
        """Return the newest running tasks with a target_uri, oldest first."""
        return _newest(self._by_target.get((app, target_uri)))

    def of_request(self, request_id: str) -> list[Task]:
        """Return the newest running tasks whose start records name this request, oldest first."""
        return _newest(self._by_request_id.get(request_id)) if request_id else []

    # Starts in open windows

    def add_start(self, start: Task) -> None:
        """Add a start under the forms of its target_uri and under its application."""
        _add(self._starts_of, start.app, start)
        for text in start.texts:
            _add(self._starts, (start.app, text), start)

    def remove_start(self, start: Task) -> None:
        """Remove a start."""
        _remove(self._starts_of, start.app, start.seq)
        for text in start.texts:
            _remove(self._starts, (start.app, text), start.seq)

    def starts(self, app: str, text: str) -> list[Task]:
        """Return the newest starts with a form in open windows, oldest first."""
        return _newest(self._starts.get((app, text)))

    def starts_of(self, app: str) -> list[Task]:
        """Return the newest starts of an application in open windows, oldest first."""
        return _newest(self._starts_of.get(app), STARTS_MAX)


def _is_general(request: PendingRequest) -> bool:
    return bool(request.forms) and is_general(request.forms[0].text)


def _newest(found: _Item | dict[int, _Item] | None, count: int = CANDIDATES_MAX) -> list[_Item]:
    if found is None:
        return []
    if isinstance(found, (PendingRequest, Task)):
        return [found]
    if len(found) <= count:
        return list(found.values())
    return list(islice(reversed(found.values()), count))[::-1]


def _add(index: _Found[_Item], key: Hashable, item: _Item) -> None:
    found = index.get(key)
    if found is None:
        index[key] = item
        return
    if isinstance(found, (PendingRequest, Task)):
        if found.seq == item.seq:
            index[key] = item
            return
        found = index[key] = {found.seq: found}
    is_late = next(reversed(found)) > item.seq
    found[item.seq] = item
    if is_late:
        # The item was removed and is added again. Candidates must keep the order of the log.
        index[key] = dict(sorted(found.items()))


def _remove(index: _Found[_Item], key: Hashable, seq: int) -> bool:
    found = index.get(key)
    if found is None:
        return False
    if isinstance(found, (PendingRequest, Task)):
        if found.seq != seq:
            return False
        del index[key]
        return True
    if found.pop(seq, None) is None:
        return False
    if not found:
        del index[key]
    return True
