"""End tasks: by a final record, by a restart of wokd, or by age. Each task becomes one span.

A final record waits for its settling window. Its ids identify the task, or the correlator chooses
among the tasks whose request has a form of its target_uri. If no task fits, the record is a repeat
of an ended task, or an orphan.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from exporter.correlate.end_candidates import (
    NEAR_NANOS,
    Candidate,
    Candidates,
    candidates_of,
    likeliest,
    quoted_by,
)
from exporter.correlate.ended_tasks import ENDED_MAX, Ended, EndedTasks
from exporter.correlate.evidence import is_general, targets_of, values_of
from exporter.correlate.failure_reason import NO_REASON
from exporter.correlate.index import CANDIDATES_MAX
from exporter.correlate.pending_ends import end_key
from exporter.correlate.request_ids import known_request
from exporter.correlate.shared_state import SharedState
from exporter.correlate.task_state import PendingEnd, PendingRequest, Phase, Step, Task
from exporter.ids import task_span_id
from exporter.records import (
    Grade,
    Outcome,
    Record,
    TaskEnded,
    TaskRepeated,
    TaskRow,
    requests_between,
)
from exporter.wok.operations import uuid_bytes

OWN_STATUSES = frozenset({200, 400})
"""The statuses of the final records that Wok itself writes, without a start record."""
SHARED_MAX = 64
"""Number of values of other requests that are remembered with a request."""
EXPIRED_MAX = 256
"""Number of expired tasks that are remembered. Their late final records are not repeats of other
tasks."""


class TaskEnds:
    """The handler of final records whose settling window has closed, and of all other ends of
    tasks.
    """

    def __init__(self, shared: SharedState) -> None:
        self._operations = shared.operations
        self._index = shared.index
        self._open_tasks = shared.open_tasks
        self._concurrent = shared.concurrent
        self._start_matcher = shared.start_matcher
        self._failed_requests = shared.failed_requests
        self._request_ids = shared.request_ids
        self._pending_ends = shared.pending_ends
        self._held = shared.held
        self._errors = shared.errors
        self._emit = shared.emit
        self._expiry = shared.expiry
        self._ended = EndedTasks()
        self._expired: deque[tuple[str, ...]] = deque(maxlen=EXPIRED_MAX)

    # What a final record ends

    def settle(self, final: PendingEnd) -> None:
        """Close the window of a final record: end its task, or report that its task is unknown."""
        if final.is_held:
            assert final.task is not None
            if final.task.phase is not Phase.OVER:
                self._end(final.task, _outcome(final.record), final)
                return
            # A start record has taken the task over meanwhile: decide again.
            final.is_held, final.task = False, None
            self._settle_by_evidence(final)
            return
        earlier = final.earlier
        if earlier is not None:
            final.earlier = None
            if self._candidates(final).capacity > 1:
                self.settle(earlier)
            else:
                self._pending_ends.merge(final, earlier)
        final.reason = self._pending_ends.reason_of(final)
        self._pending_ends.forget(final)
        record = final.record
        if final.task is not None:
            self._errors.survived(final.task.start, final.time)
            if final.task.request_id and not final.task.origin:
                self._hold(final)
            else:
                self._end(final.task, _outcome(record), final)
        elif not self._is_told_by_id(final):
            self._settle_by_evidence(final)

    def _is_told_by_id(self, final: PendingEnd) -> bool:
        """Decide about a final record by its ids or those of another record.

        Return whether that was possible.
        """
        record = final.record
        if not record.task_id and not record.request_id:
            return self._is_beside_named(final)
        if self._repeat(final):
            return True
        asked = self._index.by_record(record.request_id) if record.request_id else None
        if asked is not None and not record.parent_task_id and self._may_be_asked_for(asked, record):
            form = asked.form_of("")
            candidate = Candidate(asked.seq, asked.time, asked.context, asked.task, asked, form)
            self._end_chosen(final, candidate, Candidates([candidate]))
            return True
        if not record.request_id and not record.parent_task_id:
            # A Wok that writes the RFC's statuses writes start records as well. The start of this
            # task is missing, and the record ends no other task.
            if record.status in OWN_STATUSES:
                return False
            self._orphan(final)
            return True
        parents = self._index.running(record.parent_task_id) if record.parent_task_id else []
        known = known_request(self._index, self._request_ids, self._concurrent, record.request_id)
        if parents:
            parent = parents[-1]
            self._orphan(final, parent.context, parent.request, "exact")
        elif known is not None and known.context:
            self._orphan(final, known.context, known.ordinal, "exact")
        else:
            self._orphan(final)
        return True

    def _is_beside_named(self, final: PendingEnd) -> bool:
        """Return whether another record with an id has reported this end.

        If so, this record becomes its repeat.
        """
        record = final.record
        for other in (*self._pending_ends.of(record), *self._held.waiting()):
            if (
                isinstance(other, PendingEnd)
                and other.record.task_id
                and abs(other.time - final.time) < NEAR_NANOS
                and end_key(other.record) == end_key(record)
            ):
                other.repeats += [record, *final.repeats]
                return True
        ended = self._ended.with_id(*end_key(record))
        if ended is None or abs(ended.time - final.time) >= NEAR_NANOS:
            return False
        self._tell_repeats(final, ended)
        return True

    def _may_be_asked_for(self, request: PendingRequest, record: Record) -> bool:
        """Return whether a final record's target_uri fits a request's own task."""
        if request.task is None and not request.failed:
            return False
        texts = {form.text for form in request.forms}
        if not texts or any(map(is_general, texts)):
            return True
        return any(target.text in texts for target in self._operations.targets(record.app, record.target_uri))

    def _settle_by_evidence(self, final: PendingEnd) -> None:
        record = final.record
        candidates = self._candidates(final)
        if not candidates.found:
            if self._is_late(record) or not self._repeat(final):
                self._orphan(final)
            return
        is_alone = len(candidates.found) == 1
        if not candidates.epoch and self._is_late(record):
            # The record may end an expired task, and not the task of a newer request.
            candidates = candidates._replace(is_sure=False)
        proved = _proved(final, candidates)
        everyone = candidates.found
        candidates = quoted_by(candidates, values_of(record.error_params), record.target_uri)
        chosen = self._choose(final, candidates)
        self._share(chosen, everyone, is_sure=candidates.is_quoted)
        if proved is not None and (not candidates.is_quoted or chosen is proved):
            self._end_chosen(final, proved, candidates, is_proved=True)
            return
        if not is_alone and final.seq < chosen.seq < final.second:
            # Both reports of a failure are written at the same time. Here the first may belong to
            # another task.
            candidates = candidates._replace(is_sure=False)
        self._end_chosen(final, chosen, candidates)

    def _candidates(self, final: PendingEnd) -> Candidates:
        return candidates_of(self._operations, self._index, final, expiry=self._expiry)

    def _choose(self, final: PendingEnd, candidates: Candidates) -> Candidate:
        """Choose a candidate.

        Mark the others as contested: their own matches are in doubt as well.
        """
        found = candidates.found
        # An accepted request has certainly started a task.
        accepted = [each for each in found if each.task is not None] or found
        timed = [each for each in accepted if each.form.timed]
        epoch = candidates.epoch if timed else 0
        chosen = likeliest(timed or accepted, epoch=epoch, seq=final.seq)
        # If a neighbour is the right one, what the neighbour is matched with later is wrong too.
        for each in candidates.neighbours:
            if each.request is not None:
                each.request.neighbour = True
                if each.request.task is not None:
                    self._open_tasks.touch(each.request.task)
        if len(found) > 1:
            self._start_matcher.contest([each.request for each in found if each.request is not None])
            for each in found:
                if each.request is None and each.task is not None:
                    each.task.certainty.contested = True
                    self._open_tasks.touch(each.task)
        return chosen

    def _share(self, chosen: Candidate, found: Iterable[Candidate], *, is_sure: bool) -> None:
        """Note which values of a chosen request no longer identify another one with the same form:
        the end may belong to that one.
        """
        if chosen.request is None:
            return
        values = [*chosen.request.shared, *(() if is_sure else chosen.request.values)]
        for each in found:
            request = each.request
            if request is not None and request is not chosen.request and values:
                request.shared = tuple(dict.fromkeys([*request.shared, *values]))[-SHARED_MAX:]
                if request.task is not None:
                    self._open_tasks.touch(request.task)

    def _end_chosen(
        self, final: PendingEnd, chosen: Candidate, candidates: Candidates, *, is_proved: bool = False
    ) -> None:
        """End the chosen task or its nested task, and grade the choice.

        `is_proved` means that wok-error.log identifies this task.
        """
        record, form, request = final.record, chosen.form, chosen.request
        task = chosen.task
        if task is None:
            assert request is not None
            task = self._task_of_failed(request)
        # A task of a start record without a known request has no context to list.
        others = tuple([each.context for each in candidates.found if each is not chosen and each.context])
        nested = task.end if task.end is not None and task.end.is_held else None
        if nested is not None:
            # The earlier final record ended the nested task, not this one.
            self._held.withdraw(nested)
            nested.task, task.end = None, None
            task.nested = True
            self._orphan(nested, task.context, task.request, "likely")
        elif chosen.expects_nested and not record.failed:
            task.nested = True
            self._open_tasks.touch(task)
            self._orphan(final, task.context, task.request, "likely")
            return
        if request is not None:
            is_again = form.repeats and self._ended.get((task.app, record.target_uri, "")) is not None
            is_sure = is_proved or (candidates.is_sure and not is_again and not _contradicts(final, chosen))
            is_sure = is_sure and chosen.task is not None
            certainty = task.certainty
            certainty.joined = True
            certainty.named = candidates.is_quoted or form.named or is_proved
            certainty.contested = request.contested and not candidates.is_quoted and not is_proved
            certainty.doubtful = not is_sure or form.nests or task.nested
            request.contested = certainty.contested
            task.candidates = others
        else:
            task.candidates += others
            # The task of this record may be another one, whose start is missing.
            task.certainty.doubtful = task.certainty.doubtful or final.seq < chosen.seq
        start = candidates.epoch if form.timed else 0
        if start and task.certainty.grade == "exact":
            self._errors.survived(start, final.time)
        task.start = min(start or task.start, final.time)
        task.target_uri = record.target_uri
        if form.may_nest and nested is None:
            final.ends(task)
            self._hold(final)
            return
        self._end(task, _outcome(record), final)

    def _hold(self, final: PendingEnd) -> None:
        """Let the end of a known task wait for a record of its nested task, or for the line of the
        request that its start has named.
        """
        assert final.task is not None
        final.is_held = True
        self._held.add(final)
        self._open_tasks.touch(final.task)

    def _task_of_failed(self, request: PendingRequest) -> Task:
        """Return the task that a failed request has started."""
        trace_id = request.context[:16]
        file, offset = request.key[:16], int.from_bytes(request.key[16:], "big")
        task = Task(
            key=request.key,
            seq=request.seq,
            app=request.app,
            start=request.time,
            since=request.ordinal,
            by_start=False,
            context=trace_id + task_span_id(trace_id, file, offset),
            parent=request.context,
            origin=request.context,
            operation=request.operation,
            request=request.ordinal,
            counted=False,
            asked=request,
        )
        self._failed_requests.remove(request)
        self._concurrent.begin(task)
        return task

    def _repeat(self, final: PendingEnd) -> bool:
        """Report a further final record in the context of its ended task, if that task is
        remembered.
        """
        record = final.record
        if not record.task_id and self._operations.is_unlogged(record.app, record.target_uri):
            return False
        ended = self._ended.get((*end_key(record), record.task_id))
        if ended is None or record.time - ended.time >= self._expiry:
            return False
        self._tell_repeats(final, ended)
        return True

    def _tell_repeats(self, final: PendingEnd, ended: Ended) -> None:
        for record in (final.record, *final.repeats):
            self._emit(TaskRepeated(record, ended.operation, ended.context, ended.parent))

    def _is_late(self, record: Record) -> bool:
        """Return whether a final record may belong to a task that has expired."""
        earliest = record.time - self._expiry
        if not self._expired and not self._open_tasks.may_have_started_by(earliest):
            return False
        texts = [target.text for target in targets_of(self._operations, record.app, record.target_uri)]
        for text in texts:
            if any(
                request.task and request.time <= earliest
                for request in self._index.requests(record.app, text)
            ):
                return True
        for expired in self._expired:
            if expired[0] == record.app and not set(texts).isdisjoint(expired[1:]):
                self._expired.remove(expired)
                return True
        return False

    def _orphan(
        self, final: PendingEnd, parent: bytes = b"", request: int = 0, correlation: Grade = "none"
    ) -> None:
        """End a task that is known only from its final record, and from the parent that its ids
        name.
        """
        record = final.record
        trace_id = parent[:16] or uuid_bytes(record.request_id) or record.trace_id
        context = trace_id + task_span_id(trace_id, record.file, record.offset)
        operation = self._operations.of_target(record.app, record.target_uri)
        reason = final.reason or NO_REASON
        start = reason.start or record.time
        end = max(start, record.time)
        self._ended.add((*end_key(record), record.task_id), end, context, parent, operation)
        self._request_ids.add(record.request_id, b"", 0, is_claimed=not record.parent_task_id)
        self._emit(
            TaskEnded(
                context=context,
                parent=parent,
                app=record.app,
                operation=operation,
                target_uri=record.target_uri,
                task_id=record.task_id,
                start=start,
                end=end,
                reported=record.time,
                outcome=_outcome(record),
                correlation=correlation,
                record=record,
                concurrent=0,
                links=(),
                candidates=(),
                counts_start=True,
                request=request,
                since=final.until,
                until=final.until,
                found_id=reason.task_id,
                exception=reason.exception,
                exception_text=reason.text,
                stack=reason.stack,
            )
        )
        for repeat in final.repeats:
            self._emit(TaskRepeated(repeat, operation, context, parent))

    # Other ends

    def close_held(self, time: int) -> None:
        """End the held tasks after a restart of wokd: the record that would identify a nested task
        will not come.
        """
        for final in self._held.waiting():
            if isinstance(final, PendingEnd) and final.task is not None and final.time < time:
                final.task.certainty.doubtful |= not final.task.by_start
        self._held.close_before(time)

    def lose(self, time: int, mark: int) -> None:
        """End the tasks that had started by `time` as lost: wokd was restarted at `mark` and will
        reuse its task ids.
        """
        until = self._concurrent.ordinal if time == mark else self._concurrent.ordinal_before(mark)
        for task in self._open_tasks.started_by(time):
            if task.end is None:
                self._end(task, "lost", None, at=mark, until=until)
        self._failed_requests.forget(time)
        self._ended.restart()

    def expire(self, now: int) -> None:
        """End the tasks that have been open for too long as unknown."""
        for task in self._open_tasks.expired(now):
            if task.asked is not None:
                self._expired.append((task.app, *(form.text for form in task.asked.forms)))
            else:
                self._expired.append((task.app, task.target_uri))
            self._end(task, "unknown", None)
        self._failed_requests.expire(now)

    def _end(
        self, task: Task, outcome: Outcome, final: PendingEnd | None, at: int = 0, until: int = 0
    ) -> None:
        """Create the one span of a task, and forget the task."""
        reason = (final and final.reason) or NO_REASON
        reported = max(task.start, final.time if final is not None else at)
        start = reason.start or task.start
        end = max(start, reported)
        until = final.until if final is not None else max(task.since, until)
        if outcome == "unknown":
            end, until, reported = task.start, task.since, task.start + self._expiry
        own = task.request if task.since < task.request <= until else 0
        links = self._concurrent.links(task, until, own)
        grade = task.grade
        others: Sequence[bytes] = ()
        if grade == "ambiguous":
            others = [context for context in dict.fromkeys(task.candidates) if context != task.parent]
        task.take(Step.END)
        self._index.remove_running(task)
        if task.asked is not None:
            self._index.remove_request(task.asked)
            self._errors.over(task.asked, is_sure=final is None or grade == "exact")
            task.asked.task = None  # break the reference cycle
        self._open_tasks.close(task)
        self._concurrent.end(task)
        if task.request_id:
            is_claimed = not task.parent_task_id
            self._request_ids.add(task.request_id, task.origin, task.request, is_claimed=is_claimed)
        if final is not None:
            final.task = task.end = None  # and this one
        self._emit(
            TaskEnded(
                context=task.context,
                parent=task.parent,
                app=task.app,
                operation=task.operation,
                target_uri=task.target_uri,
                task_id=task.task_id,
                start=start,
                end=end,
                reported=reported,
                outcome=outcome,
                correlation=grade,
                record=final.record if final is not None else None,
                concurrent=max(0, requests_between(task.since, until) - (1 if own else 0)),
                links=links,
                candidates=others[:CANDIDATES_MAX],
                counts_start=task.asked is not None and task.asked.failed and not task.by_start,
                request=task.request,
                since=task.since,
                until=max(until, task.since),
                found_id=reason.task_id,
                exception=reason.exception,
                exception_text=reason.text,
                stack=reason.stack,
            )
        )
        if final is not None:
            key = (task.app, task.target_uri, task.task_id)
            self._ended.add(key, end, task.context, task.parent, task.operation)
            for repeat in final.repeats:
                self._emit(TaskRepeated(repeat, task.operation, task.context, task.parent))

    # The store

    @property
    def since_restart(self) -> int:
        """Number of tasks that ended since the last restart of wokd.

        The store keeps it with the tasks.
        """
        return self._ended.since_restart

    @property
    def expired_texts(self) -> list[Any]:
        """The applications and forms of expired tasks. The store keeps them with the tasks."""
        return list(self._expired)

    def restore(self, ended: Sequence[TaskRow], since_restart: int, expired: Iterable[Sequence[str]]) -> None:
        """Restore the ended and the expired tasks, oldest first."""
        for end in ended[-ENDED_MAX:]:
            key = (end.app, end.target_uri, end.task_id)
            self._ended.add(key, end.end, end.context, end.parent, end.operation)
        self._ended.restore(since_restart)
        self._expired.extend(map(tuple, expired))


def _proved(final: PendingEnd, candidates: Candidates) -> Candidate | None:
    """Return the candidate that wok-error.log identifies as the failed task, if any."""
    if final.reason is None or len(final.reason.requests) != 1:
        return None
    return next((each for each in candidates.found if each.context == final.reason.requests[0]), None)


def _contradicts(final: PendingEnd, chosen: Candidate) -> bool:
    """Return whether wok-error.log gives a start time that does not fit the chosen request."""
    requests = final.reason.requests if final.reason is not None else ()
    return bool(requests) and chosen.context not in requests


def _outcome(record: Record) -> Outcome:
    return "failure" if record.failed else "success"
