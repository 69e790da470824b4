"""What wok-error.log says, where the correlator asks for it: why a task failed, and when wokd was restarted.

One place for what is remembered for that (`block_matcher.py`, `request_memory.py`, `restart_confirmation.py`), so that the
correlator does not know how the evidence is weighed. Without a wok-error.log nothing here has an answer.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from exporter.correlate.block_matcher import BlockMatcher
from exporter.correlate.failure_reason import FailureReason
from exporter.correlate.pending_blocks import NEAR_NANOS
from exporter.correlate.request_memory import Asked, RequestMemory, Started
from exporter.correlate.restart_confirmation import WAIT_NANOS, RestartConfirmation
from exporter.records import NANOS
from exporter.wok.error_log import Mark
from exporter.wok.task_functions import TaskFunctions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.correlate.pending_blocks import BlockResult
    from exporter.correlate.request_memory import Ending
    from exporter.correlate.task_state import PendingRequest
    from exporter.records import Record
    from exporter.wok.error_log import Item
    from exporter.wok.forgery import Forged
    from exporter.wok.operations import Operations

ENDED_REQUESTS_MAX = 128
"""Requests of ended tasks that are remembered: a block may name the request of a task that another end was given to."""
QUIET_NANOS = 3 * NANOS
"""When caught up, windows close by the wall clock, one second later than by the log's."""
TEXT_BYTES_MAX = 16 * 1024
"""What of an exception's text is sent."""


class ErrorEvidence:
    """The memory of what wok-error.log says, beside a correlator; times are nanoseconds.

    `expiry` is how long a task may run. Without `functions` no wok-error.log is read, and nothing is remembered. `shift` is how far the times of wok-error.log are from where they seem to be:
    the request log may show that wokd is in another zone than the configured one. `restarts` counts those that were
    believed.
    """

    def __init__(
        self, operations: Operations, functions: TaskFunctions | None = None, *, expiry: int, state: str = ""
    ) -> None:
        kept = json.loads(state) if state else {}
        self._requests = RequestMemory(ENDED_REQUESTS_MAX, kept.get("requests", ""))
        self._is_read = functions is not None
        self._reasons = BlockMatcher(
            operations,
            functions or TaskFunctions(()),
            self._requests,
            expiry=expiry,
            state=kept.get("reasons", ""),
        )
        self._marks = RestartConfirmation(kept.get("marks", ""))
        self._marked: int = kept.get("marked", 0)
        self._previous: int = kept.get("previous", 0)
        self.restarts = 0
        self.shift: int = kept.get("shift", 0)

    # What the error log says

    def offer(self, items: Iterable[Item]) -> None:
        """Take what the error log says next; what has been taken before is ignored."""
        items = list(items)
        for item in items:
            if isinstance(item, Mark) and item.number > self._marked:
                self._marked = item.number
                self._marks.offer(item)
        self._reasons.offer(items)

    def expect(self, mark: int) -> None:
        """Take a restart that an earlier version of the exporter has found, and not yet told."""
        self._marks.offer(Mark(0, mark, is_chained=True, text=""))

    def discredit(self, forged: Forged) -> None:
        """Believe nothing of what the request log shows to be forged."""
        self._reasons.discredit(forged.ids)
        self._marks.forged(forged.marks)

    @property
    def admitted(self) -> int:
        """The number of the last item that need not be offered again after a restart of the exporter."""
        return self._reasons.admitted

    @property
    def ahead(self) -> int:
        """How many items wait for the request log to reach their time."""
        return self._reasons.ahead

    def take_counts(self) -> Counter[BlockResult]:
        """Return what has become of blocks since the last call."""
        return self._reasons.take_counts()

    # The log's clock, and restarts of wokd

    def pass_record(self, time: int) -> list[int]:
        """Take the time of the next record, whose windows are closed; return the restarts that are certain now.

        One record with a wrong time must not end what runs: the clock is what two in a row have reached.
        """
        now, self._previous = min(self._previous, time), time
        self._reasons.advance(time - NEAR_NANOS)
        return self._believed(now)

    def pass_quiet(self, now: int) -> list[int]:
        """Take the wall clock of a reader that has read everything there is; return the restarts that are certain."""
        self._reasons.advance(now - QUIET_NANOS)
        return self._believed(now - QUIET_NANOS + WAIT_NANOS)

    def is_due(self, now: int) -> bool:
        """Tell whether `pass_quiet` has a restart to return at this time."""
        return self._marks.is_due(now - QUIET_NANOS + WAIT_NANOS, self.shift)

    def all_restarts(self) -> list[int]:
        """Return all restarts that are not yet told: no further line will come."""
        return self._believed(None)

    def _believed(self, now: int | None) -> list[int]:
        found = self._marks.believed(now, self.shift)
        self.restarts += len(found)
        return found

    def survived(self, start: int, end: int) -> None:
        """Take a task that certainly ran from `start` to `end`: wokd was not restarted between."""
        self._marks.survived(start, end, self.shift)

    # Requests and failures

    def advance(self, now: int) -> None:
        """Let the log's clock move on: up to this time all settling windows are closed."""
        self._reasons.advance(now)

    def asked(self, request: PendingRequest) -> None:
        """Take a request whose task may run."""
        if self._is_read:
            self._requests.add(_asked(request))

    def over(self, request: PendingRequest, *, is_sure: bool) -> None:
        """Say that the task of a request has ended, if it ran; `is_sure` when it was certainly this one."""
        self._requests.end(request.context, is_sure=is_sure)

    def failed(self, record: Record) -> None:
        """Take the final record of a failure."""
        if self._is_read:
            self._reasons.failed(record)

    def withdraw(self, record: Record) -> None:
        """Take the final record of a failure for a repeat of another one: it has no reason of its own."""
        self._reasons.withdraw(record)

    def reason_of(self, record: Record, ending: Ending) -> FailureReason | None:
        """Return why the task of a final record failed; to be asked when its settling window closes.

        `ending` are the final records that wait for their windows, this one included.
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
            return reason
        if decision.start:
            self.survived(decision.start, record.time)
        return reason._replace(task_id=block.ids[0], start=decision.start, requests=decision.requests)

    def finish(self) -> None:
        """Count the blocks that still wait: no further line will come."""
        self._reasons.advance(1 << 80)

    # The store

    @property
    def state(self) -> str:
        """What to go on from, as JSON text; the requests whose tasks run are not in it."""
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
