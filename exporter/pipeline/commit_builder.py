"""The middle of the program, second half: what a chunk means, as the one commit that the store writes.

Pure: encoded spans and log records by signal and resource, rows for the history, and the changes as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from exporter.pipeline.batch_processor import BatchResult
from exporter.records import (
    Commit,
    Event,
    JournalRow,
    RequestRow,
    RequestSeen,
    Signal,
    TaskEnded,
    TaskRow,
)
from exporter.telemetry.mapping import Telemetry

EVENTS_AT_ONCE = 8192
"""More than the events of any batch of lines."""


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

    def commit(self, result: BatchResult) -> Commit:
        """Return everything the chunk has changed."""
        requests: list[RequestRow] = []
        tasks: list[TaskRow] = []
        journal: Iterable[JournalRow]
        if len(result.events) <= EVENTS_AT_ONCE:
            journal = self._encode(result.events, requests, tasks)
        else:
            # A restart of wokd with 60,000 open tasks: 129 MiB, encoded while the store writes it.
            journal = _Encoded(self, result.events)
            self._encode(result.events, requests, tasks, signals=frozenset())
        return Commit(
            positions=result.positions,
            state=result.state,
            opened=result.opened,
            closed=result.closed,
            counters=result.counters,
            gauges=result.gauges,
            histograms=result.histograms,
            journal=journal,
            requests=requests,
            tasks=tasks,
        )

    def journal_of(self, events: Sequence[Event]) -> list[JournalRow]:
        """Return the encoded items of events alone."""
        return self._encode(events)

    def _encode(
        self,
        events: Sequence[Event],
        requests: list[RequestRow] | None = None,
        tasks: list[TaskRow] | None = None,
        *,
        signals: frozenset[Signal] | None = None,
    ) -> list[JournalRow]:
        """Return the items of events by signal and resource, and add their rows to the histories."""
        telemetry = self._telemetry
        signals = self._signals if signals is None else signals
        has_traces, has_logs = "traces" in signals, "logs" in signals
        by_app: dict[str, tuple[_Items, _Items]] = {}
        # One pass: what is said of an event is worked out once for its row, its span and its log record.
        for event in events:
            app = telemetry.service(event)
            items = by_app.get(app)
            if items is None:
                items = by_app[app] = (([], []), ([], []))
            time = event.reported if isinstance(event, TaskEnded) else event.record.time
            if isinstance(event, (RequestSeen, TaskEnded)):
                if self._keeps_history:
                    if isinstance(event, RequestSeen):
                        if requests is not None:
                            requests.append(telemetry.request_row(event))
                    elif tasks is not None:
                        tasks.append(telemetry.task_row(event))
                if has_traces:
                    times, payloads = items[0]
                    times.append(time)
                    payloads.append(telemetry.span(event))
            if has_logs:
                times, payloads = items[1]
                times.append(time)
                payloads.append(telemetry.log(event))
        return [
            JournalRow(
                signal, telemetry.resource(app), len(times), b"".join(payloads), min(times), max(times)
            )
            for app, items in by_app.items()
            for signal, (times, payloads) in zip(_SIGNALS, items, strict=True)
            if times
        ]


class _Encoded:
    """The journal rows of many events, made a portion at a time whenever they are iterated over."""

    def __init__(self, builder: CommitBuilder, events: Sequence[Event]) -> None:
        self._builder = builder
        self._events = events

    def __iter__(self) -> Iterator[JournalRow]:
        for at in range(0, len(self._events), EVENTS_AT_ONCE):
            yield from self._builder.journal_of(self._events[at : at + EVENTS_AT_ONCE])


_Items = tuple[list[int], list[bytes]]
"""Times and encoded items, one for one."""
_SIGNALS: tuple[Signal, Signal] = ("traces", "logs")
