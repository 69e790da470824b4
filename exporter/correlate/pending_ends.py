"""Final records whose settling window is open, and the records that report the same end.

Some operations report a failure twice, first without and then with the error. The two records are
written within milliseconds (27 ms at most on real logs), so they are nearly neighbours.

A task may also report success and then raise. Two such records can also be the ends of two tasks,
and the request of the second may still come. A record with an error therefore delays an earlier
final record that it may repeat. Both are decided when the window of the later one closes.
"""

from __future__ import annotations

from collections.abc import Sequence

from exporter.correlate.concurrent import ConcurrentRequests
from exporter.correlate.end_candidates import candidates_of, quoted_by
from exporter.correlate.ends_by_form import EndingTasks, EndsByForm
from exporter.correlate.error_evidence import ErrorEvidence
from exporter.correlate.evidence import values_of
from exporter.correlate.failure_reason import FailureReason
from exporter.correlate.index import Index
from exporter.correlate.settle_window import SettleWindow
from exporter.correlate.task_state import PendingEnd, Task, Waiting
from exporter.records import NANOS, Record
from exporter.wok.operations import Operations

REPORTS_APART = 16
"""Maximum distance of two reports of one failure, in records. The most that was seen is six, at 250
records a second."""


class PendingEnds:
    """The waiting final records by target_uri.

    A final record with a task id belongs to the open task with that id for `expiry` nanoseconds
    after its start.
    """

    def __init__(
        self,
        operations: Operations,
        index: Index,
        concurrent: ConcurrentRequests,
        settling: SettleWindow[Waiting],
        errors: ErrorEvidence,
        *,
        expiry: int,
    ) -> None:
        self._operations = operations
        self._index = index
        self._concurrent = concurrent
        self._settling = settling
        self._errors = errors
        self._expiry = expiry
        self._finals: dict[tuple[str, str], list[PendingEnd]] = {}
        self._by_form = EndsByForm(operations)

    def take(self, record: Record, seq: int) -> None:
        """Process the next final record, record number `seq`.

        It waits, or joins a record that already waits.
        """
        if has_reason(record):
            self._errors.failed(record)
        task = self._running(record) if record.task_id else None
        first = task.end if task is not None else self.waiting_for(record) if record.task_id else None
        if first is not None:
            self._add(first, record)
            return
        final = PendingEnd(record, record.time, seq, self._concurrent.ordinal)
        if not record.task_id:
            first = self._first_of(record)
            if first is not None and self._is_second_report(first, record, seq):
                first.second = seq
                self._add(first, record)
                return
            if first is not None:
                final.earlier = first
                self._settling.withdraw(first)
        self.wait(final, task)
        self._settling.add(final)

    def wait(self, final: PendingEnd, task: Task | None) -> None:
        """Add a final record whose window is open, and connect it with its task if an id identifies
        that.
        """
        if final.earlier is not None and final.earlier not in self._finals.get(
            end_key(final.earlier.record), ()
        ):
            self.wait(final.earlier, None)
        self._finals.setdefault(end_key(final.record), []).append(final)
        self._by_form.add(final)
        if task is not None:
            final.ends(task)

    def waiting_for(self, record: Record) -> PendingEnd | None:
        """Return a waiting final record with the same task id.

        It waits for its start or a second record.
        """
        if record.task_id:
            for final in self._finals.get(end_key(record), ()):
                if final.task is None and final.record.task_id == record.task_id:
                    return final
        return None

    def release(self, record: Record) -> list[PendingEnd]:
        """Disconnect the final records with this task id and target_uri: they belong to a task of a
        new wokd.
        """
        released = [
            final for final in self._finals.get(end_key(record), ()) if final.record.task_id == record.task_id
        ]
        for final in released:
            if final.task is not None:
                final.task.end = None
                final.task = None
        return released

    def of(self, record: Record) -> Sequence[PendingEnd]:
        """Return the waiting final records with the same target_uri."""
        return self._finals.get(end_key(record), ())

    def _running(self, record: Record) -> Task | None:
        """Return the open task with a task id.

        If two tasks share the id, the target_uri decides.
        """
        for task in self._index.running(record.task_id):
            is_same = task.target_uri == record.target_uri or not record.target_uri
            if is_same and task.app == record.app and record.time - task.start < self._expiry:
                return task
        return None

    def _first_of(self, record: Record) -> PendingEnd | None:
        """Return the waiting final record without an error that this one may repeat."""
        if not record.error_code or self._operations.is_unlogged(record.app, record.target_uri):
            return None
        waiting = self._finals.get(end_key(record), ())
        held = {id(final.earlier) for final in waiting}
        bare = [
            final
            for final in waiting
            if not final.record.task_id and not final.record.error_code and id(final) not in held
        ]
        for final in reversed(bare):
            if final.record.failed:
                return final
        return bare[0] if len(bare) == 1 else None

    def _is_second_report(self, first: PendingEnd, record: Record, seq: int) -> bool:
        """Return whether this operation is known to report a failure twice, and these records are
        near enough to each other.
        """
        if not first.record.failed or not self._operations.reports_twice(record.app, record.target_uri):
            return False
        apart, late = seq - first.seq, abs(record.time - first.record.time)
        if apart == 1:
            return late <= NANOS  # a second may end between them
        if late or apart > REPORTS_APART:
            return False
        return apart == 2 or not self._is_of_newer(first, record)

    def _is_of_newer(self, first: PendingEnd, record: Record) -> bool:
        """Return whether an error quotes a request that came after a first report, while another
        task may have made that report.
        """
        candidates = candidates_of(self._operations, self._index, first, expiry=self._expiry)
        quoted = quoted_by(candidates, values_of(record.error_params), record.target_uri)
        return quoted.is_quoted and candidates.capacity > 1 and quoted.found[0].seq > first.seq

    def _add(self, final: PendingEnd, record: Record) -> None:
        """Add a second final record of the same end.

        The one with the error counts, the other is a repeat.
        """
        if not record.error_code or final.record.error_code:
            self._repeats(final, record)
            return
        self._repeats(final, final.record)
        if end_key(record) == end_key(final.record) or final.is_held:
            final.record = record
        else:
            # Only the task id connects the two records: one of them has no target_uri.
            self.forget(final)
            final.record, final.targets = record, ()
            self.wait(final, final.task)

    def _repeats(self, final: PendingEnd, record: Record) -> None:
        """Add a record as a repeat of a waiting end. A repeat has no reason of its own."""
        final.repeats.append(record)
        if has_reason(record):
            self._errors.withdraw(record)

    def reason_of(self, final: PendingEnd) -> FailureReason | None:
        """Return what wok-error.log says about a final record whose window closes."""
        if not has_reason(final.record):
            return None
        return self._errors.reason_of(final.record, EndingTasks(final.record.time, self._by_form))

    def merge(self, final: PendingEnd, earlier: PendingEnd) -> None:
        """Combine an earlier final record and this one into one end."""
        self.forget(earlier)
        for record in (earlier.record, *earlier.repeats):
            if has_reason(record):
                self._errors.withdraw(record)
        final.repeats = [*earlier.repeats, earlier.record, *final.repeats]
        final.time, final.seq, final.until = earlier.time, earlier.seq, earlier.until

    def forget(self, final: PendingEnd) -> None:
        """Remove a final record."""
        self._by_form.remove(final)
        key = end_key(final.record)
        waiting = self._finals[key]
        waiting.remove(final)
        if not waiting:
            del self._finals[key]


def has_reason(record: Record) -> bool:
    """Return whether wok-error.log may explain this failure."""
    return record.failed and record.dialect == "json"


def end_key(record: Record) -> tuple[str, str]:
    """Return the key that final records of the same task share."""
    return record.app, record.target_uri
