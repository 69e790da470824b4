"""The whole middle of the program: a batch of parsed lines in, one commit out.

`Core.advance` correlates the records, encodes what they became and counts all of it. It has no clock and no files. What it returns is everything the batch has changed; what it keeps is the same thing in
memory. When the commit fails, the core is thrown away and made again from the store: that is the only recovery.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from exporter.correlate import SETTLE_QUIET_NANOS, Correlator
from exporter.reading import Reading
from exporter.records import (
    Commit,
    Event,
    JournalRow,
    Record,
    RequestRow,
    RequestSeen,
    Signal,
    TaskEnded,
    TaskRow,
)
from exporter.tally import Tally
from exporter.telemetry import Telemetry


class Core:
    """Correlator, telemetry and tally as one: what a batch of lines means.

    `skip_until` is the time, in nanoseconds, before which a first start leaves records out (`--start-at`); the
    first record that is not older ends it. `keeps_history` is False where nobody will ask: in a state that is
    thrown away, and is never loaded again.
    """

    def __init__(
        self,
        correlator: Correlator,
        telemetry: Telemetry,
        tally: Tally,
        *,
        signals: frozenset[Signal],
        marks: Iterable[int] = (),
        skip_until: int = 0,
        keeps_history: bool = True,
    ) -> None:
        self._correlator = correlator
        self._telemetry = telemetry
        self._tally = tally
        self._signals = signals
        self._marks = sorted(marks)
        self._skip_until = skip_until
        self._keeps_history = keeps_history

    def advance(
        self,
        reading: Reading,
        *,
        marks: Sequence[int] = (),
        restarts_position: str = "",
        now: int | None = None,
        finished: bool = False,
    ) -> Commit:
        """Take a chunk of parsed lines and return what it has changed.

        `marks` are further starts of wokd, from wok-error.log; all up to the newest of these lines must be
        known by now. `now` is the wall clock in nanoseconds when the reader is caught up. `finished` says that
        no line will ever follow.
        """
        if marks:
            self._marks = sorted([*self._marks, *marks])
        output = _Output(self._telemetry, self._tally, self._signals, keeps_history=self._keeps_history)
        self._take(reading, output)
        if finished:
            output.take(self._correlator.finish())
        elif now is not None:
            while self._marks and self._marks[0] + SETTLE_QUIET_NANOS <= now:
                output.take(self._correlator.restart(self._marks.pop(0)))
            output.take(self._correlator.quiet(now))

        changes = self._correlator.changes()
        counters, gauges, histograms = self._tally.take()
        state = {
            "parser": reading.parser,
            "correlator": changes.state,
            "marks": self._marks,
            "skip_until": self._skip_until,
        }
        positions = {"log": reading.position}
        if restarts_position:
            positions["restarts"] = restarts_position
        return Commit(
            positions=positions,
            state=json.dumps(state, separators=(",", ":")),
            opened=changes.opened,
            closed=changes.closed,
            counters=counters,
            gauges=gauges,
            histograms=histograms,
            journal=output.journal(),
            requests=output.requests,
            tasks=output.tasks,
        )

    def is_due(self, now: int) -> bool:
        """Tell whether the wall clock alone (in nanoseconds) gives something to do: a window to close, a task
        that has expired, a mark whose time has come.
        """
        due = self._correlator.due
        return (due is not None and due <= now) or (
            bool(self._marks) and self._marks[0] + SETTLE_QUIET_NANOS <= now
        )

    def _take(self, reading: Reading, output: _Output) -> None:
        count, marks = self._tally.parsed, self._marks
        correlate, restart, take = self._correlator.feed, self._correlator.restart, output.take
        self._tally.reading(reading)
        for item in reading.items:
            if isinstance(item, Record):
                if self._skip_until:
                    if item.time < self._skip_until:
                        continue
                    self._skip_until = 0
                count(item)
                while marks and marks[0] <= item.time:
                    take(restart(marks.pop(0)))
                take(correlate(item))
            elif not self._skip_until:
                count(item)


class _Output:
    """What a batch gives: encoded items by signal and resource, and rows for the history."""

    def __init__(
        self, telemetry: Telemetry, tally: Tally, signals: frozenset[Signal], *, keeps_history: bool
    ) -> None:
        self._keeps_history = keeps_history
        self._telemetry = telemetry
        self._tally = tally
        self._traces: dict[str, list[tuple[int, bytes]]] | None = {} if "traces" in signals else None
        self._logs: dict[str, list[tuple[int, bytes]]] | None = {} if "logs" in signals else None
        self.requests: list[RequestRow] = []
        self.tasks: list[TaskRow] = []

    def take(self, events: Iterable[Event]) -> None:
        telemetry = self._telemetry
        for event in events:
            self._tally.event(event)
            app = telemetry.service(event)
            if isinstance(event, RequestSeen):
                if self._keeps_history:
                    self.requests.append(telemetry.request_row(event))
                time = event.record.time
            elif isinstance(event, TaskEnded):
                if self._keeps_history:
                    self.tasks.append(telemetry.task_row(event))
                time = event.reported
            else:
                time = event.record.time
            if self._traces is not None and isinstance(event, (RequestSeen, TaskEnded)):
                self._traces.setdefault(app, []).append((time, telemetry.span(event)))
            if self._logs is not None:
                self._logs.setdefault(app, []).append((time, telemetry.log(event)))

    def journal(self) -> list[JournalRow]:
        rows = []
        signals: tuple[tuple[Signal, dict[str, list[tuple[int, bytes]]] | None], ...] = (
            ("traces", self._traces),
            ("logs", self._logs),
        )
        for signal, by_app in signals:
            for app, items in (by_app or {}).items():
                times = [time for time, _ in items]
                payload = b"".join([item for _, item in items])
                resource = self._telemetry.resource(app)
                rows.append(JournalRow(signal, resource, len(items), payload, min(times), max(times)))
        return rows


def restore(state: str) -> tuple[str, str, list[int], int]:
    """Return what `Commit.state` held: the parser's and the correlator's state, the marks that wait, and
    `skip_until`; all empty for an empty state.
    """
    if not state:
        return "", "", [], 0
    kept = json.loads(state)
    return kept["parser"], kept["correlator"], kept["marks"], kept["skip_until"]
