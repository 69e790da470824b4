"""By what a running task can be found: the forms of its target_uri, its task id, the record of its request.

Only look-ups, no decisions. Everything found is bounded: a flood of tasks with one target_uri is neither scanned
nor copied whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from exporter.correlate.task_state import Open
from exporter.records import NANOS
from exporter.wok.operations import Form, Target

CANDIDATES_MAX = 32
"""Candidates that are looked at for one task: more make it no more ambiguous."""

_Key = tuple[str, str]


class Candidates(NamedTuple):
    """The tasks that a final record may end, oldest first, found by the form `text`.

    `epoch` is the start that the target_uri tells, in nanoseconds, or 0. `is_sure` is False when the log's own
    times contradict it, `is_quoted` True when the error quotes a value of one request and of no other.
    """

    tasks: Sequence[Open]
    text: str = ""
    epoch: int = 0
    is_sure: bool = True
    is_quoted: bool = False


class Index:
    """Look-ups of running tasks, of requests that may be claimed, and of starts whose window is open."""

    def __init__(self) -> None:
        self._requests: dict[_Key, dict[int, Open]] = {}
        self._starts: dict[_Key, dict[int, Open]] = {}
        self._by_task_id: dict[str, dict[int, Open]] = {}
        self._by_record_id: dict[str, Open] = {}

    def add_request(self, request: Open) -> None:
        """Let a request be found by its forms and its record's id."""
        for form in request.forms:
            self._requests.setdefault((request.app, form.text), {})[request.seq] = request
        if request.request_id:
            self._by_record_id[request.request_id] = request

    def add_running(self, task: Open) -> None:
        """Let a task that a start record opened be found by its task id."""
        self._by_task_id.setdefault(task.task_id, {})[task.seq] = task

    def add_start(self, start: Open, texts: Iterable[str]) -> None:
        """Let a start be found, while its window is open, by the forms of its target_uri."""
        for text in texts:
            self._starts.setdefault((start.app, text), {})[start.seq] = start

    def remove_start(self, start: Open, texts: Iterable[str]) -> None:
        """Let a start be found no more."""
        for text in texts:
            _remove(self._starts, (start.app, text), start.seq)

    def remove(self, task: Open) -> None:
        """Take a task or request out of everything but the starts."""
        for form in task.forms:
            _remove(self._requests, (task.app, form.text), task.seq)
        if self._by_record_id.get(task.request_id) is task:
            del self._by_record_id[task.request_id]
        if task.by_start:
            same = self._by_task_id.get(task.task_id)
            if same is not None and same.pop(task.seq, None) is not None and not same:
                del self._by_task_id[task.task_id]

    def requests(self, app: str, text: str) -> list[Open]:
        """Return the requests of a form, oldest first."""
        return list(islice(self._requests.get((app, text), {}).values(), CANDIDATES_MAX))

    def starts(self, app: str, text: str) -> list[Open]:
        """Return the starts of a form whose windows are open, oldest first."""
        return list(islice(self._starts.get((app, text), {}).values(), CANDIDATES_MAX))

    def running(self, task_id: str) -> list[Open]:
        """Return the running tasks of an id, oldest first; two may share one."""
        return list(islice(self._by_task_id.get(task_id, {}).values(), CANDIDATES_MAX))

    def by_record(self, record_id: str) -> Open | None:
        """Return the open request of a record's id."""
        return self._by_record_id.get(record_id)


def form_of(task: Open, text: str) -> Form:
    """Return a request's form of this text; one that names it, where it was found by its id."""
    for form in task.forms:
        if form.text == text:
            return form
    return Form(text, named=True)


def possible_at(tasks: Sequence[Open], target: Target, near_nanos: int) -> Candidates:
    """Keep the requests that can have started a task at the time its target_uri tells.

    A request ends after its task has started (its line has whole seconds), and mostly within `near_nanos`.
    """
    if not target.epoch:
        return Candidates(tasks, target.text)
    possible = [task for task in tasks if task.request_time + NANOS > target.epoch]
    near = [task for task in possible if task.request_time < target.epoch + near_nanos]
    if possible:
        return Candidates(near or possible, target.text, target.epoch)
    # No request can have: the log is read in a wrong zone, or a clock was set.
    return Candidates(tasks, target.text, is_sure=False)


def quoted_by(candidates: Candidates, error: Iterable[str], target_uri: str) -> Candidates:
    """Prefer the one request of which the error quotes a value that the target_uri does not have.

    `/swaps/file_loc/` is the same for every swap file, but a failure may name the file.
    """
    quotes = {value for value in error if len(value) > 3 and value not in target_uri}
    if not quotes:
        return candidates
    quoted = [task for task in candidates.tasks if not quotes.isdisjoint(task.values)]
    return candidates._replace(tasks=quoted, is_quoted=True) if len(quoted) == 1 else candidates


def _remove(index: dict[_Key, dict[int, Open]], key: _Key, seq: int) -> None:
    tasks = index.get(key)
    if tasks is not None and tasks.pop(seq, None) is not None and not tasks:
        del index[key]
