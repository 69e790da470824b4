"""How a start record and a request find each other, while the window of either is open.

A start *seeks* its request by the forms of its target_uri; a request that has just been read takes the oldest start
that seeks it, a start that has just been read takes a request just before it. Nothing is decided for good here:
what the grade will be depends on who else was near (`crowded`) and who else could have been meant (`contested`).
"""

from __future__ import annotations

from collections.abc import Sequence

from exporter.correlate.candidates import Index
from exporter.correlate.open_tasks import OpenTaskTable
from exporter.correlate.task_state import PendingRequest, Phase, Step, Task
from exporter.wok.operations import Form


class StartMatcher:
    """Joins starts and requests of `index`; `ledger` has the open tasks, and is told which have changed.

    A request is near a start when their times differ by less than `near_nanos`.
    """

    def __init__(self, index: Index, ledger: OpenTaskTable, *, near_nanos: int) -> None:
        self._index = index
        self._ledger = ledger
        self._near_nanos = near_nanos

    def take_start(self, request: PendingRequest) -> Task | None:
        """Let a request that has just been read take the start that seeks it: the oldest, by its best form."""
        if request.record_id:
            for start in self._index.starts(request.app, "=" + request.record_id):
                if start.phase is Phase.SEEKING:
                    self._join(start, request, Form("", named=True))
                    return start
        for form in request.forms:
            starts = self._index.starts(request.app, form.text)
            seeking = [start for start in starts if start.phase is Phase.SEEKING]
            if len(starts) > 1 or not seeking:
                self._crowd(starts)
            if seeking:
                if len(seeking) > 1:
                    self._make_rivals(seeking)
                self._join(seeking[0], request, form)
                return seeking[0]
        return None

    def take_request(self, start: Task) -> PendingRequest | None:
        """Let a start that has just been read take a request just before it; return the one that is taken."""
        if start.request_id:
            request = self._index.by_record(start.request_id)
            if request is not None:
                self._join(start, request, Form("", named=True))
            return request
        for text in start.texts:
            others = self._index.starts(start.app, text)
            if others:
                self._crowd([*others, start])
            requests = [
                request
                for request in self._index.requests(start.app, text)
                if abs(request.time - start.start) < self._near_nanos
            ]
            if requests:
                if len(requests) > 1:
                    start.candidates = [request.context for request in requests[1:]]
                    self.contest(requests)
                self._join(start, requests[0], requests[0].form_of(text))
                return requests[0]
        return None

    def contest(self, requests: Sequence[PendingRequest]) -> None:
        """Mark requests whose tasks could as well have been each other's."""
        for request in requests:
            request.contested = True
            if request.task is not None:
                self._ledger.touch(request.task)

    def _crowd(self, starts: Sequence[Task]) -> None:
        for start in starts:
            start.certainty.crowded = True
            self._ledger.touch(start)

    def _make_rivals(self, starts: Sequence[Task]) -> None:
        for start in starts:
            start.certainty.contested = True
            self._ledger.touch(start)
            start.rivals = [rival.key for rival in starts if rival is not start]

    def _join(self, start: Task, request: PendingRequest, form: Form) -> None:
        start.take(Step.FIND_REQUEST)
        start.parent = request.context
        start.operation = request.operation
        start.request = request.ordinal
        certainty = start.certainty
        certainty.joined = certainty.beside = True
        certainty.named = form.named
        certainty.contested = certainty.contested or request.contested
        # General evidence needs a name: that nothing like it is near says little.
        certainty.crowded = certainty.crowded or form.text.startswith("~")
        self._ledger.touch(start)
        for key in start.rivals:
            rival = self._ledger.tasks.get(key)
            if rival is not None:
                rival.candidates.append(start.parent)
                if rival.parent:
                    start.candidates.append(rival.parent)
                self._ledger.touch(rival)
