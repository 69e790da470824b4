"""Finds the lines of some seconds in a log by bisection, without reading the rest of it.

wok-access.log has a line for each poll of each browser, and is rarely needed. So it is not
followed: nothing is stored about it, and nothing is read as long as nobody asks. What is found
depends only on the content of the files. So it is the same whenever it is read, if the lines of
these seconds are complete.

The times in a log increase, unless a clock was set back. Then bisection finds one of the two
places, or nothing. Compressed files can only be read from the beginning, so they are not searched.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from exporter.records import NANOS
from exporter.source.files import LogFile, PackedFile, open_log
from exporter.source.rotation import paths_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FOUND_BYTES_MAX: Final = 1024 * 1024
"""More than a Wok can write in some seconds. If there is more, nothing is found."""
SLACK_NANOS: Final = 2 * NANOS
"""Threads write their lines in almost the order of their times."""
BLOCK_BYTES: Final = 4 * 1024
FILES_MAX: Final = 64
"""The newest files that are searched."""


class TimedLines:
    """The lines of the log `path` and its rotated files. `time_of` returns the time of a line."""

    def __init__(self, path: Path, time_of: Callable[[bytes], int | None]) -> None:
        self._path = path
        self._time_of = time_of

    def between(self, first: int, last: int) -> Sequence[bytes] | None:
        """Return the lines with times from `first` to `last`, in nanoseconds.

        Return None if they are unknown, because a file cannot be read or has too many of them.
        """
        pieces: list[bytes] = []
        begins, ends = first - SLACK_NANOS, last + SLACK_NANOS
        try:
            for path in reversed(paths_of(self._path)[-FILES_MAX:]):
                with closing(open_log(path)) as file:
                    if isinstance(file, PackedFile):
                        return None
                    start = self._time_at(file, 0)
                    if start is None or start > ends:
                        continue
                    piece = self._piece(file, begins, ends)
                if piece is None:
                    return None
                pieces.append(piece)
                if start < begins:
                    break
        except OSError:
            return None
        lines = [line for piece in reversed(pieces) for line in piece.split(b"\n")[:-1]]
        return [line for line in lines if (time := self._time_of(line)) is not None and first <= time <= last]

    def _piece(self, file: LogFile, begins: int, ends: int) -> bytes | None:
        """Return complete lines: all with times from `begins` to `ends`, and some around them."""
        at = self._start(file, begins)
        found = bytearray()
        while len(found) <= FOUND_BYTES_MAX:
            block = file.read_at(at + len(found), BLOCK_BYTES)
            found += block
            end = found.rfind(b"\n") + 1
            newest = self._time_of(bytes(found[found.rfind(b"\n", 0, max(0, end - 1)) + 1 : end]))
            if not block or (newest is not None and newest > ends):
                return bytes(found[found.find(b"\n") + 1 if at else 0 : end])
        return None

    def _start(self, file: LogFile, time: int) -> int:
        """Return an offset that is close to the first line of this time, and before it."""
        low, high = 0, file.end()
        while high - low > BLOCK_BYTES:
            middle = (low + high) // 2
            found = self._time_at(file, middle)
            if found is not None and found < time:
                low = middle
            else:
                high = middle
        return low

    def _time_at(self, file: LogFile, offset: int) -> int | None:
        """Return the time of the first line that begins behind an offset, None without one."""
        rest = b""
        is_whole = not offset
        for at in range(offset, offset + FOUND_BYTES_MAX, BLOCK_BYTES):
            block = file.read_at(at, BLOCK_BYTES)
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                time = self._time_of(line) if is_whole else None
                is_whole = True
                if time is not None:
                    return time
            if not block:
                return None
        return None
