"""Match start records and requests while the window of either is open.

A start *seeks* its request by the forms of its target_uri. A request that was just read takes the
oldest start that seeks it. A start that was just read takes a request just before it. These matches
are not final: the grade depends on other records that were near (`crowded`) and on others that may
be meant (`contested`).

A request that failed without an error may have started its task. It takes a start provisionally. If
an accepted request comes in time, that request takes the start over, and both are in doubt.
"""

from __future__ import annotations

from collections.abc import Sequence

from exporter.correlate.end_candidates import COARSE_NANOS, NEAR_NANOS
from exporter.correlate.ended_tasks import is_number
from exporter.correlate.evidence import general_targets, is_general
from exporter.correlate.index import Index
from exporter.correlate.open_tasks import OpenTaskTable
from exporter.correlate.task_state import PendingRequest, Phase, Step, Task
from exporter.records import NANOS
from exporter.wok.operations import Form, Operations

EPOCH_OFF_NANOS = 60 * NANOS
"""A time in a target_uri that is further from its start record than this comes from another clock.
"""


class StartMatcher:
    """Matches starts and requests of `index`, and marks changed tasks in `open_tasks`."""

    def __init__(self, operations: Operations, index: Index, open_tasks: OpenTaskTable) -> None:
        self._operations = operations
        self._index = index
        self._open_tasks = open_tasks

    def take_start(self, request: PendingRequest) -> tuple[Task | None, PendingRequest | None]:
        """Match a request that was just read with the oldest start that seeks it, by its best form.

        Return the start, and the failed request that it was taken from.
        """
        for form in request.forms:
            starts = [start for start in self._starts(request, form) if _is_possible(start, request)]
            seeking = [start for start in starts if start.phase is Phase.SEEKING]
            if (len(starts) > 1 or not seeking) and not is_general(form.text):
                self._crowd(starts)
            if seeking:
                if len(seeking) > 1:
                    self._make_rivals(seeking)
                self._join(seeking[0], request, form)
                return seeking[0], None
            if request.failed:
                for start in starts:
                    self._doubt(start, request)
                continue
            failed = [start for start in starts if start.asked is not None and start.phase is Phase.JOINED]
            if failed:
                start, former = failed[0], failed[0].asked
                assert former is not None
                self._join(start, request, form)
                self._doubt(start, former)
                return start, former
        return None, None

    def take_request(self, start: Task) -> PendingRequest | None:
        """Match a start that was just read with a request just before it. Return that request."""
        for text in self._texts(start):
            others = self._index.starts(start.app, text)
            if others and not is_general(text):
                self._crowd([*others, start])
                self._contest_disorder(others, start)
            near = [
                request
                for request in self._index.requests(start.app, text)
                if abs(request.time - start.start) < NEAR_NANOS and _is_possible(start, request)
            ]
            # An accepted request has certainly started a task.
            requests = [request for request in near if not request.failed] or near
            if requests:
                if len(near) > 1:
                    start.candidates = tuple([each.context for each in near if each is not requests[0]])
                    self.contest(near)
                self._join(start, requests[0], requests[0].form_of(text))
                return requests[0]
        return None

    def take_named(self, start: Task, request: PendingRequest) -> None:
        """Match a start with the request whose id it has."""
        self._join(start, request, Form("", named=True))

    def link(self, task: Task, context: bytes, ordinal: int) -> None:
        """Link a task with the request whose id it has.

        The request also remains linked with another task.
        """
        task.take(Step.FIND_REQUEST)
        task.origin = context
        task.parent = task.parent or context
        task.request = ordinal
        task.certainty.joined = task.certainty.named = True
        self._open_tasks.touch(task)

    def _starts(self, request: PendingRequest, form: Form) -> list[Task]:
        """Return the starts in open windows that seek by this form."""
        if not is_general(form.text):
            return self._index.starts(request.app, form.text)
        return [start for start in self._index.starts_of(request.app) if form.text in self._general(start)]

    def _texts(self, start: Task) -> tuple[str, ...]:
        """Return the forms by which a start seeks its request.

        General forms are included only if needed.
        """
        if self._index.has_general(start.app):
            return (*start.texts, *self._general(start))
        return start.texts

    def _general(self, start: Task) -> tuple[str, ...]:
        return () if start.request_id else general_targets(self._operations, start.app, start.target_uri)

    def contest(self, requests: Sequence[PendingRequest]) -> None:
        """Mark requests whose tasks may belong to each other."""
        for request in requests:
            request.contested = True
            if request.task is not None:
                self._open_tasks.touch(request.task)

    def _crowd(self, starts: Sequence[Task]) -> None:
        for start in starts:
            start.certainty.crowded = True
            self._open_tasks.touch(start)

    def _contest_disorder(self, earlier: Sequence[Task], start: Task) -> None:
        """Contest starts that are logged in another order than wokd has made them.

        Then the order of the lines does not show which request belongs to which start.
        """
        later = [other for other in earlier if _was_made_after(other, start)]
        for each in [*later, start] if later else ():
            each.certainty.contested = True
            self._open_tasks.touch(each)

    def _make_rivals(self, starts: Sequence[Task]) -> None:
        for start in starts:
            start.certainty.contested = True
            self._open_tasks.touch(start)
            start.rivals = tuple([rival.key for rival in starts if rival is not start])

    def _doubt(self, start: Task, request: PendingRequest) -> None:
        start.certainty.contested = request.contested = True
        start.candidates += (request.context,)
        self._open_tasks.touch(start)

    def _join(self, start: Task, request: PendingRequest, form: Form) -> None:
        if start.phase is Phase.SEEKING:
            start.take(Step.FIND_REQUEST)
        start.parent = start.origin = request.context
        start.asked = request if request.failed else None
        start.operation = request.operation
        start.request = request.ordinal
        certainty = start.certainty
        certainty.joined = certainty.beside = True
        by_value = is_general(form.text)
        is_guess = by_value and self._operations.shape_of(start.app, start.target_uri) is not None
        certainty.named = form.named and not is_guess
        certainty.contested = certainty.contested or request.contested
        # General evidence needs a name. The absence of similar records proves little.
        certainty.crowded = certainty.crowded or by_value
        self._open_tasks.touch(start)
        for key in start.rivals:
            rival = self._open_tasks.tasks.get(key)
            if rival is not None:
                rival.candidates += (start.parent,)
                if rival.parent:
                    start.candidates += (rival.parent,)
                self._open_tasks.touch(rival)


def _was_made_after(other: Task, start: Task) -> bool:
    """Return whether an earlier start record is that of a later task, by its id or its time."""
    if other.epoch and start.epoch and other.epoch != start.epoch:
        return other.epoch > start.epoch
    if is_number(other.task_id) and is_number(start.task_id):
        return int(other.task_id) > int(start.task_id)
    return other.start > start.start


def _is_possible(start: Task, request: PendingRequest) -> bool:
    """Return whether a request can have started a task at the time in its target_uri, if there is
    such a time.
    """
    epoch = start.epoch
    if not epoch or abs(start.start - epoch) > EPOCH_OFF_NANOS:
        return True
    return (request.time + NANOS + COARSE_NANOS) > epoch
