"""Which marks of a start of wokd are believed.

A mark in wok-error.log can be forged: a line break in a name is enough. A wrong one would end all running tasks as
lost. So a mark waits until the request log is two seconds past it. It is believed when the lines that wokd writes
before it stand there too, when no parameter of the request log has brought it there, and when nothing has survived
it: a restart kills all tasks, so one that began before and ended after it refutes it.

What refutes a mark must itself be beyond doubt: a sure join, a time inside a target_uri, an id of an extended Wok.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from exporter.records import NANOS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.wok.error_log import Mark

WAIT_NANOS = 2 * NANOS
SLACK_NANOS = NANOS
"""A mark has whole seconds, and may stand behind the first requests of its own second."""
MARKS_MAX = 1024
FORGED_MAX = 256


class RestartConfirmation:
    """Marks that wait to be believed; times are nanoseconds."""

    def __init__(self, state: str = "") -> None:
        kept = json.loads(state) if state else {"waiting": (), "forged": ()}
        self._waiting: list[tuple[int, str]] = [(time, text) for time, text in kept["waiting"]]
        self._forged: dict[str, None] = dict.fromkeys(kept["forged"])

    def offer(self, mark: Mark) -> None:
        """Take the next mark of the error log."""
        if mark.is_chained:
            self._waiting = sorted([*self._waiting, (mark.time, mark.text)])[:MARKS_MAX]

    def forged(self, texts: Iterable[str]) -> None:
        """Never believe a mark of these texts: a parameter of the request log has them."""
        for text in texts:
            self._forged[text] = None
            if len(self._forged) > FORGED_MAX:
                del self._forged[next(iter(self._forged))]

    def survived(self, start: int, end: int, shift: int = 0) -> None:
        """Refute the marks that a task has survived."""
        self._waiting = [
            (time, text)
            for time, text in self._waiting
            if not start + SLACK_NANOS < time + shift < end - SLACK_NANOS
        ]

    def is_due(self, now: int, shift: int = 0) -> bool:
        """Tell whether `believed` has something to decide about by now."""
        return bool(self._waiting) and self._waiting[0][0] + shift + WAIT_NANOS <= now

    def believed(self, now: int | None, shift: int = 0) -> list[int]:
        """Return the times of the marks that are believed by now, the oldest first; each is returned once.

        Without `now` these are all. `shift` is how far wokd's zone is from the one in which the marks were read.
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
        """What to go on from, as JSON text."""
        return json.dumps({"waiting": self._waiting, "forged": list(self._forged)}, separators=(",", ":"))
