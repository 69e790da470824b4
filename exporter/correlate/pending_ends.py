"""Final records that wait for their settling window, and which of them report one end.

Some operations report a failure twice, first without and then with the error, and a task may report its success and
then raise. Two such records may as well be the ends of two tasks, and the request of the second may yet come. So an
error that may belong to a final record before it holds that one back: both are decided when its own window closes.
"""

from __future__ import annotations

from collections.abc import Sequence

from exporter.correlate.concurrent import ConcurrentRequests
from exporter.correlate.index import Index
from exporter.correlate.settle_window import SettleWindow
from exporter.correlate.task_state import PendingEnd, Task
from exporter.records import Record
from exporter.wok.operations import Operations


class PendingEnds:
    """The final records that wait in `settling`, by their target_uris.

    A final record is taken for that of a task with its id for `expiry` nanoseconds from the start.
    """

    def __init__(
        self,
        naming: Operations,
        index: Index,
        meanwhile: ConcurrentRequests,
        settling: SettleWindow,
        *,
        expiry: int,
    ) -> None:
        self._naming = naming
        self._index = index
        self._meanwhile = meanwhile
        self._settling = settling
        self._expiry = expiry
        self._finals: dict[tuple[str, str], list[PendingEnd]] = {}

    def take(self, record: Record, seq: int) -> None:
        """Take the next final record, the log's `seq`th: it waits, or belongs to one that waits already."""
        task = self._running(record) if record.task_id else None
        first = task.end if task is not None else self.waiting_for(record) if record.task_id else None
        if first is not None:
            self._add(first, record)
            return
        final = PendingEnd(record, record.time, seq, self._meanwhile.ordinal)
        if not record.task_id:
            first = self._first_of(record)
            if first is not None and self._is_second_report(first, record):
                first.second = seq
                self._add(first, record)
                return
            if first is not None:
                final.earlier = first
                self._settling.withdraw(first)
        self.wait(final, task)
        self._settling.add(final)

    def wait(self, final: PendingEnd, task: Task | None) -> None:
        """Remember a final record whose window is open, and the task that it ends where an id says so."""
        if final.earlier is not None and final.earlier not in self._finals.get(
            end_key(final.earlier.record), ()
        ):
            self.wait(final.earlier, None)
        self._finals.setdefault(end_key(final.record), []).append(final)
        if task is not None:
            final.ends(task)

    def waiting_for(self, record: Record) -> PendingEnd | None:
        """Find a final record of the same task id that waits, for its start or for a second one."""
        if record.task_id:
            for final in self._finals.get(end_key(record), ()):
                if final.task is None and final.record.task_id == record.task_id:
                    return final
        return None

    def release(self, record: Record) -> list[PendingEnd]:
        """Let the final records of this task id and target_uri wait for the start of a new wokd's task."""
        released = [
            final for final in self._finals.get(end_key(record), ()) if final.record.task_id == record.task_id
        ]
        for final in released:
            if final.task is not None:
                final.task.end = None
                final.task = None
        return released

    def of(self, record: Record) -> Sequence[PendingEnd]:
        """Return the final records of the same target_uri that wait."""
        return self._finals.get(end_key(record), ())

    def _running(self, record: Record) -> Task | None:
        """Find the open task of a task id; two may share one, then the target_uri tells them apart."""
        for task in self._index.running(record.task_id):
            is_same = task.target_uri == record.target_uri or not record.target_uri
            if is_same and task.app == record.app and record.time - task.start < self._expiry:
                return task
        return None

    def _first_of(self, record: Record) -> PendingEnd | None:
        """Find the waiting final record, without an error, of which this one may be the second."""
        if not record.error_code or self._naming.is_unlogged(record.app, record.target_uri):
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

    def _is_second_report(self, first: PendingEnd, record: Record) -> bool:
        """Tell whether this operation is known to report a failure twice."""
        return first.record.failed and self._naming.reports_twice(record.app, record.target_uri)

    def _add(self, final: PendingEnd, record: Record) -> None:
        """Take a second final record within the window: the one with the error wins, the other is a repeat."""
        if not record.error_code or final.record.error_code:
            final.repeats.append(record)
            return
        final.repeats.append(final.record)
        if end_key(record) == end_key(final.record):
            final.record = record
        else:
            # Joined by the task id alone: one of the two has no target_uri.
            self.forget(final)
            final.record = record
            self.wait(final, final.task)

    def forget(self, final: PendingEnd) -> None:
        """Remember a final record no more."""
        key = end_key(final.record)
        waiting = self._finals[key]
        waiting.remove(final)
        if not waiting:
            del self._finals[key]


def end_key(record: Record) -> tuple[str, str]:
    """Return by what final records of one task are found."""
    return record.app, record.target_uri
