"""Holds back requests whose status has to be looked up in wok-access.log.

Only the event of the request waits. The line of its answer is written milliseconds after its own,
so it is there when the settling window closes. A request whose answer is still in doubt then waits
one second more. If wok-access.log is missing, unreadable or late, the request keeps the status that
Wok has logged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from exporter.correlate.settle_window import SETTLE_NANOS, SETTLE_QUIET_NANOS, SettleWindow
from exporter.correlate.stored import from_json, to_json
from exporter.correlate.task_state import DoubtfulRequest
from exporter.correlate.true_status import (
    ANSWER_NANOS,
    ASKED_MAX,
    LOGGED,
    AnswerResult,
    AnswersBetween,
    Decision,
    TrueStatus,
    is_doubtful,
)
from exporter.records import Event, RequestSeen


class DoubtfulRequests:
    """The waiting requests in the order of the log. `emit` receives them when they are decided.

    Without `answers_between`, there is no wok-access.log and no request waits.

    shift  Difference between the times of wok-access.log and their true time.
    """

    def __init__(self, emit: Callable[[Event], None], answers_between: AnswersBetween | None) -> None:
        self.shift = 0
        self._emit = emit
        self._is_read = answers_between is not None
        self._true_status = TrueStatus(answers_between or _no_answers)
        self._window = SettleWindow(self._decide, items_max=ASKED_MAX)
        self._contested = SettleWindow(
            self._decide_contested,
            nanos=SETTLE_NANOS + ANSWER_NANOS,
            quiet_nanos=SETTLE_QUIET_NANOS + ANSWER_NANOS,
            items_max=ASKED_MAX,
        )
        self._counts: Counter[AnswerResult] = Counter()

    def take(self, seen: RequestSeen) -> None:
        """Emit a request that was logged with 500, now or when its window closes."""
        if not self._is_read:
            self._emit(seen)
            return
        self._true_status.asked(seen.record)
        if is_doubtful(seen.record):
            self._window.add(
                DoubtfulRequest(seen.record, seen.operation, seen.context, seen.start, seen.ordinal)
            )
        else:
            self._emit(seen)

    def pass_record(self, time: int) -> None:
        """Close the windows that a record of this time closes."""
        if not self._window.is_empty:
            self._window.pass_record(time)
        if not self._contested.is_empty:
            self._contested.pass_record(time)

    def pass_quiet(self, now: int) -> None:
        """Close the windows that the wall clock closes."""
        self._window.pass_quiet(now)
        self._contested.pass_quiet(now)

    def close_all(self) -> None:
        """Close every window: the log is complete."""
        self._window.close_all()
        self._contested.close_all()

    def is_due(self, now: int) -> bool:
        """Return whether the wall clock closes a window."""
        return self._window.is_due(now) or self._contested.is_due(now)

    def take_counts(self) -> Counter[AnswerResult]:
        """Return the results of requests since the last call."""
        counts, self._counts = self._counts, Counter()
        return counts

    def _decide(self, waiting: DoubtfulRequest) -> None:
        if not self._is_read:
            self._send(waiting, Decision(LOGGED, "missing"))
            return
        decision = self._true_status.decide(waiting.record, self.shift, is_last=False)
        if decision.result == "contested":
            self._contested.add(waiting)
        else:
            self._send(waiting, decision)

    def _decide_contested(self, waiting: DoubtfulRequest) -> None:
        decision = Decision(LOGGED, "contested")
        if self._is_read:
            decision = self._true_status.decide(waiting.record, self.shift)
        self._send(waiting, decision)

    def _send(self, waiting: DoubtfulRequest, decision: Decision) -> None:
        record = waiting.record
        if self._is_read:
            self._counts[decision.result] += 1
        if decision.status != record.status:
            record = record._replace(status=decision.status, logged_status=record.status)
        self._emit(
            RequestSeen(
                record, waiting.operation, waiting.context, waiting.start, waiting.ordinal, opens_task=False
            )
        )

    # The store

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return {
            "waiting": [to_json(waiting) for waiting in self._window.waiting()],
            "contested": [to_json(waiting) for waiting in self._contested.waiting()],
            "asked": self._true_status.to_json(),
            "shift": self.shift,
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Continue from the result of `to_json`."""
        for waiting in kept["waiting"]:
            self._window.add(from_json(DoubtfulRequest, waiting))
        for waiting in kept["contested"]:
            self._contested.add(from_json(DoubtfulRequest, waiting))
        self._true_status.restore(kept["asked"])
        self.shift = kept["shift"]


def _no_answers(_: int, __: int) -> None:
    """Know no answers."""
