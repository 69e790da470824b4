"""The progress of a long read, on a line that is erased when the read ends.

It is written only to a terminal, and not during the first second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from exporter.terminal.screen import StatusLine

FIRST_SECONDS = 1.0
"""A shorter read needs no progress line."""
NEXT_SECONDS = 0.2


class ProgressLine:
    """Shows on `screen`, if it is a terminal, how much of `total_bytes` is read; `clock` is in
    seconds.
    """

    def __init__(self, screen: TextIO, total_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._line = StatusLine(screen)
        self._total_bytes = total_bytes
        self._clock = clock
        self._next_seconds = clock() + FIRST_SECONDS

    def show(self, done_bytes: int, lines: int) -> None:
        """Draw the line, unless it was drawn a moment ago."""
        if self._clock() < self._next_seconds:
            return
        self._next_seconds = self._clock() + NEXT_SECONDS
        self._line.show(f"{done_bytes / max(1, self._total_bytes):4.0%}  {lines:,} lines")

    def clear(self) -> None:
        """Erase the line, so that the next output starts at the left."""
        self._line.show("")
