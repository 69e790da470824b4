"""The clock of the log: the time that the log has reached, although some timestamps are wrong.

A clock that was ahead writes some records with future times. Then the log goes back. Such times
must not end running tasks, and the log clock must not stay there. A time more than a minute away is
therefore accepted only after the log has continued there for ten minutes. That is early enough,
because the expiry is measured in hours.

When the reader has caught up, the wall clock moves the log clock forward. It sets the log clock
back only if the log was more than a day ahead and its last records agree with the wall clock. A
smaller lead can be another time zone, and the result must not depend on when the log is read.
"""

from __future__ import annotations

from typing import Any

from exporter.records import NANOS

STEP_NANOS = 60 * NANOS
"""A record within this distance moves the clock."""
CONFIRM_NANOS = 600 * NANOS
"""A jump is accepted when the log has continued behind it for this long."""
AHEAD_NANOS = 86_400 * NANOS
"""A time further ahead of the wall clock than this is not another time zone: the clock was wrong.
"""
END_JUMP_NANOS = 366 * 86_400 * NANOS
"""The end of a log does not confirm a longer jump: a wrong clock is more likely than a Wok that was
unused for years."""


class LogClock:
    """The time that the log has reached, in nanoseconds. It is 0 before the first record."""

    def __init__(self) -> None:
        self.now = 0
        # First and last time behind a jump that is not accepted yet, and the number of its records.
        self._jump: tuple[int, int, int] | None = None
        self.was_ahead = False
        """Whether the last record showed that earlier ones were ahead of their time."""

    def pass_record(self, time: int) -> bool:
        """Process the time of the next record.

        Return whether the clock moved or earlier records were ahead.
        """
        self.was_ahead = False
        if abs(time - self.now) <= STEP_NANOS or not self.now:
            self.was_ahead = self._jump is not None
            self._jump = None
            if time <= self.now:
                return self.was_ahead
            self.now = time
            return True
        jump = self._jump
        # One record later than the clock and one earlier are two different jumps.
        is_other = jump is not None and (jump[0] < self.now) != (time < self.now)
        if jump is None or is_other or time < jump[0] - STEP_NANOS:
            self._jump = (time, time, 1)
            return False
        first, last, count = jump
        if time - first < CONFIRM_NANOS:
            self._jump = (min(first, time), max(last, time), count + 1)
            return False
        # The jump up to the last record is accepted. This record may be the next jump.
        self.was_ahead = first < self.now
        if time - last <= STEP_NANOS:
            self.now, self._jump = time, None
        else:
            self.now, self._jump = last, (time, time, 1)
        return True

    def pass_wall(self, now: int) -> bool:
        """Process the wall clock when the reader has caught up. Return whether the clock moved."""
        self.was_ahead = False
        if now <= self.now:
            return self._is_ahead_of_wall(now)
        self.now, self._jump = now, None
        return True

    def _is_ahead_of_wall(self, now: int) -> bool:
        """Go back if the wall clock confirms the last records: then the earlier ones were ahead."""
        jump = self._jump
        if jump is None or self.now <= now + AHEAD_NANOS or abs(now - jump[1]) > AHEAD_NANOS:
            return False
        self.now, self._jump = max(now, jump[1]), None
        self.was_ahead = True
        return True

    def finish(self) -> None:
        """Accept a jump of at least two records, and at most a year, at the end of the log."""
        self.was_ahead = False
        if self._jump is not None and self._jump[2] > 1 and self._jump[1] - self.now <= END_JUMP_NANOS:
            self.now, self._jump = self._jump[1], None

    def to_json(self) -> list[Any]:
        """Return the clock as JSON values."""
        return [self.now, self._jump]

    def restore(self, kept: list[Any]) -> None:
        """Continue from the result of `to_json`."""
        self.now = kept[0]
        self._jump = tuple(kept[1]) if kept[1] else None
