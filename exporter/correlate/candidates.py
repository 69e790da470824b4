"""By what a running task can be found: the forms of its target_uri, its task id, the record of its request.

Only look-ups, no decisions. Everything found is bounded: a flood of tasks with one target_uri is neither scanned
nor copied whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

from exporter.correlate.task_state import PendingRequest, Task
from exporter.records import NANOS
from exporter.wok.operations import Target

CANDIDATES_MAX = 32
"""Candidates that are looked at for one task: more make it no more ambiguous."""

_Key = tuple[str, str]
_Item = TypeVar("_Item")
_Found = dict[_Key, dict[int, _Item]]


class Candidates(NamedTuple):
    """The requests whose task a final record may end, oldest first, found by the form `text`.

    `epoch` is the start that the target_uri tells, in nanoseconds, or 0. `is_sure` is False when the log's own
    times contradict it, `is_quoted` True when the error quotes a value of one request and of no other.
    """

    requests: Sequence[PendingRequest]
    text: str = ""
    epoch: int = 0
    is_sure: bool = True
    is_quoted: bool = False


class Index:
    """Look-ups of running tasks, of requests that may be claimed, and of starts whose window is open."""

    def __init__(self) -> None:
        self._requests: _Found[PendingRequest] = {}
        self._starts: _Found[Task] = {}
        self._by_task_id: _Found[Task] = {}
        self._by_record_id: dict[str, PendingRequest] = {}

    def add_request(self, request: PendingRequest) -> None:
        """Let a request be found by its forms and its record's id."""
        for form in request.forms:
            self._requests.setdefault((request.app, form.text), {})[request.seq] = request
        if request.record_id:
            self._by_record_id[request.record_id] = request

    def remove_request(self, request: PendingRequest) -> None:
        """Let a request be found no more."""
        for form in request.forms:
            _remove(self._requests, (request.app, form.text), request.seq)
        if self._by_record_id.get(request.record_id) is request:
            del self._by_record_id[request.record_id]

    def add_running(self, task: Task) -> None:
        """Let a task that a start record opened be found by its task id."""
        self._by_task_id.setdefault(("", task.task_id), {})[task.seq] = task

    def remove_running(self, task: Task) -> None:
        """Let a task be found no more by its task id."""
        _remove(self._by_task_id, ("", task.task_id), task.seq)

    def add_start(self, start: Task) -> None:
        """Let a start be found, while its window is open, by the forms of its target_uri."""
        for text in start.texts:
            self._starts.setdefault((start.app, text), {})[start.seq] = start

    def remove_start(self, start: Task) -> None:
        """Let a start be found no more."""
        for text in start.texts:
            _remove(self._starts, (start.app, text), start.seq)

    def requests(self, app: str, text: str) -> list[PendingRequest]:
        """Return the requests of a form, oldest first."""
        return _first_of(self._requests.get((app, text)))

    def starts(self, app: str, text: str) -> list[Task]:
        """Return the starts of a form whose windows are open, oldest first."""
        return _first_of(self._starts.get((app, text)))

    def running(self, task_id: str) -> list[Task]:
        """Return the running tasks of an id, oldest first; two may share one."""
        return _first_of(self._by_task_id.get(("", task_id)))

    def by_record(self, record_id: str) -> PendingRequest | None:
        """Return the open request of a record's id."""
        return self._by_record_id.get(record_id)


def possible_at(requests: Sequence[PendingRequest], target: Target, near_nanos: int) -> Candidates:
    """Keep the requests that can have started a task at the time its target_uri tells.

    A request ends after its task has started (its line has whole seconds), and mostly within `near_nanos`.
    """
    if not target.epoch:
        return Candidates(requests, target.text)
    possible = [request for request in requests if request.time + NANOS > target.epoch]
    near = [request for request in possible if request.time < target.epoch + near_nanos]
    if possible:
        return Candidates(near or possible, target.text, target.epoch)
    # No request can have: the log is read in a wrong zone, or a clock was set.
    return Candidates(requests, target.text, is_sure=False)


def quoted_by(candidates: Candidates, error: Iterable[str], target_uri: str) -> Candidates:
    """Prefer the one request of which the error quotes a value that the target_uri does not have.

    `/swaps/file_loc/` is the same for every swap file, but a failure may name the file.
    """
    quotes = {value for value in error if len(value) > 3 and value not in target_uri}
    if not quotes:
        return candidates
    quoted = [request for request in candidates.requests if not quotes.isdisjoint(request.values)]
    return candidates._replace(requests=quoted, is_quoted=True) if len(quoted) == 1 else candidates


def _first_of(found: dict[int, _Item] | None) -> list[_Item]:
    return list(islice(found.values(), CANDIDATES_MAX)) if found else []


def _remove(index: _Found[_Item], key: _Key, seq: int) -> None:
    found = index.get(key)
    if found is not None and found.pop(seq, None) is not None and not found:
        del index[key]
