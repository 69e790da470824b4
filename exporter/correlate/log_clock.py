"""The log's own clock: how far the log has come, where single records, or a few, may have wrong times.

A clock that was ahead writes some records dated in the future; then the log goes back. Such times must not end what
runs, and the clock must not stay there. So a time that lies more than a minute from where the log was is not
believed until the log has gone on there for ten minutes. Ages are counted in hours: it is early enough.

The wall clock of a reader that has caught up moves this one on. It sets it back only where the log
was more than a day ahead and its last records agree with the wall clock: a log may be ahead by a time zone, and what is
said of tasks must not depend on when they are read.
"""

from __future__ import annotations

from typing import Any

from exporter.records import NANOS

STEP_NANOS = 60 * NANOS
"""Records as near as this to the clock move it on."""
CONFIRM_NANOS = 600 * NANOS
"""A jump is believed when the log has gone on behind it for so long."""
AHEAD_NANOS = 86_400 * NANOS
"""What is further ahead of the wall clock is no other time zone, but a clock's mistake."""
END_JUMP_NANOS = 366 * 86_400 * NANOS
"""The end of a log does not confirm a longer jump: a Wok that was unused for years is rarer than a wrong clock."""


class LogClock:
    """The time that the log has reached, in nanoseconds; 0 before the first record."""

    def __init__(self) -> None:
        self.now = 0
        # The first and the last time behind a jump that is not yet believed, and the number of its records.
        self._jump: tuple[int, int, int] | None = None
        self.was_ahead = False
        """Whether the last record has shown that some before it were ahead of their time."""

    def pass_record(self, time: int) -> bool:
        """Take the time of the next record; tell whether the clock has moved, or some before it were ahead."""
        self.was_ahead = False
        if abs(time - self.now) <= STEP_NANOS or not self.now:
            self.was_ahead = self._jump is not None
            self._jump = None
            if time <= self.now:
                return self.was_ahead
            self.now = time
            return True
        jump = self._jump
        # A record behind the clock, and then one before it, were two jumps.
        is_other = jump is not None and (jump[0] < self.now) != (time < self.now)
        if jump is None or is_other or time < jump[0] - STEP_NANOS:
            self._jump = (time, time, 1)
            return False
        first, last, count = jump
        if time - first < CONFIRM_NANOS:
            self._jump = (min(first, time), max(last, time), count + 1)
            return False
        # What stands behind the last record is believed; this one may be the next jump.
        self.was_ahead = first < self.now
        if time - last <= STEP_NANOS:
            self.now, self._jump = time, None
        else:
            self.now, self._jump = last, (time, time, 1)
        return True

    def pass_wall(self, now: int) -> bool:
        """Take the wall clock of a reader that has caught up; tell whether the clock has moved."""
        self.was_ahead = False
        if now <= self.now:
            return self._is_ahead_of_wall(now)
        self.now, self._jump = now, None
        return True

    def _is_ahead_of_wall(self, now: int) -> bool:
        """Go back where the wall clock confirms what the last records say: the first ones were ahead."""
        jump = self._jump
        if jump is None or self.now <= now + AHEAD_NANOS or abs(now - jump[1]) > AHEAD_NANOS:
            return False
        self.now, self._jump = max(now, jump[1]), None
        self.was_ahead = True
        return True

    def finish(self) -> None:
        """Believe a jump of two records or more, and at most a year, behind which nothing will follow."""
        self.was_ahead = False
        if self._jump is not None and self._jump[2] > 1 and self._jump[1] - self.now <= END_JUMP_NANOS:
            self.now, self._jump = self._jump[1], None

    def to_json(self) -> list[Any]:
        """Return the clock as JSON values."""
        return [self.now, self._jump]

    def restore(self, kept: list[Any]) -> None:
        """Go on from what `to_json` gave."""
        self.now = kept[0]
        self._jump = tuple(kept[1]) if kept[1] else None
