"""Handle request records: create a span, match a waiting start record, or wait for task records."""

from __future__ import annotations

from collections.abc import Callable

from exporter.correlate.certainty import Certainty
from exporter.correlate.evidence import forms_of, values_of
from exporter.correlate.shared_state import SharedState
from exporter.correlate.task_state import PendingRequest, Phase, Task, record_key
from exporter.correlate.true_status import LOGGED
from exporter.ids import request_span_id, task_span_id
from exporter.records import Record, RequestSeen
from exporter.wok.operations import Form


class RequestRecords:
    """The handler of request records.

    `code_of` finds the message code of a sentence, for releases that wrote no codes.
    """

    def __init__(self, shared: SharedState, *, code_of: Callable[[str], str] | None) -> None:
        self._operations = shared.operations
        self._index = shared.index
        self._open_tasks = shared.open_tasks
        self._concurrent = shared.concurrent
        self._start_matcher = shared.start_matcher
        self._failed_requests = shared.failed_requests
        self._request_ids = shared.request_ids
        self._settling = shared.settling
        self._errors = shared.errors
        self._doubtful = shared.doubtful
        self._emit = shared.emit
        self._code_of = code_of

    def take(self, record: Record, seq: int) -> None:
        """Process the next request of the log, record number `seq`."""
        context = record.trace_id + request_span_id(record.trace_id, record.file, record.offset)
        self._concurrent.request(context, record.time)
        code = record.code
        if not code and self._code_of is not None:
            code = self._code_of(record.text)
        operation = self._operations.of_request(record.app, record.method, code, record.params, record.status)
        request, start, opens_task = None, record.time, False
        # A request that failed with 500 and no error may have started its task: Wok 3.0.0's
        # clean-up of old tasks raises after the thread has started. It opens no task by itself.
        is_accepted = record.status == 202
        may_start = is_accepted or (record.status == 500 and not record.error_code)
        if may_start or self._is_named(record.record_id):
            request = self._make_request(record, seq, context, operation)
            starter = self._take_start(request, by_forms=may_start)
            if starter is not None:
                start = min(starter.start, record.time)
            elif not self._is_claimed(request) and may_start:
                opens_task = is_accepted and record.dialect == "json"
                self._offer(request, record, opens_task=opens_task)
        seen = RequestSeen(record, operation, context, start, self._concurrent.ordinal, opens_task)
        if record.status == LOGGED:
            self._doubtful.take(seen)
        else:
            self._emit(seen)

    def _is_named(self, request_id: str) -> bool:
        """Return whether a task record has named this request.

        Then it has started a task, whatever its status is.
        """
        if not request_id:
            return False
        return bool(self._index.of_request(request_id)) or self._request_ids.get(request_id) is not None

    def _take_start(self, request: PendingRequest, *, by_forms: bool) -> Task | None:
        """Match a request with the start records that name it or, `by_forms`, seek it.

        Return its own task's start.
        """
        own: Task | None = None
        for task in self._index.of_request(request.record_id):
            if task.origin:
                continue
            if own is None and not task.parent_task_id:
                own = task
                if task.phase is Phase.SEEKING:
                    self._start_matcher.take_named(task, request)
                    continue
            self._start_matcher.link(task, request.context, request.ordinal)
        if own is not None or not by_forms or self._request_ids.get(request.record_id) is not None:
            return own
        own, former = self._start_matcher.take_start(request)
        if former is not None:
            self._offer_failed(former)
        return own

    def _is_claimed(self, request: PendingRequest) -> bool:
        """Return whether the task of a request has ended before the line of the request came."""
        known = self._request_ids.get(request.record_id)
        if known is None:
            return False
        self._request_ids.add(
            request.record_id, request.context, request.ordinal, is_claimed=known.is_claimed
        )
        return known.is_claimed

    def _offer(self, request: PendingRequest, record: Record, *, opens_task: bool) -> None:
        """Make a request available: with the task that it opens, or while its window is open."""
        if opens_task:
            self._index.add_request(request)
            self._errors.asked(request)
            task = self._task_asked_for(request, record)
            self._open_tasks.open(task)
            self._concurrent.begin(task)
        elif request.failed:
            self._offer_failed(request)
        elif request.forms:
            self._index.add_request(request)
            self._settling.add(request)

    def _offer_failed(self, request: PendingRequest) -> None:
        """Make a failed request available: to starts while its window is open, to final records for
        longer.
        """
        if not request.forms:
            return
        if request.record_id:
            self._failed_requests.add(request)
        else:
            self._index.add_request(request)
            self._settling.add(request)

    def _make_request(self, record: Record, seq: int, context: bytes, operation: str) -> PendingRequest:
        operations, app, code, params = self._operations, record.app, record.code, record.params
        is_failed = record.status != 202
        forms: tuple[Form, ...] = ()
        if not is_failed or operations.may_start_task(app, code, operation):
            forms = forms_of(operations, app, code, operation, params)
        return PendingRequest(
            key=record_key(record),
            seq=seq,
            app=app,
            time=record.time,
            context=context,
            operation=operation,
            ordinal=self._concurrent.ordinal,
            record_id=record.record_id,
            forms=forms,
            values=values_of(params) if forms and not forms[0].named else (),
            failed=is_failed,
        )

    def _task_asked_for(self, request: PendingRequest, record: Record) -> Task:
        """Return the task that a request has opened by itself."""
        request.task = Task(
            key=request.key,
            seq=request.seq,
            app=request.app,
            start=request.time,
            since=request.ordinal,
            by_start=False,
            context=record.trace_id + task_span_id(record.trace_id, record.file, record.offset),
            parent=request.context,
            origin=request.context,
            operation=request.operation,
            request=request.ordinal,
            certainty=Certainty(joined=True, named=True),
            asked=request,
        )
        return request.task
