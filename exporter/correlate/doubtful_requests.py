"""Holds back requests whose status has to be looked up in wok-access.log.

Only the event of the request waits. The line of its answer is written milliseconds after its own,
so it is there when the settling window closes. If wok-access.log is missing, unreadable or late,
the request keeps the status that Wok has logged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from exporter.correlate.settle_window import SettleWindow
from exporter.correlate.stored import from_json, to_json
from exporter.correlate.task_state import DoubtfulRequest
from exporter.correlate.true_status import (
    ASKED_MAX,
    LOGGED,
    AnswerResult,
    AnswersAround,
    Decision,
    TrueStatus,
    is_doubtful,
)
from exporter.records import Event, RequestSeen


class DoubtfulRequests:
    """The waiting requests in the order of the log. `emit` receives them when they are decided.

    Without `answers_around`, there is no wok-access.log and no request waits.

    shift  Difference between the times of wok-access.log and their true time.
    """

    def __init__(self, emit: Callable[[Event], None], answers_around: AnswersAround | None) -> None:
        self.shift = 0
        self._emit = emit
        self._is_read = answers_around is not None
        self._true_status = TrueStatus(answers_around or _no_answers)
        self._window = SettleWindow(self._decide, items_max=ASKED_MAX)
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

    def pass_quiet(self, now: int) -> None:
        """Close the windows that the wall clock closes."""
        self._window.pass_quiet(now)

    def close_all(self) -> None:
        """Close every window: the log is complete."""
        self._window.close_all()

    def is_due(self, now: int) -> bool:
        """Return whether the wall clock closes a window."""
        return self._window.is_due(now)

    def take_counts(self) -> Counter[AnswerResult]:
        """Return the results of requests since the last call."""
        counts, self._counts = self._counts, Counter()
        return counts

    def _decide(self, waiting: DoubtfulRequest) -> None:
        record = waiting.record
        decision = Decision(LOGGED, "missing")
        if self._is_read:
            decision = self._true_status.decide(record, self.shift)
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
            "asked": self._true_status.to_json(),
            "shift": self.shift,
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Continue from the result of `to_json`."""
        for waiting in kept["waiting"]:
            self._window.add(from_json(DoubtfulRequest, waiting))
        self._true_status.restore(kept["asked"])
        self.shift = kept["shift"]


def _no_answers(_: int) -> None:
    """Know no answers."""
