r"""Which task belongs to which request, when it began, and how it ended.

Theory of operation
===================

No line carries the id that would join a task to its request: joining is weighing evidence. `evidence.py` says
what a request and a target_uri have in common; this file says when, in which order, and how sure one may be.
Two decisions have files of their own: how a start record and a request find each other (`claims.py`), and which
task a final record ends (`ends.py`). What they share is kept by `ledger.py` (what is open), `settling.py` (what
waits), `meanwhile.py` (the other requests), `memory.py` (what has ended) and `index.py` (by what each is found).

Nothing here reads a clock or a file: `Correlator.feed` takes records in the order of the log, `restart` the marks
of wokd's starts, `quiet` the wall clock of a caught-up reader, and each returns events. The state is a value for
the store: `changes()` gives what a batch has altered, and a correlator made from the stored parts goes on as if
nothing had happened.

An *open task* begins in one of two ways:

    request    a request of the JSON dialect with status 202. Its task is open at once; what ends it is found by
               the forms of its target_uri.
    start      a TASK record with status 1000 (the RFC's dialect, or an extended Wok in JSON). It has a task id,
               which ends it, and *seeks* its request by the same forms: in the RFC's dialect the start nearly
               always stands before the request's own line. In JSON it claims the task that its request opened.

A final record (1001, 1002; 200, 400) does not decide at once. For the *settling window*, until a record two
seconds away has been read (three seconds of the wall clock when caught up), more may arrive: its request's
line, its own start, or a second final record that carries the error the first one lacked. The records wait in
one queue, in order; the window is measured on the log's own times, so batches make no difference. A clock that
is set back or forth closes the window too: a record two seconds away in either direction settles.

Grades (`wok.task.correlation`). `exact`: one candidate, and the evidence names it. `likely`: one candidate, but
others would have the same target_uri, or this kind of task is known to report again later. A start record that
stands beside its request with nothing like them near is as good as a name, and so is an error that quotes a
value of one request alone. `ambiguous`: there
were several; the newest before the final record is taken (of starts and requests that stand side by side: the
oldest), the others are named, and what remains of them is marked *contested*, for their matches are in doubt as
well. `none`: no request is known. An exact match that is wrong is the worst bug
this program can have, so every doubt lowers the grade.

The state machine of an open task:

    seeking --request claimed--> running --final--> settling --window over--> ended: success | failure
       |                            |  \
       '--window over: no request --'   '--wokd restarted--> lost        '--expiry--> unknown

A further final record of an ended task is a repeat, if the ended task is still remembered; where tasks have no
request by nature (polls of the update's progress, nested clones) it is a task of its own. A record that comes
after the expiry of its task is an orphan.

A restart is proved by a mark (`ENGINE Bus STARTED` in wok-error.log) or by a task id that starts over: Wok's
counter begins at 1, two tasks can be given one id within the same moment, and ids may be logged a little out of
order; an id that was used two seconds ago or more and is not the newest, or that lies far below the highest one,
is a new wokd's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from exporter.correlate.candidates import Index
from exporter.correlate.concurrent import ConcurrentRequests
from exporter.correlate.ended import TaskIds
from exporter.correlate.evidence import forms_of, targets_of, values_of
from exporter.correlate.open_tasks import OpenTaskTable
from exporter.correlate.settle_window import SETTLE_NANOS, SettleWindow
from exporter.correlate.start_matcher import StartMatcher, grade_of
from exporter.correlate.task_ends import TaskEnds
from exporter.correlate.task_state import (
    Open,
    PendingEnd,
    final_from_json,
    recent_from_json,
    record_from_json,
)
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

    def _settle(self, waiting: Open | PendingEnd) -> None:
        """Decide about what has waited long enough, and has not found its partner meanwhile."""
        if isinstance(waiting, PendingEnd):
            task = waiting.task
            if task is not None and task.waiting:
                self._settling.withdraw(task)
                self._settle_start(task)
            self._ends.settle(waiting)
        elif waiting.by_start:
            self._settle_start(waiting)
        else:
            self._index.remove(waiting)

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
            self._open(request)
        elif request.forms:
            self._index.add_request(request)
            self._settling.add(request)

    def _make_request(self, record: Record, context: bytes, operation: str) -> Open:
        request = Open(_key(record), self._seq, record.app, record.time)
        request.parent = context
        request.context = record.trace_id + task_span_id(record.trace_id, record.file, record.offset)
        request.operation = operation
        request.request = request.since = self._meanwhile.ordinal
        request.request_time = record.time
        request.request_id = record.record_id
        request.forms = forms_of(self._naming, record.app, record.code, operation, record.params)
        if request.forms and not request.forms[0].named:
            request.values = values_of(record.params)
        return request

    # Start records

    def _started(self, record: Record) -> None:
        if self._task_ids.starts_over(record.task_id, record.time, SETTLE_NANOS):
            self._restart(record.time)
        self._task_ids.use(record.task_id, record.time)
        task = Open(_key(record), self._seq, record.app, record.time)
        task.by_start = True
        task.seeking = True
        task.target_uri = record.target_uri
        task.task_id = record.task_id
        task.request_id = record.request_id
        task.texts = self._texts(task)
        task.since = self._meanwhile.ordinal
        task.record = record
        self._open(task)
        self._index.add_running(task)
        final = self._ends.waiting_for(record)
        if final is not None:
            final.ends(task)
        request = self._claims.take_request(task)
        if request is not None:
            self._index.remove(request)
            self._settling.withdraw(request)
            if request.key in self._ledger.tasks:
                task.counted = False  # the request's 202 has counted the start already
                self._ledger.close(request)
                self._meanwhile.end(request)
        self._index.add_start(task, task.texts)
        self._settling.add(task)

    def _settle_start(self, task: Open) -> None:
        """Close the window of a start: its request is known by now, or never will be."""
        self._index.remove_start(task, task.texts)
        record = task.record
        if record is None:
            return
        if task.seeking:
            task.seeking = task.contested = False
            task.operation = self._naming.of_target(task.app, task.target_uri)
            trace_id = record.trace_id
        else:
            trace_id = task.parent[:16]
            # With nothing like them near, a start beside its request is as good as a name.
            task.grade = grade_of(contested=task.contested, exact=task.named or not task.crowded)
        task.context = trace_id + task_span_id(trace_id, record.file, record.offset)
        task.record = None
        self._ledger.touch(task)
        self._events.append(
            TaskStarted(
                record, task.operation, task.context, task.parent, task.grade, task.start, task.counted
            )
        )

    def _texts(self, task: Open) -> tuple[str, ...]:
        """Return the forms by which a start seeks its request."""
        if task.request_id:
            return ("=" + task.request_id,)
        return tuple(target.text for target in targets_of(self._naming, task.app, task.target_uri))

    def _open(self, task: Open) -> None:
        self._ledger.open(task)
        self._meanwhile.begin(task)

    # The store

    def changes(self) -> Changes:
        """Return what has changed since the last call, for the store."""
        state = {
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
        recent = {
            waiting["row"][0]: recent_from_json(waiting)
            for waiting in kept["settling"]
            if waiting["is"] == "recent"
        }
        # In the order of the log, whatever they are: that is the order in which candidates are found.
        tasks = sorted(map(Open.from_row, open_tasks), key=lambda task: task.seq)
        for task in sorted([*tasks, *recent.values()], key=lambda task: task.seq):
            if task.by_start:
                self._index.add_running(task)
            else:
                self._index.add_request(task)
        for task in tasks:
            self._open(task)
        self._ledger.mark_stored()
        if not state:
            return
        self._seq = kept["seq"]
        self._clock = kept["clock"]
        self._previous = kept["previous"]
        self._task_ids = TaskIds(kept["task_ids"], kept["task_id_max"])
        self._meanwhile.restore(kept["ordinal"], kept["latest"])
        self._ends.restore(list(ended), kept["ended"])
        for waiting in kept["settling"]:
            if waiting["is"] == "recent":
                self._settling.add(recent[waiting["row"][0]])
            elif waiting["is"] == "final":
                final = final_from_json(waiting)
                self._ends.wait(final, self._ledger.tasks.get(bytes.fromhex(waiting["key"])))
                self._settling.add(final)
            else:
                self._settling.add(self._restored_start(waiting))

    def _restored_start(self, waiting: dict[str, Any]) -> Open:
        """Let a start seek its request again."""
        task = self._ledger.tasks[bytes.fromhex(waiting["key"])]
        task.record = record_from_json(waiting["record"])
        task.seeking = waiting["seeking"]
        task.texts = self._texts(task)
        self._index.add_start(task, task.texts)
        return task


def _key(record: Record) -> bytes:
    return record.file + record.offset.to_bytes(8, "big")
