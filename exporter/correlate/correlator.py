r"""Which task belongs to which request, when it began, and how it ended.

Theory of operation
===================

No line carries the id that would join a task to its request: joining is weighing evidence. `evidence.py` says
what a request and a target_uri have in common; this file says when, in which order, and how sure one may be.
Everything that decides about tasks is here, and nothing here reads a clock or a file: `Correlator.feed` takes
records in the order of the log, `restart` the marks of wokd's starts, `quiet` the wall clock of a caught-up
reader, and each returns events. The state is a value for the store: `changes()` gives what a batch has altered,
and a correlator made from the stored parts goes on as if nothing had happened.

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

import heapq
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from exporter.correlate.claims import Claims
from exporter.correlate.evidence import (
    Target,
    general_forms,
    general_targets,
    is_requestless,
    of_request,
    of_target,
    values_of,
)
from exporter.correlate.index import CANDIDATES_MAX, Candidates, Index, form_of, possible_at, quoted_by
from exporter.correlate.memory import ENDED_MAX, EndedTasks, TaskIds
from exporter.correlate.running import (
    Final,
    Open,
    final_from_json,
    recent_from_json,
    record_from_json,
    waiting_to_json,
)
from exporter.identity import request_span_id, task_span_id
from exporter.records import (
    NANOS,
    Event,
    Grade,
    OpenTask,
    Outcome,
    Record,
    RequestSeen,
    TaskEnded,
    TaskRepeated,
    TaskRow,
    TaskStarted,
)

SETTLE_NANOS = 2 * NANOS
"""A record this far away in the log's time closes the settling window: the gap between a fast task's record and
its request's line was always under a second, and the log has whole seconds."""
SETTLE_QUIET_NANOS = 3 * NANOS
"""The same by the wall clock, when caught up: one second more, for the line that is just being written."""
SETTLING_MAX = 4096
"""Records that may wait at one time; above it the oldest settles early. Two seconds of the densest log have 200."""
LINKS_MAX = 32
"""Concurrent requests that a task's span links to; the count goes on."""
LATEST_MAX = LINKS_MAX + 1
"""Requests that are kept for tasks that have not seen so many yet: one more, for a task's own may be among them."""
EXPIRING_SLACK = 1024
"""Ended tasks that may lie among those whose expiry is awaited, beside as many as run."""


