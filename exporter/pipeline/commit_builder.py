"""The middle of the program, second half: what a chunk means, as the one commit that the store writes.

Pure: encoded spans and log records by signal and resource, rows for the history, and the changes as they are.
"""

from __future__ import annotations

from exporter.pipeline.batch_processor import BatchResult
from exporter.records import (
    Commit,
    JournalRow,
    RequestRow,
    RequestSeen,
    Signal,
    TaskEnded,
    TaskRow,
)
from exporter.telemetry.mapping import Telemetry


class CommitBuilder:
    """Says what events mean to backends and people.

    Items of `signals` alone are journalled. `keeps_history` is False where nobody will ask: in a state that is
    thrown away, and is never loaded again.
    """

    def __init__(
        self, telemetry: Telemetry, *, signals: frozenset[Signal], keeps_history: bool = True
    ) -> None:
        self._telemetry = telemetry
        self._signals = signals
        self._keeps_history = keeps_history

    def commit(self, meant: BatchResult) -> Commit:
        """Return everything the chunk has changed."""
        telemetry, keeps_history = self._telemetry, self._keeps_history
        has_traces, has_logs = "traces" in self._signals, "logs" in self._signals
        by_app: dict[str, tuple[_Items, _Items]] = {}
        requests: list[RequestRow] = []
        tasks: list[TaskRow] = []
        # One pass: what is said of an event is worked out once for its row, its span and its log record.
        for event in meant.events:
            app = telemetry.service(event)
            items = by_app.get(app)
            if items is None:
                items = by_app[app] = (([], []), ([], []))
            time = event.reported if isinstance(event, TaskEnded) else event.record.time
            if isinstance(event, (RequestSeen, TaskEnded)):
                if keeps_history:
                    if isinstance(event, RequestSeen):
                        requests.append(telemetry.request_row(event))
                    else:
                        tasks.append(telemetry.task_row(event))
                if has_traces:
                    times, payloads = items[0]
                    times.append(time)
                    payloads.append(telemetry.span(event))
            if has_logs:
                times, payloads = items[1]
                times.append(time)
                payloads.append(telemetry.log(event))
        return Commit(
            positions=meant.positions,
            state=meant.state,
            opened=meant.opened,
            closed=meant.closed,
            counters=meant.counters,
            gauges=meant.gauges,
            histograms=meant.histograms,
            journal=[
                JournalRow(
                    signal, telemetry.resource(app), len(times), b"".join(payloads), min(times), max(times)
                )
                for app, items in by_app.items()
                for signal, (times, payloads) in zip(_SIGNALS, items, strict=True)
                if times
            ],
            requests=requests,
            tasks=tasks,
        )


_Items = tuple[list[int], list[bytes]]
"""Times and encoded items, one for one."""
_SIGNALS: tuple[Signal, Signal] = ("traces", "logs")
