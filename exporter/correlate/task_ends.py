"""How tasks end: by a final record, by a restart of wokd, by age; and the one span that each becomes.

A final record waits for its settling window. What it ends is known by its task id, or chosen among the open tasks
whose request has a form of its target_uri; where nothing fits it is a repeat of an ended task, or an orphan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from exporter.correlate.candidates import CANDIDATES_MAX, Candidates, Index, possible_at, quoted_by
from exporter.correlate.concurrent import ConcurrentRequests
from exporter.correlate.ended import ENDED_MAX, EndedTasks
from exporter.correlate.evidence import targets_of, values_of
from exporter.correlate.open_tasks import OpenTaskTable
from exporter.correlate.settle_window import SETTLE_NANOS
from exporter.correlate.start_matcher import StartMatcher
from exporter.correlate.task_state import PendingEnd, PendingRequest, Step, Task
from exporter.ids import task_span_id
from exporter.records import Event, Outcome, Record, TaskEnded, TaskRepeated, TaskRow
from exporter.wok.operations import Operations


class TaskEnds:
    """Ends the open tasks of `ledger`, which `index` finds; `tell` is given the events.

    `claims` is told which tasks could as well have been meant, `meanwhile` knows the requests. A final record is
    taken for a task's for `expiry` nanoseconds from its request or start.
    """

    def __init__(
        self,
        naming: Operations,
        index: Index,
        ledger: OpenTaskTable,
        meanwhile: ConcurrentRequests,
        claims: StartMatcher,
        tell: Callable[[Event], None],
        *,
        expiry: int,
    ) -> None:
        self._naming = naming
        self._index = index
        self._ledger = ledger
        self._meanwhile = meanwhile
        self._claims = claims
        self._tell = tell
        self._expiry = expiry
        self._finals: dict[tuple[str, str], list[PendingEnd]] = {}
        self._ended = EndedTasks()

    # Final records that wait

    def take(self, record: Record, seq: int) -> PendingEnd | None:
        """Take a final record, the log's `seq`th; return what is to wait for its window.

        None where the record belongs to one that waits already, or repeats the end of a task with an id.
        """
        task = self._running(record) if record.task_id else None
        first = task.end if task is not None else self._first_of(record)
        if first is not None:
            self._add(first, record)
            return None
        if task is None and record.task_id and self._repeat(record):
            return None
        final = PendingEnd(record, record.time, seq, self._meanwhile.ordinal)
        self.wait(final, task)
        return final

    def wait(self, final: PendingEnd, task: Task | None) -> None:
        """Remember a final record whose window is open, and the task that it ends where an id says so."""
        self._finals.setdefault(_key(final.record), []).append(final)
        if task is not None:
            final.ends(task)

    def waiting_for(self, record: Record) -> PendingEnd | None:
        """Find a final record of the same task id that waits, for its start or for a second one."""
        for final in self._finals.get(_key(record), ()):
            if final.task is None and final.record.task_id == record.task_id:
                return final
        return None

    def _running(self, record: Record) -> Task | None:
        """Find the open task of a task id; two may share one, then the target_uri tells them apart."""
        for task in self._index.running(record.task_id):
            is_same = task.target_uri == record.target_uri or not record.target_uri
            if is_same and task.app == record.app and record.time - task.start < self._expiry:
                return task
        return None

    def _first_of(self, record: Record) -> PendingEnd | None:
        """Find the waiting final record of which this one is the second."""
        if record.task_id:
            return self.waiting_for(record)
        if not record.error_code or self._naming.is_unlogged(record.app, record.target_uri):
            return None
        waiting = self._finals.get(_key(record), ())
        bare = [final for final in waiting if not final.record.task_id and not final.record.error_code]
        for final in reversed(bare):
            if final.record.failed:
                return final
        # A success is taken back only where no other task could have failed in the same moment.
        if len(bare) == 1 and len(self._candidates(record).requests) <= 1:
            return bare[0]
        return None

    def _add(self, final: PendingEnd, record: Record) -> None:
        """Take a second final record within the window: the one with the error wins, the other is a repeat."""
        if not record.error_code or final.record.error_code:
            final.repeats.append(record)
            return
        final.repeats.append(final.record)
        if _key(record) == _key(final.record):
            final.record = record
        else:
            # Joined by the task id alone: one of the two has no target_uri.
            self._forget(final)
            final.record = record
            self.wait(final, final.task)

    def _forget(self, final: PendingEnd) -> None:
        key = _key(final.record)
        waiting = self._finals[key]
        waiting.remove(final)
        if not waiting:
            del self._finals[key]

    # What a final record ends

    def settle(self, final: PendingEnd) -> None:
        """Close the window of a final record: end its task, or find that it ends none that is known."""
        record = final.record
        self._forget(final)
        if final.task is not None:
            self._end(final.task, _outcome(record), final)
            return
        candidates = self._candidates(record)
        if not candidates.requests:
            if not self._repeat(record):
                self._orphan(final)
            for repeat in final.repeats:
                self._repeat(repeat)
            return
        candidates = quoted_by(candidates, values_of(record.error_params), record.target_uri)
        task = self._choose(final, candidates)
        task.start = candidates.epoch or min(task.start, final.time)
        task.target_uri = record.target_uri
        self._end(task, _outcome(record), final)

    def _candidates(self, record: Record) -> Candidates:
        """Return the open tasks that a final record may end, by the strongest form that has any."""
        if record.request_id:
            request = self._index.by_record(record.request_id)
            return Candidates([request] if request is not None else [])
        if record.task_id and record.dialect != "json":
            return Candidates([])  # its start would have been found by the id
        latest, earliest = record.time + SETTLE_NANOS, record.time - self._expiry
        for target in targets_of(self._naming, record.app, record.target_uri):
            found = [
                request
                for request in self._index.requests(record.app, target.text)
                if request.task is not None and earliest < request.time < latest
            ]
            if found:
                return possible_at(found, target, SETTLE_NANOS)
        return Candidates([])

    def _choose(self, final: PendingEnd, candidates: Candidates) -> Task:
        """Choose the task that a final record ends, and say how sure the choice is."""
        found = candidates.requests
        request = found[0]
        others: list[PendingRequest] = []
        if len(found) > 1:
            # The newest that stands before: most tasks are short, and one that has been open for long has more
            # likely ended in silence than just now. What stands after is taken only where nothing stands before.
            request = min(found, key=lambda each: (each.seq > final.seq, abs(final.seq - each.seq)))
            self._claims.contest(found)
            others = [each for each in found if each is not request]
        task = request.task
        assert task is not None
        task.candidates = [other.context for other in others]
        form = request.form_of(candidates.text)
        is_again = form.repeats and self._ended.get((task.app, final.record.target_uri, "")) is not None
        certainty = task.certainty
        certainty.joined = True
        certainty.named = candidates.is_quoted or form.named
        certainty.contested = request.contested and not candidates.is_quoted
        certainty.doubtful = not candidates.is_sure or form.nests or is_again
        return task

    def _repeat(self, record: Record) -> bool:
        """Put a further final record into the context of its ended task, if that is remembered."""
        if self._naming.is_unlogged(record.app, record.target_uri) and not record.task_id:
            return False
        ended = self._ended.get((*_key(record), record.task_id))
        if ended is None:
            return False
        self._tell(TaskRepeated(record, ended.operation, ended.context, ended.parent))
        return True

    def _orphan(self, final: PendingEnd) -> None:
        """End a task of which nothing but its final record is known."""
        record = final.record
        context = record.trace_id + task_span_id(record.trace_id, record.file, record.offset)
        operation = self._naming.of_target(record.app, record.target_uri)
        self._ended.add((*_key(record), record.task_id), context, b"", operation)
        self._tell(
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
                outcome=_outcome(record),
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

    # Other ends

    def lose(self, time: int) -> None:
        """End as lost what had started when wokd was restarted at `time`; its task ids will be given again."""
        for task in self._ledger.started_by(time):
            self._end(task, "lost", None, at=time)
        self._ended.restart()

    def expire(self, now: int) -> None:
        """End as unknown what has been open for too long."""
        while (task := self._ledger.expired(now)) is not None:
            self._end(task, "unknown", None)

    def _end(self, task: Task, outcome: Outcome, final: PendingEnd | None, at: int = 0) -> None:
        """Make the one span of a task, and forget that it ran."""
        end = max(task.start, final.time if final is not None else at)
        until = final.until if final is not None else self._meanwhile.ordinal
        reported = end
        if outcome == "unknown":
            end, until, reported = task.start, task.since, task.start + self._expiry
        own = task.request if task.since < task.request <= until else 0
        links = self._meanwhile.links(task, until, own)
        others: Sequence[bytes] = ()
        if task.grade == "ambiguous":
            others = [context for context in dict.fromkeys(task.candidates) if context != task.parent]
        task.take(Step.END)
        self._index.remove_running(task)
        if task.asked is not None:
            self._index.remove_request(task.asked)
        self._ledger.close(task)
        self._meanwhile.end(task)
        if final is not None:
            final.task = task.end = None  # a ring that only the garbage collector could free
        self._tell(
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
                candidates=others[:CANDIDATES_MAX],
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
                self._tell(TaskRepeated(repeat, task.operation, task.context, task.parent))

    # The store

    @property
    def since_restart(self) -> int:
        """How many tasks have ended since wokd was last restarted: what the store keeps beside the tasks."""
        return self._ended.since_restart

    def restore(self, ended: Sequence[TaskRow], since_restart: int) -> None:
        """Remember the ended tasks again, oldest first."""
        for end in ended[-ENDED_MAX:]:
            self._ended.add((end.app, end.target_uri, end.task_id), end.context, end.parent, end.operation)
        self._ended.restore(since_restart)


def _key(record: Record) -> tuple[str, str]:
    return record.app, record.target_uri


def _outcome(record: Record) -> Outcome:
    return "failure" if record.failed else "success"
