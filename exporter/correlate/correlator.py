r"""Which task belongs to which request, when it began, and how it ended.

Theory of operation
===================

Most lines carry no id that joins a task to its request, so joining means weighing evidence. A wrong match that says
it is exact is the worst bug of this program: whatever speaks against a match lowers its grade. `evidence.py` says
what a request and a target_uri have in common. The files of this folder say when that counts, in which order, and
how sure the match is:

    task_state.py       what waits and what runs: a pending request, a task, a pending end; the phases of a task
    certainty.py        what speaks for and against a match, and the grade that follows
    index.py            by what each of them is found
    end_candidates.py   which tasks a final record may end, and how the evidence narrows them
    start_matcher.py    how a start record and a request find each other
    request_records.py, start_records.py, pending_ends.py
                        what a record of each kind does when it is read
    task_ends.py        which task a final record ends
    open_tasks.py       which tasks are open, and which are too old
    settle_window.py    which records wait for a partner
    log_clock.py        how far the log has come, where some of its times are wrong
    failed_requests.py  requests that failed, and may have started a task all the same
    request_ids.py      requests that were named by their ids
    concurrent.py       which other requests came while a task ran
    ended_tasks.py            what is remembered of ended tasks
    error_evidence.py   what wok-error.log says: why a task failed, and when wokd was restarted
    stored.py           how the store keeps all this; former_state.py reads the version before

Nothing here reads a clock or a file. `Correlator.feed` takes records in the order of the log, `restart` takes the
starts of wokd, and `quiet` takes the wall clock of a reader that has caught up. Each returns events. `changes()`
returns what a batch has altered; a correlator that is made from the stored parts goes on as if nothing had
happened.

A *task* is opened in one of two ways:

    by a request    A request of the JSON dialect with status 202 opens its task at once. The final record that
                    ends it is found by the forms of its target_uri.
    by a start      A TASK record with status 1000 (the RFC's dialect, or an extended Wok in JSON). Its final record
                    is found by the task's id, or by the target_uri where it has none. It *seeks* its request by the
                    same forms. In the RFC's dialect it nearly always stands before the request's own line. In JSON
                    it takes over the task that its request has opened.

**Ids need no evidence.** A record that has a `request_id` is joined to that request, however late its line comes;
one that has a `parent_task_id` is a child of that task. A second task of a request is joined as well as the first.
A final record with an id ends its own task and no other.

**The settling window.** A final record decides nothing at once. More may arrive while its window is open: its
request's line, its own start, or a second final record with the error that the first one lacked. The window closes
with a record that is two seconds away in the log's own time, earlier or later, so that batches make no difference;
when caught up, after three seconds of the wall clock. What waits stands in one queue, in the order of the log.

**Evidence for and against.** What names the task is taken before what would only allow it. Where Wok puts the time
of the start into the target_uri, only a request whose line stands just behind that time can be the task's: others
are no candidates, however well the name fits. Digits that cannot be a time (before the log's own expiry, or after
the end) are only a name. Of several candidates the newest before the final record is taken, and of starts and
requests that stand side by side the oldest. The others are named as candidates and marked *contested*: their own
matches are in doubt as well. A request that failed with 500 and no error may have started a task all the same, so it
contests the request that was tried again.

The phases of a task (`task_state.TRANSITIONS`):

    SEEKING --request found--> JOINED --window closes--> RUNNING --final record--> OVER: success | failure
       |                                                 ^  |  \
       '--window closes: no request is known ------------'  |   '--a start takes over--> OVER
                                                            |--wokd was restarted--> OVER: lost
                                                            '--too old--> OVER: unknown

A further final record of an ended task is a repeat, if the ended task is still remembered. So is a record without an
id that stands beside one with an id for the same target_uri: Wok's own. Where tasks have no request by nature (polls
of the update's progress, nested clones), each final record is a task of its own. A record that comes after the expiry
of its task is an orphan. Where a nested task has the same target_uri as its parent (a volume that is downloaded into
a pool that is no file system), the first success is the nested task's end.

wokd has been restarted when a mark says so (`ENGINE Bus STARTED` in wok-error.log), or when task ids start over.
Wok's counter begins at 1, two tasks can get one id within the same moment, and ids may be logged a little out of
order. So an id is a new wokd's if it was used two seconds ago or more and is not the newest, if it lies far below the
highest one, or if its task of the same target_uri still runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from exporter.correlate.concurrent import ConcurrentRequests
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
from exporter.correlate.settle_window import HOLD_NANOS, HOLD_QUIET_NANOS, SettleWindow
from exporter.correlate.shared_state import SharedState
from exporter.correlate.start_matcher import StartMatcher
from exporter.correlate.start_records import StartRecords
from exporter.correlate.stored import STATE_VERSION, from_json, record_from_json, task_of
from exporter.correlate.task_ends import TaskEnds
from exporter.correlate.task_state import PendingEnd, PendingRequest, Phase, Task, Waiting
from exporter.records import Event, OpenTask, Record, TaskRow
from exporter.wok.operations import Operations


class Changes(NamedTuple):
    """What has changed since the last call: tasks that opened or changed, keys of those that ended, and the
    small rest of the state as JSON text.
    """

    opened: Sequence[OpenTask]
    closed: Sequence[bytes]
    state: str


class Correlator:
    """The whole state of correlation, and the ways in which it moves.

    Times are nanoseconds. A method that moves it returns the events in the order in which they became
    certain. When storing what it has done fails, throw it away and make it again from the store.
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
            errors=self._errors,
            emit=self._events.append,
            expiry=expiry,
        )
        self._requests = RequestRecords(shared, code_of=code_of)
        self._starts = StartRecords(shared, self._restart)
        self._ends = TaskEnds(shared)
        self._restore(state, open_tasks, ended)

    # What moves it

    def feed(self, record: Record) -> list[Event]:
        """Take the next record of the log."""
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
        """Let the log go on to a record of another second."""
        self._time = time
        self._settling.pass_record(time)
        if not self._held.is_empty:
            self._held.pass_record(time)
        for mark in self._errors.pass_record(time):
            self._lose(mark)
        if self._clock.pass_record(time):
            self._tick()

    def restart(self, time: int) -> list[Event]:
        """Take a restart of wokd at `time` that is certain: whatever ran before it is lost."""
        self._lose(time)
        return self._take()

    def quiet(self, now: int) -> list[Event]:
        """Take the wall clock of a reader that has read everything there is."""
        self._settling.pass_quiet(now)
        self._held.pass_quiet(now)
        for mark in self._errors.pass_quiet(now):
            self._lose(mark)
        if self._clock.pass_wall(now):
            self._tick()
        return self._take()

    def finish(self) -> list[Event]:
        """Close every settling window: no further record will come (the end of a finished log)."""
        self._clock.finish()
        self._tick()
        self._settling.close_all()
        self._held.close_all()
        for mark in self._errors.all_restarts():
            self._lose(mark)
        self._ends.expire(self._clock.now)
        return self._take()

    def is_due(self, now: int) -> bool:
        """Tell whether `quiet` has something to do at this time of the wall clock, in nanoseconds."""
        settling = self._settling
        return (
            settling.is_due(now)
            or self._held.is_due(now)
            or self._errors.is_due(now)
            or self._open_tasks.is_due(settling.since(now))
        )

    def _tick(self) -> None:
        """End what has been open for too long, now that the clock has moved; it may have been set back."""
        now = self._clock.now
        if self._clock.was_ahead:
            self._open_tasks.set_back(now)
        # What waits may be the end of a task that is only just too old.
        self._ends.expire(self._settling.since(now))

    def _restart(self, time: int) -> None:
        """End what a former wokd ran: a start record shows that a new one has begun."""
        self._settling.close_all()
        self._ends.close_held(time)
        self._ends.lose(time, time)
        self._starts.task_ids = TaskIds({}, 0)

    def _lose(self, mark: int) -> None:
        """End what ran when wokd was restarted. A mark is believed a while later: what is newer goes on.

        A start of wokd takes longer than a second, so that all of the mark's own second is the new one's.
        """
        self._settling.close_before(mark)
        self._ends.close_held(mark)
        self._ends.lose(mark - 1, mark)
        self._starts.task_ids = TaskIds({}, 0)

    def _settle(self, waiting: Waiting) -> None:
        """Decide about what has waited long enough, and has not found its partner meanwhile."""
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
        """Return what has changed since the last call, for the store."""
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
            "settling": self._settling.to_json(),
            "held": self._held.to_json(),
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
        # In the order of the log, whatever they are: that is the order in which candidates are found.
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
        for waiting in settling:
            if waiting["is"] == "request":
                self._settling.add(requests[waiting["key"]])
            elif waiting["is"] == "end":
                final = from_json(PendingEnd, waiting)
                self._pending_ends.wait(final, self._open_tasks.tasks.get(bytes.fromhex(waiting["key"])))
                self._settling.add(final)
            elif bytes.fromhex(waiting["key"]) in self._open_tasks.tasks:
                # A damaged task was set aside by the store.
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
    """Make the stored tasks again. They share what is equal, as they did before: most of their memory are links."""
    links: dict[bytes, bytes] = {}
    for row in open_tasks:
        task = task_of(row._replace(app=sys.intern(row.app), operation=sys.intern(row.operation)))
        task.links = tuple([links.setdefault(link, link) for link in task.links])
        if task.asked is not None and (task.asked.key, task.asked.app) == (task.key, task.app):
            task.asked.key, task.asked.app = task.key, task.app
            task.asked.operation = sys.intern(task.asked.operation)
        yield task
