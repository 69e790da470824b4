"""Handle start records: open a task, match its request by id or by evidence, and detect restarts of
wokd.
"""

from __future__ import annotations

from collections.abc import Callable

from exporter.correlate.ended_tasks import TaskIds, is_number
from exporter.correlate.request_ids import known_request
from exporter.correlate.settle_window import SETTLE_NANOS
from exporter.correlate.shared_state import SharedState
from exporter.correlate.task_state import PendingEnd, PendingRequest, Phase, Step, Task, record_key
from exporter.ids import task_span_id
from exporter.records import Record, TaskStarted
from exporter.wok.operations import uuid_bytes


class StartRecords:
    """The handler of start records.

    `restart` is called with the time of each restart of wokd that a start record shows. `task_ids`
    are the ids that the current wokd has assigned.
    """

    def __init__(self, shared: SharedState, restart: Callable[[int], None]) -> None:
        self._operations = shared.operations
        self._index = shared.index
        self._open_tasks = shared.open_tasks
        self._concurrent = shared.concurrent
        self._start_matcher = shared.start_matcher
        self._failed_requests = shared.failed_requests
        self._request_ids = shared.request_ids
        self._settling = shared.settling
        self._pending_ends = shared.pending_ends
        self._errors = shared.errors
        self._emit = shared.emit
        self._restart = restart
        self.task_ids = TaskIds({}, 0)

    def take(self, record: Record, seq: int) -> None:
        """Process the next start record, record number `seq`."""
        early = self._begin_anew(record) if self._is_new_boot(record) else []
        self.task_ids.use(record.task_id, record.time)
        task = Task(
            key=record_key(record),
            seq=seq,
            app=record.app,
            start=record.time,
            since=self._concurrent.ordinal,
            by_start=True,
            target_uri=record.target_uri,
            task_id=record.task_id,
            request_id=record.request_id,
            parent_task_id=record.parent_task_id,
            phase=Phase.SEEKING,
            record=record,
        )
        self._let_seek(task)
        self._open_tasks.open(task)
        self._concurrent.begin(task)
        final = self._pending_ends.waiting_for(record)
        if final is not None:
            final.ends(task)
        if task.request_id:
            self._take_named_request(task)
        else:
            request = self._start_matcher.take_request(task)
            if request is not None:
                self._take_over(task, request)
        self._index.add_running(task)
        self._index.add_start(task)
        self._settling.add(task)
        for each in early:
            self._settling.add(each)
        self._let_wait(record)

    def _let_wait(self, record: Record) -> None:
        """Let final records without an id, which may end this start's task, wait for its window.

        The final record of a very short task may stand before the start. Both have the same second.
        """
        for final in self._pending_ends.of(record):
            is_named = bool(final.record.task_id) or final.task is not None
            if final.waiting and not is_named and record.time <= final.record.time:
                self._settling.withdraw(final)
                self._settling.add(final)

    def _is_new_boot(self, record: Record) -> bool:
        """Return whether a start record shows that wokd was restarted."""
        if self.task_ids.starts_over(record.task_id, record.time, SETTLE_NANOS):
            return True
        # Two threads can get the same id, but not for the same target_uri and not seconds apart.
        running = self._index.running(record.task_id)
        if not running or not is_number(record.task_id):
            return False
        return any(
            task.app == record.app
            and task.target_uri == record.target_uri
            and abs(record.time - task.start) >= SETTLE_NANOS
            for task in running
        )

    def _begin_anew(self, record: Record) -> list[PendingEnd]:
        """End the tasks of the previous wokd.

        Return the final records that belong to this start and keep waiting.
        """
        early = self._pending_ends.release(record)
        for final in early:
            self._settling.withdraw(final)
        self._restart(record.time)
        return early

    def _take_named_request(self, task: Task) -> None:
        """Match a start with the request whose id it has, or link it if the request belongs to
        another task.
        """
        request = self._index.by_record(task.request_id)
        if request is not None and not task.parent_task_id:
            self._start_matcher.take_named(task, request)
            self._take_over(task, request)
            return
        known = known_request(self._index, self._request_ids, self._concurrent, task.request_id)
        if known is not None and known.context:
            self._start_matcher.link(task, known.context, known.ordinal)

    def _take_over(self, task: Task, request: PendingRequest) -> None:
        """Replace the task that the request opened with the task of the start record."""
        self._index.remove_request(request)
        self._failed_requests.remove(request)
        self._settling.withdraw(request)
        if request.task is not None:
            task.counted = False  # the request's 202 has counted the start already
            request.task.take(Step.HAND_OVER)
            self._open_tasks.close(request.task)
            self._concurrent.end(request.task)
            self._errors.over(request, is_sure=True)
            request.task = None

    def settle(self, task: Task) -> None:
        """Close the window of a start. From now on only an id can find the request."""
        self._index.remove_start(task)
        record = task.record
        if record is None:
            return
        self._find_parent(task)
        if not task.operation:
            task.operation = self._operations.of_target(task.app, task.target_uri)
        trace_id = task.parent[:16] or uuid_bytes(task.request_id) or record.trace_id
        task.take(Step.CLOSE_WINDOW)
        task.context = trace_id + task_span_id(trace_id, record.file, record.offset)
        task.record = None
        self._open_tasks.touch(task)
        self._emit(
            TaskStarted(
                record, task.operation, task.context, task.parent, task.grade, task.start, task.counted
            )
        )

    def _find_parent(self, task: Task) -> None:
        """Make a nested task the child of the task that started it, if that one is known."""
        if not task.parent_task_id:
            return
        for parent in self._index.running(task.parent_task_id):
            if parent.context:
                task.parent = parent.context
                task.origin = task.origin or parent.origin
                task.request = task.request or parent.request
                task.certainty.joined = task.certainty.named = True

    def _let_seek(self, task: Task) -> None:
        """Set the forms by which a start seeks its request."""
        if task.request_id:
            task.texts = ("=" + task.request_id,)
            return
        targets = self._operations.targets(task.app, task.target_uri)
        task.texts = tuple([target.text for target in targets])
        task.epoch = max(target.epoch for target in targets)

    def wait_again(self, task: Task, record: Record) -> None:
        """Let a restored start wait for its request again."""
        task.record = record
        self._let_seek(task)
        self._index.add_start(task)
        self._settling.add(task)
