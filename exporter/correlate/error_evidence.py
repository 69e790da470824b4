"""The evidence of wok-error.log: why a task failed, and when wokd was restarted.

This class combines `block_matcher.py`, `request_memory.py` and `restart_confirmation.py`, so that
the correlator does not depend on how the evidence is weighed. Without a wok-error.log, there is no
evidence.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

from exporter.correlate.block_matcher import BlockMatcher
from exporter.correlate.failure_reason import FailureReason
from exporter.correlate.pending_blocks import NEAR_NANOS, BlockResult
from exporter.correlate.request_memory import Asked, Ending, RequestMemory, Started
from exporter.correlate.restart_confirmation import WAIT_NANOS, RestartConfirmation
from exporter.correlate.task_state import PendingRequest
from exporter.records import NANOS, Record
from exporter.wok.error_log import Item, Mark
from exporter.wok.forgery import Forged, IsQuoted
from exporter.wok.operations import Operations
from exporter.wok.task_functions import TaskFunctions

ENDED_REQUESTS_MAX = 128
"""Number of requests of ended tasks that are remembered: a block may name the request of a task
that another end was assigned to."""
QUIET_NANOS = 3 * NANOS
"""When caught up, windows close by the wall clock, one second later than by the log's clock."""
TEXT_BYTES_MAX = 16 * 1024
"""Maximum size of an exception's text in a span."""


class ErrorEvidence:
    """What is known from wok-error.log. Times are nanoseconds.

    expiry     How long a task may run.
    functions  Without these, no wok-error.log is read and nothing is remembered.
    shift      Difference between the times of wok-error.log and their true time. The request log
               may show that wokd uses another time zone than the configured one.
    restarts   Number of restarts that were confirmed.
    """

    def __init__(
        self,
        operations: Operations,
        functions: TaskFunctions | None = None,
        *,
        expiry: int,
        is_quoted: IsQuoted | None = None,
        state: str = "",
    ) -> None:
        kept = json.loads(state) if state else {}
        self._requests = RequestMemory(ENDED_REQUESTS_MAX, kept.get("requests", ""))
        self._is_read = functions is not None
        self._reasons = BlockMatcher(
            operations,
            functions or TaskFunctions(()),
            self._requests,
            expiry=expiry,
            is_quoted=is_quoted,
            state=kept.get("reasons", ""),
        )
        self._marks = RestartConfirmation(kept.get("marks", ""), is_quoted=is_quoted)
        self._marked: int = kept.get("marked", 0)
        self._previous: int = kept.get("previous", 0)
        self.restarts = 0
        self.shift: int = kept.get("shift", 0)

    # What the error log says

    def offer(self, items: Iterable[Item]) -> None:
        """Add the next items of the error log. Items that were added before are ignored."""
        items = list(items)
        for item in items:
            if isinstance(item, Mark) and item.number > self._marked:
                self._marked = item.number
                self._marks.offer(item, self._previous)
        self._reasons.offer(items)

    def expect(self, mark: int) -> None:
        """Add a restart that an earlier version of the exporter has found but not yet applied."""
        self._marks.offer(Mark(0, mark, is_chained=True, text=""))

    def discredit(self, forged: Forged) -> None:
        """Trust nothing that the request log shows to be forged."""
        self._reasons.discredit(forged.ids)
        self._marks.forged(forged.marks)

    @property
    def admitted(self) -> int:
        """Number of the last item that does not have to be offered again after a restart of the
        exporter.
        """
        return self._reasons.admitted

    @property
    def ahead(self) -> int:
        """Number of items that wait for the request log to reach their time."""
        return self._reasons.ahead

    def take_counts(self) -> Counter[BlockResult]:
        """Return the results of blocks since the last call."""
        return self._reasons.take_counts()

    # The log's clock, and restarts of wokd

    def pass_record(self, time: int) -> list[int]:
        """Process the time of the next record, after its windows have closed.

        Return the restarts that are now certain.

        One record with a wrong time must not end running tasks. The clock is therefore the time
        that two consecutive records have reached.
        """
        now, self._previous = min(self._previous, time), time
        self._reasons.advance(time - NEAR_NANOS)
        return self._believed(now)

    def pass_quiet(self, now: int) -> list[int]:
        """Process the wall clock when the reader has caught up.

        Return the restarts that are now certain.
        """
        self._reasons.advance(now - QUIET_NANOS)
        return self._believed(now - QUIET_NANOS + WAIT_NANOS)

    def is_due(self, now: int) -> bool:
        """Return whether `pass_quiet` returns a restart at this time."""
        return self._marks.is_due(now - QUIET_NANOS + WAIT_NANOS, self.shift)

    def all_restarts(self) -> list[int]:
        """Return all remaining restarts at the end of the log."""
        return self._believed(None)

    def _believed(self, now: int | None) -> list[int]:
        found = self._marks.believed(now, self.shift)
        self.restarts += len(found)
        return found

    def survived(self, start: int, end: int) -> None:
        """Note that a task certainly ran from `start` to `end`: wokd did not restart."""
        self._marks.survived(start, end, self.shift)

    # Requests and failures

    def advance(self, now: int) -> None:
        """Advance the clock of the log: all settling windows are closed up to this time."""
        self._reasons.advance(now)

    def asked(self, request: PendingRequest) -> None:
        """Add a request whose task may run."""
        if self._is_read:
            self._requests.add(_asked(request))

    def over(self, request: PendingRequest, *, is_sure: bool) -> None:
        """Note that the task of a request has ended, if it ran.

        `is_sure` means that it was certainly this task.
        """
        self._requests.end(request.context, is_sure=is_sure)

    def failed(self, record: Record) -> None:
        """Add the final record of a failure."""
        if self._is_read:
            self._reasons.failed(record)

    def withdraw(self, record: Record) -> None:
        """Remove a failure that repeats another one: it has no reason of its own."""
        self._reasons.withdraw(record)

    def reason_of(self, record: Record, ending: Ending) -> FailureReason | None:
        """Return why the task of a final record failed.

        Call this when its settling window closes.

        `ending` are the final records in open windows, including this one.
        """
        if not self._is_read:
            return None
        decision = self._reasons.decide(record, ending)
        block = decision.block
        if block is None:
            return None
        text = block.text.encode("utf-8", "replace")[:TEXT_BYTES_MAX].decode("utf-8", "ignore")
        reason = FailureReason(block.exception, text, block.stack)
        if decision.result != "joined":
            return reason._replace(requests=decision.requests)
        if decision.start:
            self.survived(decision.start, record.time)
        return reason._replace(task_id=block.ids[0], start=decision.start, requests=decision.requests)

    def finish(self) -> None:
        """Count the blocks that still wait at the end of the log."""
        self._reasons.advance(1 << 80)

    # The store

    @property
    def state(self) -> str:
        """The state as JSON text. Requests of running tasks are not included."""
        return json.dumps(
            {
                "requests": self._requests.state,
                "reasons": self._reasons.state,
                "marks": self._marks.state,
                "marked": self._marked,
                "previous": self._previous,
                "shift": self.shift,
            },
            separators=(",", ":"),
        )


def _asked(request: PendingRequest) -> Asked:
    forms = tuple(dict.fromkeys(form.text for form in request.forms))
    return Asked(
        request.app, request.operation, forms, Started(request.time, request.context), request.values
    )
