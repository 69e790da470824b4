"""Confirm the restarts of wokd that wok-error.log shows.

A mark of a restart in wok-error.log can be forged: a line break in a name is enough. A wrong mark
would end all running tasks as lost. A mark therefore waits until the request log is two seconds
past it. It is confirmed under three conditions: the lines that wokd writes before it are there too;
no parameter of the request log contains it; and no task has survived it. A restart ends all tasks,
so a task that began before the mark and ended after it refutes the mark.

The quote of a forged mark follows within milliseconds, but the mark may claim an earlier time. A
mark that is read much later than its time therefore waits two seconds from then.

Only certain evidence can refute a mark: an exact match, a time in a target_uri, or an id of an
extended Wok.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from exporter.records import NANOS
from exporter.wok.error_log import Mark
from exporter.wok.forgery import IsQuoted

WAIT_NANOS = 2 * NANOS
SLACK_NANOS = NANOS
"""A mark has whole seconds, and can be logged after the first requests of its second."""
LATE_NANOS = 10 * NANOS
"""A mark that is read this much later than its time may be forged just now."""
MARKS_MAX = 1024
FORGED_MAX = 256


class _Waiting(NamedTuple):
    """A mark that waits. `seen` is the time of the request log when it was read."""

    time: int
    text: str
    seen: int = 0

    def due(self, shift: int) -> int:
        """Return when the mark can be confirmed."""
        time = self.time + shift
        return WAIT_NANOS + (self.seen if self.seen > time + LATE_NANOS else time)


class RestartConfirmation:
    """Marks that wait for confirmation. Times are nanoseconds.

    `is_quoted` looks for the line of a mark in the rest of the request log.
    """

    def __init__(self, state: str = "", *, is_quoted: IsQuoted | None = None) -> None:
        kept = json.loads(state) if state else {"waiting": (), "forged": ()}
        self._waiting = [_Waiting(*fields) for fields in kept["waiting"]]
        self._forged: dict[str, None] = dict.fromkeys(kept["forged"])
        self._is_quoted = is_quoted

    def offer(self, mark: Mark, seen: int = 0) -> None:
        """Add the next mark of the error log; the request log has reached the time `seen`."""
        if mark.is_chained:
            self._waiting = sorted([*self._waiting, _Waiting(mark.time, mark.text, seen)])[:MARKS_MAX]

    def forged(self, texts: Iterable[str]) -> None:
        """Never confirm a mark with one of these texts: a parameter of the request log has it."""
        for text in texts:
            self._forged[text] = None
            if len(self._forged) > FORGED_MAX:
                del self._forged[next(iter(self._forged))]

    def survived(self, start: int, end: int, shift: int = 0) -> None:
        """Remove the marks that a task has survived."""
        if self._waiting:
            self._waiting = [
                mark
                for mark in self._waiting
                if not start + SLACK_NANOS < mark.time + shift < end - SLACK_NANOS
            ]

    def is_due(self, now: int, shift: int = 0) -> bool:
        """Return whether `believed` has a mark to decide about at `now`."""
        return any(mark.due(shift) <= now for mark in self._waiting)

    def believed(self, now: int | None, shift: int = 0) -> list[int]:
        """Return the times of the marks that are confirmed by `now`, oldest first.

        Each is returned once.

        Without `now`, all marks are due. `shift` is the difference between wokd's time zone and the
        one in which the marks were read.
        """
        if not self._waiting:
            return []
        due: list[_Waiting] = []
        waiting: list[_Waiting] = []
        for mark in self._waiting:
            (due if now is None or mark.due(shift) <= now else waiting).append(mark)
        self._waiting = waiting
        return [mark.time + shift for mark in due if not self._is_forged(mark, shift)]

    def _is_forged(self, mark: _Waiting, shift: int) -> bool:
        if mark.text in self._forged:
            return True
        return self._is_quoted is not None and self._is_quoted(mark.text, mark.time + shift)

    @property
    def state(self) -> str:
        """The state as JSON text."""
        return json.dumps({"waiting": self._waiting, "forged": list(self._forged)}, separators=(",", ":"))
