"""How far a long reading is, on a line of its own that is gone when the reading ends.

Only for a person who waits: nothing is written where there is no terminal, and nothing before a second has gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from exporter.terminal.screen import StatusLine

FIRST_SECONDS = 1.0
"""Who waits for less does not want to be told how long."""
NEXT_SECONDS = 0.2


class ProgressLine:
    """Draws on `screen` how many of `total_bytes` are read, if it is a terminal; `clock` is in seconds."""

    def __init__(self, screen: TextIO, total_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._line = StatusLine(screen)
        self._total_bytes = total_bytes
        self._clock = clock
        self._next_seconds = clock() + FIRST_SECONDS

    def show(self, done_bytes: int, lines: int) -> None:
        """Draw the line anew, unless that was done a moment ago."""
        if self._clock() < self._next_seconds:
            return
        self._next_seconds = self._clock() + NEXT_SECONDS
        self._line.show(f"{done_bytes / max(1, self._total_bytes):4.0%}  {lines:,} lines")

    def clear(self) -> None:
        """Wipe the line out, so that what is printed next begins at the left."""
        self._line.show("")