class Naming(Protocol):
    """How operations are named (`operations.Operations`)."""

    def of_request(
        self, app: str, method: str, code: str, params: Mapping[str, Any], status: int | None
    ) -> str:
        """Return the operation of a request."""

    def of_target(self, app: str, target_uri: str) -> str:
        """Return the operation of a task that is known by its target_uri alone."""


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
        naming: Naming,
        *,
        expiry: int,
        code_of: Callable[[str], str] | None = None,
        state: str = "",
        open_tasks: Iterable[OpenTask] = (),
        ended: Iterable[TaskRow] = (),
    ) -> None:
        self._naming = naming
        self._expiry = expiry
        self._code_of = code_of
        self._ordinal = 0
        self._seq = 0
        self._clock = 0
        self._previous = 0
        self._task_ids = TaskIds({}, 0)
        self._index = Index()
        self._open: dict[bytes, Open] = {}
        self._claims = Claims(self._index, self._open, self._touch, near_nanos=SETTLE_NANOS)
        self._finals: dict[tuple[str, str], list[Final]] = {}
        self._settling: deque[Open | Final] = deque()
        self._waiting = 0
        self._expiring: list[tuple[int, int, bytes]] = []
        self._latest: deque[bytes] = deque(maxlen=LATEST_MAX)
        self._filling: dict[int, Open] = {}
        self._ended = EndedTasks()
        self._dirty: dict[bytes, Open] = {}
        self._stored: set[bytes] = set()
        self._closed: list[bytes] = []
        self._events: list[Event] = []
        self._restore(state, open_tasks, ended)

    # What moves it

    def feed(self, record: Record) -> list[Event]:
        """Take the next record of the log."""
        time = record.time
        settling = self._settling
        while settling and abs(time - _time_of(settling[0])) >= SETTLE_NANOS:
            self._settle_next()
        # One record with a wrong time must not end all that runs: the clock is what two in a row have reached.
        self._tick(min(self._previous, time))
        self._previous = time
        self._seq += 1
        if record.kind == "request":
            self._request(record)
        elif record.kind == "started":
            self._started(record)
        else:
            self._finished(record)
        while self._waiting > SETTLING_MAX:
            self._settle_next()
        return self._take()

    def restart(self, time: int) -> list[Event]:
        """Take a mark of wokd's start at `time`: whatever ran before it is lost."""
        self._restart(time)
        return self._take()

    def quiet(self, now: int) -> list[Event]:
        """Take the wall clock of a reader that has read everything there is."""
        while self._settling and now - _time_of(self._settling[0]) >= SETTLE_QUIET_NANOS:
            self._settle_next()
        self._tick(now)
        return self._take()

    def finish(self) -> list[Event]:
        """Close every settling window: no further record will come (the end of a finished log)."""
        self._settle_all()
        return self._take()

    @property
    def due(self) -> int | None:
        """When, by the wall clock in nanoseconds, `quiet` will next have something to do."""
        times = []
        if self._settling:
            times.append(_time_of(self._settling[0]) + SETTLE_QUIET_NANOS)
        if self._expiring:
            times.append(self._expiring[0][0] + self._expiry)
        return min(times, default=None)

    # Requests

    def _request(self, record: Record) -> None:
        self._ordinal += 1
        context = record.trace_id + request_span_id(record.trace_id, record.file, record.offset)
        self._latest.append(context)
        filling = self._filling
        while filling and filling[next(iter(filling))].since + LATEST_MAX <= self._ordinal:
            task = filling.pop(next(iter(filling)))
            task.links = list(self._latest)
            self._touch(task)
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
        self._events.append(RequestSeen(record, operation, context, start, self._ordinal, opens_task))
        if request is None:
            return
        if opens_task:
            self._index.add_request(request)
            self._opened(request)
        elif request.forms:
            self._index.add_request(request)
            self._wait(request)

    def _make_request(self, record: Record, context: bytes, operation: str) -> Open:
        request = Open(_key(record), self._seq, record.app, record.time)
        request.parent = context
        request.context = record.trace_id + task_span_id(record.trace_id, record.file, record.offset)
        request.operation = operation
        request.request = request.since = self._ordinal
        request.request_time = record.time
        request.request_id = record.record_id
        request.forms = of_request(record.app, record.code, record.params) or general_forms(record.params)
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
        task.since = self._ordinal
        task.record = record
        self._opened(task)
        self._index.add_running(task)
        final = self._final_before(record)
        if final is not None:
            final.task = task
            task.final = final
        request = self._claims.take_request(task)
        if request is not None:
            self._index.remove(request)
            self._wait_no_more(request)
            if request.key in self._open:
                task.counted = False  # the request's 202 has counted the start already
                self._close(request)
        self._index.add_start(task, task.texts)
        self._wait(task)

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
            task.grade = _grade(contested=task.contested, exact=task.named or not task.crowded)
        task.context = trace_id + task_span_id(trace_id, record.file, record.offset)
        task.record = None
        self._touch(task)
        self._events.append(
            TaskStarted(
                record, task.operation, task.context, task.parent, task.grade, task.start, task.counted
            )
        )

    # Final records

    def _finished(self, record: Record) -> None:
        key = (record.app, record.target_uri)
        task = self._running(record) if record.task_id else None
        first = task.final if task is not None else self._first_of(record, self._finals.get(key, ()))
        if first is not None:
            self._second(first, record)
            return
        if task is None and record.task_id and self._repeat(record):
            return
        final = Final(record, self._seq, self._ordinal)
        self._finals.setdefault(key, []).append(final)
        self._wait(final)
        if task is not None:
            final.task = task
            task.final = final

    def _running(self, record: Record) -> Open | None:
        """Find the open task of a task id; two may share one, then the target_uri tells them apart."""
        for task in self._index.running(record.task_id):
            is_same = task.target_uri == record.target_uri or not record.target_uri
            if is_same and task.app == record.app and record.time - task.start < self._expiry:
                return task
        return None

    def _final_before(self, record: Record) -> Final | None:
        """Find a final record that was logged before its own start."""
        for final in self._finals.get((record.app, record.target_uri), ()):
            if final.task is None and final.record.task_id == record.task_id:
                return final
        return None

    def _first_of(self, record: Record, waiting: Sequence[Final]) -> Final | None:
        """Find the waiting final record of which this one is the second."""
        if record.task_id:
            same = (
                final for final in waiting if final.task is None and final.record.task_id == record.task_id
            )
            return next(same, None)
        if not record.error_code or is_requestless(record.target_uri):
            return None
        bare = [final for final in waiting if not final.record.task_id and not final.record.error_code]
        for final in reversed(bare):
            if final.record.failed:
                return final
        # A success is taken back only where no other task could have failed in the same moment.
        if len(bare) == 1 and len(self._candidates(record).tasks) <= 1:
            return bare[0]
        return None

    def _second(self, final: Final, record: Record) -> None:
        """Take a second final record within the window: the one with the error wins, the other is a repeat."""
        if record.error_code and not final.record.error_code:
            final.repeats.append(final.record)
            final.record = record
        else:
            final.repeats.append(record)

    def _candidates(self, record: Record) -> Candidates:
        """Return the open tasks that a final record may end, by the strongest form that has any."""
        if record.request_id:
            task = self._index.by_record(record.request_id)
            return Candidates([task] if task is not None else [])
        if record.task_id and record.dialect != "json":
            return Candidates([])  # its start would have been found by the id
        latest, earliest = record.time + SETTLE_NANOS, record.time - self._expiry
        for target in self._targets(record.app, record.target_uri):
            found = [
                task
                for task in self._index.requests(record.app, target.text)
                if task.key in self._open and earliest < task.request_time < latest
            ]
            if found:
                return possible_at(found, target, SETTLE_NANOS)
        return Candidates([])

    def _settle_final(self, final: Final) -> None:
        """Close the window of a final record: end its task, or find that it ends none that is known."""
        record = final.record
        key = (record.app, record.target_uri)
        waiting = self._finals[key]
        waiting.remove(final)
        if not waiting:
            del self._finals[key]
        outcome: Outcome = "failure" if record.failed else "success"
        task = final.task
        if task is not None:
            if task.waiting:
                self._wait_no_more(task)
                self._settle_start(task)
            self._end(task, outcome, final)
            return
        candidates = self._candidates(record)
        if not candidates.tasks:
            if not self._repeat(record):
                self._orphan(final)
            for repeat in final.repeats:
                self._repeat(repeat)
            return
        candidates = quoted_by(candidates, values_of(record.error_params), record.target_uri)
        task = self._choose(final, candidates)
        task.start = candidates.epoch or min(task.start, final.time)
        task.target_uri = record.target_uri
        self._end(task, outcome, final)

    def _choose(self, final: Final, candidates: Candidates) -> Open:
        """Choose the task that a final record ends, and grade the choice."""
        found = candidates.tasks
        # The newest that stands before: most tasks are short, and one that has been open for long has more likely
        # ended in silence than just now. What stands after is taken only where nothing stands before.
        task = min(found, key=lambda task: (task.seq > final.seq, abs(final.seq - task.seq)))
        form = form_of(task, candidates.text)
        if len(found) > 1:
            self._claims.contest(found)
            task.candidates = [other.parent for other in found if other is not task]
        is_again = form.repeats and self._ended.get((task.app, final.record.target_uri, "")) is not None
        is_named = candidates.is_quoted or form.named
        task.grade = _grade(
            contested=task.contested and not candidates.is_quoted,
            exact=is_named and candidates.is_sure and not form.nests and not is_again,
        )
        return task

    def _orphan(self, final: Final) -> None:
        """End a task of which nothing but its final record is known."""
        record = final.record
        context = record.trace_id + task_span_id(record.trace_id, record.file, record.offset)
        operation = self._naming.of_target(record.app, record.target_uri)
        self._ended.add((record.app, record.target_uri, record.task_id), context, b"", operation)
        self._events.append(
            TaskEnded(
                context=context,
                parent=b"",
                app=record.app,
                operation=operation,
                target_uri=record.target_uri,
                task_id=record.task_id,
                start=record.time,
                end=record.time,
                reported=record.time,
                outcome="failure" if record.failed else "success",
                correlation="none",
                record=record,
                concurrent=0,
                links=(),
                candidates=(),
                counts_start=True,
                request=0,
                since=final.until,
                until=final.until,
            )
        )

    def _repeat(self, record: Record) -> bool:
        """Put a further final record into the context of its ended task, if that is remembered."""
        if is_requestless(record.target_uri) and not record.task_id:
            return False
        ended = self._ended.get((record.app, record.target_uri, record.task_id))
        if ended is None:
            return False
        self._events.append(TaskRepeated(record, ended.operation, ended.context, ended.parent))
        return True

    # Ends

    def _end(self, task: Open, outcome: Outcome, final: Final | None, at: int = 0) -> None:
        """Make the one span of a task, and forget that it ran."""
        end = max(task.start, final.time if final is not None else at)
        until = final.until if final is not None else self._ordinal
        reported = end
        if outcome == "unknown":
            end, until, reported = task.start, task.since, task.start + self._expiry
        own = task.request if task.since < task.request <= until else 0
        links = self._links(task, until, own)
        others = [context for context in dict.fromkeys(task.candidates) if context != task.parent]
        self._index.remove(task)
        self._close(task)
        if final is not None:
            final.task = task.final = None  # a ring that only the garbage collector could free
        self._events.append(
            TaskEnded(
                context=task.context,
                parent=task.parent,
                app=task.app,
                operation=task.operation,
                target_uri=task.target_uri,
                task_id=task.task_id,
                start=task.start,
                end=end,
                reported=reported,
                outcome=outcome,
                correlation=task.grade,
                record=final.record if final is not None else None,
                concurrent=max(0, until - task.since - (1 if own else 0)),
                links=links,
                candidates=others[:CANDIDATES_MAX] if task.grade == "ambiguous" else (),
                counts_start=False,
                request=task.request,
                since=task.since,
                until=max(until, task.since),
            )
        )
        if final is not None:
            key = (task.app, task.target_uri, task.task_id)
            self._ended.add(key, task.context, task.parent, task.operation)
            for repeat in final.repeats:
                self._events.append(TaskRepeated(repeat, task.operation, task.context, task.parent))

    def _links(self, task: Open, until: int, own: int) -> list[bytes]:
        """Return the contexts of the first other requests between a task's start and its end."""
        links = task.links
        if task.seq in self._filling:
            # Ordinals have no gaps: what came after the task's start are the last so many.
            count = self._ordinal - task.since
            links = list(self._latest)[-count:] if count else []
        links = links[: until - task.since]
        if own and own - task.since <= len(links):
            del links[own - task.since - 1]
        return links[:LINKS_MAX]

    def _restart(self, time: int) -> None:
        self._settle_all()
        for task in sorted(self._open.values(), key=lambda task: task.seq):
            if task.start <= time:
                self._end(task, "lost", None, at=time)
        self._task_ids = TaskIds({}, 0)
        self._ended.restart()

    # Windows and clocks

    def _wait(self, waiting: Open | Final) -> None:
        self._settling.append(waiting)
        self._waiting += 1
        waiting.waiting = True

    def _wait_no_more(self, waiting: Open | Final) -> None:
        if waiting.waiting:
            waiting.waiting = False
            self._waiting -= 1

    def _settle_next(self) -> None:
        """Close the window of what has waited first, unless it has found its partner meanwhile."""
        waiting = self._settling.popleft()
        if not waiting.waiting:
            return
        self._wait_no_more(waiting)
        if isinstance(waiting, Final):
            self._settle_final(waiting)
        elif waiting.by_start:
            self._settle_start(waiting)
        else:
            self._index.remove(waiting)

    def _settle_all(self) -> None:
        while self._settling:
            self._settle_next()

    def _tick(self, now: int) -> None:
        """Let the log's clock move on, never back; end what has been open for too long."""
        if now <= self._clock:
            return
        self._clock = now
        expiring = self._expiring
        while expiring and expiring[0][0] + self._expiry <= now:
            _, seq, key = expiring[0]
            task = self._open.get(key)
            if task is not None and task.seq == seq:
                if task.final is not None or task.waiting:
                    break  # its end is being decided: look again when that is certain
                self._end(task, "unknown", None)
            heapq.heappop(expiring)

    # Bookkeeping

    def _targets(self, app: str, target_uri: str) -> Iterator[Target]:
        yield from of_target(target_uri)
        if self._naming.of_target(app, target_uri) == "other":
            yield from general_targets(target_uri)

    def _texts(self, task: Open) -> tuple[str, ...]:
        """Return the forms by which a start seeks its request."""
        if task.request_id:
            return ("=" + task.request_id,)
        return tuple(target.text for target in self._targets(task.app, task.target_uri))

    def _touch(self, task: Open) -> None:
        """Let a task that is kept by the store be kept anew."""
        if task.key in self._open:
            self._dirty[task.key] = task

    def _opened(self, task: Open) -> None:
        self._open[task.key] = task
        self._dirty[task.key] = task
        self._filling[task.seq] = task
        heapq.heappush(self._expiring, (task.start, task.seq, task.key))
        if len(self._expiring) > 2 * len(self._open) + EXPIRING_SLACK:
            # Most tasks end long before they expire: do not keep a day of them.
            self._expiring = [(each.start, each.seq, each.key) for each in self._open.values()]
            heapq.heapify(self._expiring)

    def _close(self, task: Open) -> None:
        self._open.pop(task.key, None)
        self._dirty.pop(task.key, None)
        self._filling.pop(task.seq, None)
        if task.key in self._stored:
            self._stored.discard(task.key)
            self._closed.append(task.key)

    def _take(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    # The store

    def changes(self) -> Changes:
        """Return what has changed since the last call, for the store."""
        opened = [task.to_row() for task in self._dirty.values()]
        self._stored.update(self._dirty)
        self._dirty = {}
        closed, self._closed = self._closed, []
        state = {
            "ordinal": self._ordinal,
            "seq": self._seq,
            "clock": self._clock,
            "previous": self._previous,
            "task_id_max": self._task_ids.highest,
            "task_ids": self._task_ids.used,
            "latest": [context.hex() for context in self._latest],
            "ended": self._ended.since_restart,
            "settling": [waiting_to_json(waiting) for waiting in self._settling if waiting.waiting],
        }
        return Changes(opened, closed, json.dumps(state, separators=(",", ":")))

    def _restore(self, state: str, open_tasks: Iterable[OpenTask], ended: Iterable[TaskRow]) -> None:
        kept: dict[str, Any] = json.loads(state) if state else {"settling": ()}
        recent = {
            waiting["row"][0]: recent_from_json(waiting)
            for waiting in kept["settling"]
            if waiting["is"] == "recent"
        }
        # In the order of the log, whatever they are: that is the order in which candidates are found.
        tasks = [Open.from_row(row) for row in open_tasks]
        for task in sorted([*tasks, *recent.values()], key=lambda task: task.seq):
            if task.by_start:
                self._index.add_running(task)
            else:
                self._index.add_request(task)
        for task in sorted(tasks, key=lambda task: task.seq):
            self._opened(task)
            if task.links:
                del self._filling[task.seq]
        self._stored.update(self._dirty)
        self._dirty = {}
        if not state:
            return
        self._ordinal = kept["ordinal"]
        self._seq = kept["seq"]
        self._clock = kept["clock"]
        self._previous = kept["previous"]
        self._task_ids = TaskIds(kept["task_ids"], kept["task_id_max"])
        self._latest.extend(bytes.fromhex(context) for context in kept["latest"])
        for end in list(ended)[-ENDED_MAX:]:
            self._ended.add((end.app, end.target_uri, end.task_id), end.context, end.parent, end.operation)
        self._ended.restore(kept["ended"])
        for waiting in kept["settling"]:
            if waiting["is"] == "recent":
                self._wait(recent[waiting["row"][0]])
            else:
                self._restore_waiting(waiting)

    def _restore_waiting(self, waiting: dict[str, Any]) -> None:
        if waiting["is"] == "final":
            final = final_from_json(waiting)
            self._finals.setdefault((final.record.app, final.record.target_uri), []).append(final)
            final.task = self._open.get(bytes.fromhex(waiting["key"]))
            if final.task is not None:
                final.task.final = final
            self._wait(final)
            return
        task = self._open[bytes.fromhex(waiting["key"])]
        task.record = record_from_json(waiting["record"])
        task.seeking = waiting["seeking"]
        task.texts = self._texts(task)
        self._index.add_start(task, task.texts)
        self._wait(task)


def _key(record: Record) -> bytes:
    return record.file + record.offset.to_bytes(8, "big")


def _time_of(waiting: Open | Final) -> int:
    return waiting.time if isinstance(waiting, Final) else waiting.start


def _grade(*, contested: bool, exact: bool) -> Grade:
    if contested:
        return "ambiguous"
    return "exact" if exact else "likely"
