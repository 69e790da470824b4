"""Confirm the restarts of wokd that wok-error.log shows.

A mark of a restart in wok-error.log can be forged: a line break in a name is enough. A wrong mark
would end all running tasks as lost. A mark therefore waits until the request log is two seconds
past it. It is confirmed under three conditions: the lines that wokd writes before it are there too;
no parameter of the request log contains it; and no task has survived it. A restart ends all tasks,
so a task that began before the mark and ended after it refutes the mark.

Only certain evidence can refute a mark: an exact match, a time in a target_uri, or an id of an
extended Wok.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from exporter.records import NANOS
from exporter.wok.error_log import Mark

WAIT_NANOS = 2 * NANOS
SLACK_NANOS = NANOS
"""A mark has whole seconds, and can be logged after the first requests of its second."""
MARKS_MAX = 1024
FORGED_MAX = 256


class RestartConfirmation:
    """Marks that wait for confirmation. Times are nanoseconds."""

    def __init__(self, state: str = "") -> None:
        kept = json.loads(state) if state else {"waiting": (), "forged": ()}
        self._waiting: list[tuple[int, str]] = [(time, text) for time, text in kept["waiting"]]
        self._forged: dict[str, None] = dict.fromkeys(kept["forged"])

    def offer(self, mark: Mark) -> None:
        """Add the next mark of the error log."""
        if mark.is_chained:
            self._waiting = sorted([*self._waiting, (mark.time, mark.text)])[:MARKS_MAX]

    def forged(self, texts: Iterable[str]) -> None:
        """Never confirm a mark with one of these texts: a parameter of the request log has it."""
        for text in texts:
            self._forged[text] = None
            if len(self._forged) > FORGED_MAX:
                del self._forged[next(iter(self._forged))]

    def survived(self, start: int, end: int, shift: int = 0) -> None:
        """Remove the marks that a task has survived."""
        self._waiting = [
            (time, text)
            for time, text in self._waiting
            if not start + SLACK_NANOS < time + shift < end - SLACK_NANOS
        ]

    def is_due(self, now: int, shift: int = 0) -> bool:
        """Return whether `believed` has a mark to decide about at `now`."""
        return bool(self._waiting) and self._waiting[0][0] + shift + WAIT_NANOS <= now

    def believed(self, now: int | None, shift: int = 0) -> list[int]:
        """Return the times of the marks that are confirmed by `now`, oldest first.

        Each is returned once.

        Without `now`, all marks are due. `shift` is the difference between wokd's time zone and the
        one in which the marks were read.
        """
        if not self._waiting:
            return []
        due = [
            (time, text) for time, text in self._waiting if now is None or time + shift + WAIT_NANOS <= now
        ]
        self._waiting = self._waiting[len(due) :]
        return [time + shift for time, text in due if text not in self._forged]

    @property
    def state(self) -> str:
        """The state as JSON text."""
        return json.dumps({"waiting": self._waiting, "forged": list(self._forged)}, separators=(",", ":"))
