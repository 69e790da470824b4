"""Builds the commit that the store writes from the result of a batch. Pure.

A commit has encoded spans and log records by signal and resource, rows for the history, and the
changes of the state as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from exporter.pipeline.batch_processor import BatchResult, Encoded
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
"""More events than a batch of lines has, other than after a restart of wokd."""


class CommitBuilder:
    """Encodes events as spans, log records and rows of the history.

    Only the items of `signals` are queued for delivery. `keeps_history` is False for a temporary
    state, which nobody queries.
    """

    def __init__(
        self, telemetry: Telemetry, *, signals: frozenset[Signal], keeps_history: bool = True
    ) -> None:
        self._telemetry = telemetry
        self._signals = signals
        self._keeps_history = keeps_history

    def commit(self, result: BatchResult) -> Commit:
        """Return the commit for the result of a batch."""
        journal: Iterable[JournalRow]
        requests: Sequence[RequestRow]
        tasks: Sequence[TaskRow]
        if result.encoded is not None:
            _, journal, requests, tasks = result.encoded
        elif len(result.events) <= EVENTS_AT_ONCE:
            _, journal, requests, tasks = self.encode(result.events)
        else:
            # A restart of wokd with 60,000 open tasks gives 129 MiB: encode it in portions, during
            # the write.
            journal = _Encoded(self, result.events)
            requests, tasks = [], []
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

    def encode(self, events: Sequence[Event]) -> Encoded:
        """Return the encoded items and the rows of the history of some events, at most
        EVENTS_AT_ONCE.
        """
        requests: list[RequestRow] = []
        tasks: list[TaskRow] = []
        return Encoded(len(events), self._encode(events, requests, tasks), requests, tasks)

    def journal_of(self, events: Sequence[Event]) -> list[JournalRow]:
        """Return the encoded items of the events, without rows of the history."""
        return self._encode(events)

    def _encode(
        self,
        events: Sequence[Event],
        requests: list[RequestRow] | None = None,
        tasks: list[TaskRow] | None = None,
        *,
        signals: frozenset[Signal] | None = None,
    ) -> list[JournalRow]:
        """Return the encoded items by signal and resource; add the rows of the history to the
        lists.
        """
        telemetry = self._telemetry
        signals = self._signals if signals is None else signals
        has_traces, has_logs = "traces" in signals, "logs" in signals
        by_app: dict[str, tuple[_Items, _Items]] = {}
        # One pass: the row, the span and the log record of an event share computed values.
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
    """Journal rows of many events, encoded in portions on each iteration to bound the memory."""

    def __init__(self, builder: CommitBuilder, events: Sequence[Event]) -> None:
        self._builder = builder
        self._events = events

    def __iter__(self) -> Iterator[JournalRow]:
        for at in range(0, len(self._events), EVENTS_AT_ONCE):
            yield from self._builder.journal_of(self._events[at : at + EVENTS_AT_ONCE])


_Items = tuple[list[int], list[bytes]]
"""Times and encoded items; both lists have the same length and order."""
_SIGNALS: tuple[Signal, Signal] = ("traces", "logs")
