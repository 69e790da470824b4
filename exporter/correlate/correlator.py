r"""Match each task to its request, and find its start and its end.

Theory of operation
===================

Most lines carry no id that connects a task with its request. The correlator therefore weighs
evidence. A wrong match that is graded `exact` is the worst bug of this program, so everything that
speaks against a match lowers its grade. `evidence.py` defines what a request and a target_uri have
in common. The other files decide when evidence counts, in which order, and which grade follows:

    task_state.py       the values that change: pending request, task, pending end; phases of a task
    certainty.py        the evidence for and against a match, and the grade that follows from it
    index.py            look-ups of requests and tasks
    end_candidates.py   the tasks that a final record may end, and how evidence narrows the list
    start_matcher.py    how a start record and a request are matched
    request_records.py, start_records.py, pending_ends.py
                        the handlers of the three kinds of records
    ends_by_form.py     the waiting final records by the forms of their target_uri
    task_ends.py        the task that a final record ends
    open_tasks.py       the open tasks, and those that are too old
    settle_window.py    the queue of records that wait for a partner
    log_clock.py        the time that the log has reached, although some timestamps are wrong
    failed_requests.py  requests that failed but may have started a task
    request_windows.py  the first requests after each task
    request_ids.py      requests that task records have named by id
    concurrent.py       the other requests during a task
    doubtful_requests.py, true_status.py
                        requests that wait for their true status: wok-access.log
    ended_tasks.py      the ended tasks that are remembered
    error_evidence.py   wok-error.log: why a task failed, and when wokd was restarted
    stored.py           the stored form of this state; former_state.py reads the previous version

Nothing here reads a clock or a file. `Correlator.feed` takes the records in the order of the log.
`quiet` takes the wall clock when the reader has caught up. Each returns events. `changes()` returns
what a batch has changed. A correlator that is created from the stored state continues as if it had
never stopped.

There are two ways to open a task:

    by a request    A request in the JSON dialect with status 202 opens its task at once. The forms
                    of the target_uri identify the final record.
    by a start      A TASK record with status 1000 (the RFC's dialect, or an extended Wok in JSON)
                    opens a task. The task id identifies the final record, or the target_uri if
                    there is no id. The start *seeks* its request by the same forms. In the RFC's
                    dialect it nearly always stands before the line of its request. In JSON it
                    replaces the task that its request has opened.

**Ids need no evidence.** A record with a `request_id` belongs to that request, however late the
line of the request comes. A record with a `parent_task_id` is a child of that task. A request can
have several tasks. A final record with an id ends its own task and no other.

**The settling window.** The correlator decides about a final record only when its window closes.
Until then, more records may arrive: the line of the request, the start record, or a second final
record with the error that the first one lacks. A record that is two seconds away in log time,
earlier or later, closes the window. Log time makes the result independent of batches. When the
reader has caught up, three seconds of wall-clock time close the window. All waiting records are in
one queue, in the order of the log.

**Evidence for and against.** Evidence that names the task takes precedence over evidence that only
allows it. Wok puts the start time into some target_uris. Then only a request whose line stands just
behind that time is a candidate, however well the name of another one fits. Digits that cannot be a
time (older than the expiry, or after the end) are only a name. Of several candidates, the
correlator takes the newest one before the final record. Of starts and requests that stand side by
side, it takes the oldest. It lists the others as candidates and marks them *contested*, because
their own matches are in doubt as well. A request that failed with 500 and no error may have started
a task. It therefore contests the request that was tried again.

The phases of a task (`task_state.TRANSITIONS`):

    SEEKING --request--> JOINED --window closes--> RUNNING --final record--> OVER: success | failure
       |                                           ^  |  \
       '--window closes: no request is known ------'  |   '--a start takes over--> OVER
                                                      |--wokd was restarted--> OVER: lost
                                                      '--too old--> OVER: unknown

A further final record of an ended task is a repeat, if the ended task is still remembered. So is a
record without an id next to a record with an id for the same target_uri: Wok wrote it itself. Some
tasks never have a request (polls of an update's progress, nested clones). Each of their final
records is a task of its own. A record that comes after the expiry of its task is an orphan. A
nested task can have the same target_uri as its parent (a volume that is downloaded into a pool that
is not a file system). Then the first success is the end of the nested task.

A mark (`ENGINE Bus STARTED` in wok-error.log) or a counter of task ids that starts again shows a
restart of wokd. Wok's counter begins at 1. Two tasks can get the same id at the same moment, and
ids may be logged slightly out of order. An id therefore belongs to a new wokd in three cases: it
was used two seconds ago or more and is not the newest; it is far below the highest id; or its task
with the same target_uri still runs.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from exporter.correlate.concurrent import ConcurrentRequests
from exporter.correlate.doubtful_requests import DoubtfulRequests
from exporter.correlate.ended_tasks import TaskIds
from exporter.correlate.error_evidence import ErrorEvidence
from exporter.correlate.failed_requests import FailedRequests
from exporter.correlate.former_state import modern_state
from exporter.correlate.index import Index
from exporter.correlate.log_clock import LogClock
from exporter.correlate.open_tasks import OpenTaskTable
from exporter.correlate.pending_ends import PendingEnds
from exporter.correlate.request_ids import RequestIds
from exporter.correlate.request_records import RequestRecords
from exporter.correlate.request_windows import Windows
from exporter.correlate.settle_window import HOLD_NANOS, HOLD_QUIET_NANOS, SettleWindow
from exporter.correlate.shared_state import SharedState
from exporter.correlate.start_matcher import StartMatcher
from exporter.correlate.start_records import StartRecords
from exporter.correlate.stored import STATE_VERSION, from_json, record_from_json, task_of, waiting_to_json
from exporter.correlate.task_ends import TaskEnds
from exporter.correlate.task_state import PendingEnd, PendingRequest, Phase, Task, Waiting
from exporter.correlate.true_status import AnswerResult, AnswersBetween
from exporter.records import Event, OpenTask, Record, TaskRow
from exporter.wok.operations import Operations


class Changes(NamedTuple):
    """The changes since the last call: tasks that opened or changed, keys of tasks that ended, and
    the rest of the state as JSON text.
    """

    opened: Sequence[OpenTask]
    closed: Sequence[bytes]
    state: str


class Correlator:
    """The whole state of correlation.

    Times are nanoseconds. Methods that change the state return events in the order in which they
    became certain. If the result cannot be stored, discard the correlator and create it again from
    the store.
    """

    def __init__(
        self,
        operations: Operations,
        *,
        expiry: int,
        code_of: Callable[[str], str] | None = None,
        state: str = "",
        open_tasks: Iterable[OpenTask] = (),
        ended: Iterable[TaskRow] = (),
        errors: ErrorEvidence | None = None,
        answers_between: AnswersBetween | None = None,
    ) -> None:
        self._errors = errors or ErrorEvidence(operations, expiry=expiry)
        self._seq = 0
        self._time = 0
        self._clock = LogClock()
        self._events: list[Event] = []
        self._index = Index()
        self._open_tasks = OpenTaskTable(expiry)
        self._request_ids = RequestIds()
        self._failed_requests = FailedRequests(self._index, self._errors, expiry)
        self._concurrent = ConcurrentRequests(self._open_tasks.touch)
        self._settling = SettleWindow(self._settle)
        self._held = SettleWindow(self._settle, nanos=HOLD_NANOS, quiet_nanos=HOLD_QUIET_NANOS)
        self._doubtful = DoubtfulRequests(self._events.append, answers_between)
        self._pending_ends = PendingEnds(
            operations, self._index, self._concurrent, self._settling, self._errors, expiry=expiry
        )
        shared = SharedState(
            operations=operations,
            index=self._index,
            open_tasks=self._open_tasks,
            concurrent=self._concurrent,
            start_matcher=StartMatcher(operations, self._index, self._open_tasks),
            failed_requests=self._failed_requests,
            request_ids=self._request_ids,
            pending_ends=self._pending_ends,
            settling=self._settling,
            held=self._held,
            doubtful=self._doubtful,
            errors=self._errors,
            emit=self._events.append,
            expiry=expiry,
        )
        self._requests = RequestRecords(shared, code_of=code_of)
        self._starts = StartRecords(shared, self._restart)
        self._ends = TaskEnds(shared)
        self._restore(state, open_tasks, ended)

    # Input

    def feed(self, record: Record) -> list[Event]:
        """Process the next record of the log."""
        time = record.time
        if time != self._time:
            self._pass(time)
        self._seq += 1
        if record.kind == "request":
            self._requests.take(record, self._seq)
        elif record.kind == "started":
            self._starts.take(record, self._seq)
        else:
            self._pending_ends.take(record, self._seq)
        return self._take()

    def _pass(self, time: int) -> None:
        """Advance the log time to a record of another second."""
        self._time = time
        self._settling.pass_record(time)
        if not self._held.is_empty:
            self._held.pass_record(time)
        self._doubtful.pass_record(time)
        for mark in self._errors.pass_record(time):
            self._lose(mark)
        if self._clock.pass_record(time):
            self._tick()

    def quiet(self, now: int) -> list[Event]:
        """Advance the wall clock. Call this when the reader has read everything."""
        self._settling.pass_quiet(now)
        self._held.pass_quiet(now)
        self._doubtful.pass_quiet(now)
        for mark in self._errors.pass_quiet(now):
            self._lose(mark)
        if self._clock.pass_wall(now):
            self._tick()
        return self._take()

    def finish(self) -> list[Event]:
        """Close every settling window: the log is complete and no further record will come."""
        self._clock.finish()
        self._tick()
        self._settling.close_all()
        self._held.close_all()
        self._doubtful.close_all()
        for mark in self._errors.all_restarts():
            self._lose(mark)
        self._ends.expire(self._clock.now)
        return self._take()

    def is_due(self, now: int) -> bool:
        """Return whether `quiet` has something to do at this wall-clock time, in nanoseconds."""
        settling = self._settling
        return (
            settling.is_due(now)
            or self._held.is_due(now)
            or self._doubtful.is_due(now)
            or self._errors.is_due(now)
            or self._open_tasks.is_due(settling.since(now))
        )

    def shift_answers(self, nanos: int) -> None:
        """Set the difference between the times of wok-access.log and their true time."""
        self._doubtful.shift = nanos

    def take_answer_counts(self) -> Counter[AnswerResult]:
        """Return what wok-access.log has said of requests since the last call."""
        return self._doubtful.take_counts()

    def _tick(self) -> None:
        """Expire tasks after the log clock has moved, forward or back."""
        now = self._clock.now
        if self._clock.was_ahead:
            self._open_tasks.set_back(now)
        # A waiting final record may end a task that has only just become too old.
        self._ends.expire(self._settling.since(now))

    def _restart(self, time: int) -> None:
        """End the tasks of the previous wokd: a start record shows that a new one is running."""
        self._settling.close_all()
        self._ends.close_held(time)
        self._ends.lose(time, time)
        self._starts.task_ids = TaskIds({}, 0)

    def _lose(self, mark: int) -> None:
        """End the tasks that ran when wokd was restarted.

        A mark is confirmed some time later, so newer tasks continue. A start of wokd takes longer
        than a second, so the second of the mark belongs to the new wokd.
        """
        self._settling.close_before(mark)
        self._ends.close_held(mark)
        self._ends.lose(mark - 1, mark)
        self._starts.task_ids = TaskIds({}, 0)

    def _settle(self, waiting: Waiting) -> None:
        """Decide about an item whose window has closed without a partner."""
        if isinstance(waiting, PendingEnd):
            task = waiting.task
            if task is not None and task.waiting:
                self._settling.withdraw(task)
                self._starts.settle(task)
            self._ends.settle(waiting)
        elif isinstance(waiting, Task):
            self._starts.settle(waiting)
        else:
            self._index.remove_request(waiting)

    def _take(self) -> list[Event]:
        events = self._events.copy()
        self._events.clear()
        return events

    # The store

    def changes(self) -> Changes:
        """Return the changes since the last call, for the store."""
        state = {
            "version": STATE_VERSION,
            "ordinal": self._concurrent.ordinal,
            "seq": self._seq,
            "time": self._time,
            "clock": self._clock.to_json(),
            "task_id_max": self._starts.task_ids.highest,
            "task_ids": self._starts.task_ids.used,
            "latest": self._concurrent.latest,
            "latest_times": list(self._concurrent.times),
            "ended": self._ends.since_restart,
            "expired": self._ends.expired_texts,
            "failed": self._failed_requests.to_json(),
            "request_ids": self._request_ids.to_json(),
            "settling": [waiting_to_json(waiting) for waiting in self._settling.waiting()],
            "held": [waiting_to_json(waiting) for waiting in self._held.waiting()],
            "doubtful": self._doubtful.to_json(),
        }
        opened, closed = self._open_tasks.changes()
        return Changes(opened, closed, json.dumps(state, separators=(",", ":")))

    def _restore(self, state: str, open_tasks: Iterable[OpenTask], ended: Iterable[TaskRow]) -> None:
        kept: dict[str, Any] = json.loads(state) if state else {"settling": ()}
        if state and "version" not in kept:
            kept = modern_state(kept)
        settling = kept["settling"]
        requests = {
            waiting["key"]: from_json(PendingRequest, waiting)
            for waiting in settling
            if waiting["is"] == "request"
        }
        # Candidates are found in this order, so it must be the order of the log.
        tasks = sorted(_restored(open_tasks), key=lambda task: task.seq)
        for task in tasks:
            if task.by_start:
                self._index.add_running(task)
            self._open_tasks.open(task)
            self._concurrent.begin(task)
        asked = [task.asked for task in tasks if task.asked is not None and not task.by_start]
        failed = self._failed_requests.from_json(kept.get("failed", ()))
        is_failed = {request.seq for request in failed}
        for request in sorted([*asked, *requests.values(), *failed], key=lambda request: request.seq):
            if request.seq in is_failed:
                self._failed_requests.add(request)
            else:
                self._index.add_request(request)
                if request.task is not None and not request.failed:
                    self._errors.asked(request)
        self._open_tasks.mark_stored()
        if not state:
            return
        self._seq = kept["seq"]
        self._time = kept["time"]
        self._clock.restore(kept["clock"])
        self._request_ids.restore(kept["request_ids"])
        self._starts.task_ids = TaskIds(kept["task_ids"], kept["task_id_max"])
        self._concurrent.restore(kept["ordinal"], kept["latest"])
        self._concurrent.times.extend(kept.get("latest_times", ()))
        self._ends.restore(list(ended), kept["ended"], kept["expired"])
        if "doubtful" in kept:  # not in a state of the previous version
            self._doubtful.restore(kept["doubtful"])
        for waiting in settling:
            if waiting["is"] == "request":
                self._settling.add(requests[waiting["key"]])
            elif waiting["is"] == "end":
                final = from_json(PendingEnd, waiting)
                self._pending_ends.wait(final, self._open_tasks.tasks.get(bytes.fromhex(waiting["key"])))
                self._settling.add(final)
            elif bytes.fromhex(waiting["key"]) in self._open_tasks.tasks:
                # The store has removed damaged tasks.
                task = self._open_tasks.tasks[bytes.fromhex(waiting["key"])]
                if "seeking" in waiting:  # a state of the previous version
                    task.phase = Phase.SEEKING if waiting["seeking"] else Phase.JOINED
                self._starts.wait_again(task, record_from_json(waiting["record"]))
        for waiting in kept["held"]:
            final = from_json(PendingEnd, waiting)
            held_task = self._open_tasks.tasks.get(bytes.fromhex(waiting["key"]))
            if held_task is None:
                final.is_held = False
                self._pending_ends.wait(final, None)
                self._settling.add(final)
            else:
                final.ends(held_task)
                self._held.add(final)


def _restored(open_tasks: Iterable[OpenTask]) -> Iterator[Task]:
    """Recreate the stored tasks.

    Equal contexts and numbers share one object, as before they were stored: they use most of the
    memory of a task.
    """
    contexts: dict[bytes, bytes] = {}
    one = contexts.setdefault
    windows = Windows()
    for row in open_tasks:
        task = task_of(row._replace(app=sys.intern(row.app), operation=sys.intern(row.operation)))
        task.links = windows.of(tuple([one(link, link) for link in task.links]))
        task.parent, task.origin = one(task.parent, task.parent), one(task.origin, task.origin)
        asked = task.asked
        if asked is not None:
            asked.context = one(asked.context, asked.context)
            asked.operation = sys.intern(asked.operation)
            if (asked.key, asked.app, asked.seq) == (task.key, task.app, task.seq):
                asked.key, asked.app, asked.seq = task.key, task.app, task.seq
            if (asked.time, asked.ordinal) == (task.start, task.request):
                asked.time, asked.ordinal = task.start, task.request
        yield task
