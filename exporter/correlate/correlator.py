r"""Which task belongs to which request, when it began, and how it ended.

Theory of operation
===================

Most lines carry no id that joins a task to its request, so joining means weighing evidence. `evidence.py` says
what a request and a target_uri have in common. The files of this folder say when that counts, in which order, and
how sure the match is:

    task_state.py       what waits and what runs: a pending request, a task, a pending end; the phases of a task
    certainty.py        what speaks for and against a match, and the grade that follows
    candidates.py       by what each of them is found
    start_matcher.py    how a start record and a request find each other
    task_ends.py        which task a final record ends
    open_tasks.py       which tasks are open, and which are too old
    settle_window.py    which records wait for a partner
    concurrent.py       which other requests came while a task ran
    ended.py            what is remembered of ended tasks
    stored.py           how the store keeps all this

Nothing here reads a clock or a file. `Correlator.feed` takes records in the order of the log, `restart` takes the
starts of wokd, and `quiet` takes the wall clock of a reader that has caught up. Each returns events. `changes()`
returns what a batch has altered; a correlator that is made from the stored parts goes on as if nothing had
happened.

A *task* is opened in one of two ways:

    by a request    A request of the JSON dialect with status 202 opens its task at once. The final record that
                    ends it is found by the forms of its target_uri.
    by a start      A TASK record with status 1000 (the RFC's dialect, or an extended Wok in JSON) has a task id,
                    by which its final record is found. It *seeks* its request by the same forms. In the RFC's
                    dialect it nearly always stands before the request's own line. In JSON it takes over the task
                    that its request has opened.

A final record (1001, 1002; 200, 400) decides nothing at once. More may arrive while its *settling window* is open:
its request's line, its own start, or a second final record with the error that the first one lacked. The window
closes with a record that is two seconds away in the log's own time, earlier or later, so that batches make no
difference; when caught up, after three seconds of the wall clock. What waits stands in one queue, in the order of
the log.

Of several candidates the newest before the final record is taken, and of starts and requests that stand side by
side the oldest. The others are named as candidates and marked *contested*: their own matches are in doubt as well.

The phases of a task (`task_state.TRANSITIONS`):

    SEEKING --request found--> JOINED --window closes--> RUNNING --final record--> OVER: success | failure
       |                                                 ^  |  \
       '--window closes: no request is known ------------'  |   '--a start takes over--> OVER
                                                            |--wokd was restarted--> OVER: lost
                                                            '--too old--> OVER: unknown

A further final record of an ended task is a repeat, if the ended task is still remembered. Where tasks have no
request by nature (polls of the update's progress, nested clones), each final record is a task of its own. A record
that comes after the expiry of its task is an orphan.

wokd has been restarted when a mark says so (`ENGINE Bus STARTED` in wok-error.log), or when task ids start over.
Wok's counter begins at 1, two tasks can get one id within the same moment, and ids may be logged a little out of
order. So an id is a new wokd's if it was used two seconds ago or more and is not the newest, or if it lies far
below the highest one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from exporter.correlate.candidates import Index
from exporter.correlate.concurrent import ConcurrentRequests
from exporter.correlate.ended import TaskIds
from exporter.correlate.evidence import forms_of, targets_of, values_of
from exporter.correlate.former_state import modern_waiting
from exporter.correlate.open_tasks import OpenTaskTable
from exporter.correlate.settle_window import SETTLE_NANOS, SettleWindow
from exporter.correlate.start_matcher import StartMatcher
from exporter.correlate.stored import STATE_VERSION, from_json, record_from_json, task_of
from exporter.correlate.task_ends import TaskEnds
from exporter.correlate.task_state import PendingEnd, PendingRequest, Phase, Step, Task, Waiting
from exporter.ids import request_span_id, task_span_id
from exporter.records import Event, OpenTask, Record, RequestSeen, TaskRow, TaskStarted
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
        naming: Operations,
        *,
        expiry: int,
        code_of: Callable[[str], str] | None = None,
        state: str = "",
        open_tasks: Iterable[OpenTask] = (),
        ended: Iterable[TaskRow] = (),
    ) -> None:
        self._naming = naming
        self._code_of = code_of
        self._seq = 0
        self._clock = 0
        self._previous = 0
        self._events: list[Event] = []
        self._task_ids = TaskIds({}, 0)
        self._index = Index()
        self._ledger = OpenTaskTable(expiry)
        self._claims = StartMatcher(self._index, self._ledger, near_nanos=SETTLE_NANOS)
        self._meanwhile = ConcurrentRequests(self._ledger.touch)
        self._settling = SettleWindow(self._settle)
        self._ends = TaskEnds(
            naming,
            self._index,
            self._ledger,
            self._meanwhile,
            self._claims,
            self._events.append,
            expiry=expiry,
        )
        self._restore(state, open_tasks, ended)

    # What moves it

    def feed(self, record: Record) -> list[Event]:
        """Take the next record of the log."""
        time = record.time
        self._settling.pass_record(time)
        # One record with a wrong time must not end all that runs: the clock is what two in a row have reached.
        self._tick(min(self._previous, time))
        self._previous = time
        self._seq += 1
        if record.kind == "request":
            self._request(record)
        elif record.kind == "started":
            self._started(record)
        else:
            final = self._ends.take(record, self._seq)
            if final is not None:
                self._settling.add(final)
        return self._take()

    def restart(self, time: int) -> list[Event]:
        """Take a mark of wokd's start at `time`: whatever ran before it is lost."""
        self._restart(time)
        return self._take()

    def quiet(self, now: int) -> list[Event]:
        """Take the wall clock of a reader that has read everything there is."""
        self._settling.pass_quiet(now)
        self._tick(now)
        return self._take()

    def finish(self) -> list[Event]:
        """Close every settling window: no further record will come (the end of a finished log)."""
        self._settling.close_all()
        return self._take()

    @property
    def due(self) -> int | None:
        """When, by the wall clock in nanoseconds, `quiet` will next have something to do."""
        return min((due for due in (self._settling.due, self._ledger.due) if due is not None), default=None)

    def _tick(self, now: int) -> None:
        """Let the log's clock move on, never back; end what has been open for too long."""
        if now > self._clock:
            self._clock = now
            self._ends.expire(now)

    def _restart(self, time: int) -> None:
        self._settling.close_all()
        self._ends.lose(time)
        self._task_ids = TaskIds({}, 0)

    def _settle(self, waiting: Waiting) -> None:
        """Decide about what has waited long enough, and has not found its partner meanwhile."""
        if isinstance(waiting, PendingEnd):
            task = waiting.task
            if task is not None and task.waiting:
                self._settling.withdraw(task)
                self._settle_start(task)
            self._ends.settle(waiting)
        elif isinstance(waiting, Task):
            self._settle_start(waiting)
        else:
            self._index.remove_request(waiting)

    def _take(self) -> list[Event]:
        events = self._events.copy()
        self._events.clear()
        return events

    # Requests

    def _request(self, record: Record) -> None:
        context = record.trace_id + request_span_id(record.trace_id, record.file, record.offset)
        self._meanwhile.request(context)
        code = record.code
        if not code and self._code_of is not None:
            code = self._code_of(record.text)
        operation = self._naming.of_request(record.app, record.method, code, record.params, record.status)
        is_accepted = record.status == 202
        request, start = None, record.time
        # A 500 without an error may have started its task all the same (Wok 3.0.0's clean-up of old tasks raises
        # after the thread has begun): a start record may claim it, but it opens nothing by itself.
        if is_accepted or (record.status == 500 and not record.error_code):
            request = self._make_request(record, context, operation)
            starter = self._claims.take_start(request)
            if starter is not None:
                request, start = None, min(starter.start, record.time)
        opens_task = request is not None and is_accepted and record.dialect == "json"
        self._events.append(
            RequestSeen(record, operation, context, start, self._meanwhile.ordinal, opens_task)
        )
        if request is None:
            return
        if opens_task:
            self._index.add_request(request)
            self._open(self._task_asked_for(request, record))
        elif request.forms:
            self._index.add_request(request)
            self._settling.add(request)

    def _make_request(self, record: Record, context: bytes, operation: str) -> PendingRequest:
        forms = forms_of(self._naming, record.app, record.code, operation, record.params)
        return PendingRequest(
            key=_key(record),
            seq=self._seq,
            app=record.app,
            time=record.time,
            context=context,
            operation=operation,
            ordinal=self._meanwhile.ordinal,
            record_id=record.record_id,
            forms=forms,
            values=values_of(record.params) if forms and not forms[0].named else (),
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
            operation=request.operation,
            request=request.ordinal,
            asked=request,
        )
        return request.task

    # Start records

    def _started(self, record: Record) -> None:
        if self._task_ids.starts_over(record.task_id, record.time, SETTLE_NANOS):
            self._restart(record.time)
        self._task_ids.use(record.task_id, record.time)
        task = Task(
            key=_key(record),
            seq=self._seq,
            app=record.app,
            start=record.time,
            since=self._meanwhile.ordinal,
            by_start=True,
            target_uri=record.target_uri,
            task_id=record.task_id,
            request_id=record.request_id,
            phase=Phase.SEEKING,
            record=record,
        )
        task.texts = self._texts(task)
        self._open(task)
        self._index.add_running(task)
        final = self._ends.waiting_for(record)
        if final is not None:
            final.ends(task)
        request = self._claims.take_request(task)
        if request is not None:
            self._index.remove_request(request)
            self._settling.withdraw(request)
            if request.task is not None:
                task.counted = False  # the request's 202 has counted the start already
                request.task.take(Step.HAND_OVER)
                self._ledger.close(request.task)
                self._meanwhile.end(request.task)
        self._index.add_start(task)
        self._settling.add(task)

    def _settle_start(self, task: Task) -> None:
        """Close the window of a start: its request is known by now, or never will be."""
        self._index.remove_start(task)
        record = task.record
        if record is None:
            return
        if task.phase is Phase.SEEKING:
            task.operation = self._naming.of_target(task.app, task.target_uri)
            trace_id = record.trace_id
        else:
            trace_id = task.parent[:16]
        task.take(Step.CLOSE_WINDOW)
        task.context = trace_id + task_span_id(trace_id, record.file, record.offset)
        task.record = None
        self._ledger.touch(task)
        self._events.append(
            TaskStarted(
                record, task.operation, task.context, task.parent, task.grade, task.start, task.counted
            )
        )

    def _texts(self, task: Task) -> tuple[str, ...]:
        """Return the forms by which a start seeks its request."""
        if task.request_id:
            return ("=" + task.request_id,)
        return tuple(target.text for target in targets_of(self._naming, task.app, task.target_uri))

    def _open(self, task: Task) -> None:
        self._ledger.open(task)
        self._meanwhile.begin(task)

    # The store

    def changes(self) -> Changes:
        """Return what has changed since the last call, for the store."""
        state = {
            "version": STATE_VERSION,
            "ordinal": self._meanwhile.ordinal,
            "seq": self._seq,
            "clock": self._clock,
            "previous": self._previous,
            "task_id_max": self._task_ids.highest,
            "task_ids": self._task_ids.used,
            "latest": self._meanwhile.latest,
            "ended": self._ends.since_restart,
            "settling": self._settling.to_json(),
        }
        opened, closed = self._ledger.changes()
        return Changes(opened, closed, json.dumps(state, separators=(",", ":")))

    def _restore(self, state: str, open_tasks: Iterable[OpenTask], ended: Iterable[TaskRow]) -> None:
        kept: dict[str, Any] = json.loads(state) if state else {"settling": ()}
        settling = kept["settling"]
        if "version" not in kept:
            settling = [modern_waiting(waiting) for waiting in settling]
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
            self._open(task)
        asked = [task.asked for task in tasks if task.asked is not None]
        for request in sorted([*asked, *requests.values()], key=lambda request: request.seq):
            self._index.add_request(request)
        self._ledger.mark_stored()
        if not state:
            return
        self._seq = kept["seq"]
        self._clock = kept["clock"]
        self._previous = kept["previous"]
        self._task_ids = TaskIds(kept["task_ids"], kept["task_id_max"])
        self._meanwhile.restore(kept["ordinal"], kept["latest"])
        self._ends.restore(list(ended), kept["ended"])
        for waiting in settling:
            if waiting["is"] == "request":
                self._settling.add(requests[waiting["key"]])
            elif waiting["is"] == "end":
                final = from_json(PendingEnd, waiting)
                self._ends.wait(final, self._ledger.tasks.get(bytes.fromhex(waiting["key"])))
                self._settling.add(final)
            elif bytes.fromhex(waiting["key"]) in self._ledger.tasks:
                # A damaged task was set aside by the store.
                self._settling.add(self._restored_start(waiting))

    def _restored_start(self, waiting: dict[str, Any]) -> Task:
        """Let a start seek its request again."""
        task = self._ledger.tasks[bytes.fromhex(waiting["key"])]
        task.record = record_from_json(waiting["record"])
        if "seeking" in waiting:  # a state of the previous version
            task.phase = Phase.SEEKING if waiting["seeking"] else Phase.JOINED
        task.texts = self._texts(task)
        self._index.add_start(task)
        return task


def _key(record: Record) -> bytes:
    return record.file + record.offset.to_bytes(8, "big")


def _restored(open_tasks: Iterable[OpenTask]) -> Iterator[Task]:
    """Make the stored tasks again. They share what is equal, as they did before: most of their memory are links."""
    links: dict[bytes, bytes] = {}
    for row in open_tasks:
        task = task_of(row._replace(app=sys.intern(row.app), operation=sys.intern(row.operation)))
        task.links = [links.setdefault(link, link) for link in task.links]
        if task.asked is not None and (task.asked.key, task.asked.app) == (task.key, task.app):
            task.asked.key, task.asked.app = task.key, task.app
            task.asked.operation = sys.intern(task.asked.operation)
        yield task
