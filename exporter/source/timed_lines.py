"""Finds the lines of some seconds in a log by bisection, without reading the rest of it.

wok-access.log has a line for each poll of each browser, and is rarely needed. So it is not
followed: nothing is stored about it, and nothing is read as long as nobody asks. What is found
depends only on the content of the files. So it is the same whenever it is read, if the lines of
these seconds are complete.

The times in a log increase, unless a clock was set back. Then bisection finds one of the two
places, or nothing. A compressed file can only be read forwards. It stays open where the last search
ended, because the next one is usually for a later time.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.records import NANOS
from exporter.source.files import LogFile, PackedFile, open_log
from exporter.source.rotation import paths_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

FOUND_BYTES_MAX: Final = 1024 * 1024
"""More than a Wok can write in some seconds. If there is more, nothing is found."""
SLACK_NANOS: Final = 2 * NANOS
"""Threads write their lines in almost the order of their times."""
BLOCK_BYTES: Final = 4 * 1024
PACKED_BLOCK_BYTES: Final = 256 * 1024
PACKED_BYTES_MAX: Final = 512 * 1024 * 1024
"""How much of a compressed file is searched, in a second or two."""
FILES_MAX: Final = 64
"""The newest files that are searched."""


class TimedLines:
    """The lines of the log `path` and its rotated files. `time_of` returns the time of a line."""

    def __init__(self, path: Path, time_of: Callable[[bytes], int | None]) -> None:
        self._path = path
        self._time_of = time_of
        self._packed: _Packed | None = None

    def between(self, first: int, last: int) -> Sequence[bytes] | None:
        """Return the lines with times from `first` to `last`, in nanoseconds.

        Return None if they are unknown, because a file cannot be read or has too many of them.
        """
        pieces: list[bytes] = []
        begins, ends = first - SLACK_NANOS, last + SLACK_NANOS
        try:
            for path in reversed(paths_of(self._path)[-FILES_MAX:]):
                start, piece = self._searched(path, begins, ends)
                if start is None or start > ends:
                    continue
                if piece is None:
                    return None
                pieces.append(piece)
                if start < begins:
                    break
        except OSError:
            return None
        lines = [line for piece in reversed(pieces) for line in piece.split(b"\n")[:-1]]
        return [line for line in lines if (time := self._time_of(line)) is not None and first <= time <= last]

    def close(self) -> None:
        """Close the file that is kept open, if any. A further search opens it again."""
        if self._packed is not None:
            self._packed.file.close()
            self._packed = None

    def _searched(self, path: Path, begins: int, ends: int) -> tuple[int | None, bytes | None]:
        """Return the time of the first line of a file, and its lines from `begins` to `ends`."""
        with ExitStack() as stack:
            file = stack.enter_context(closing(open_log(path)))
            packed = self._packed
            if isinstance(file, PackedFile):
                if packed is None or packed.file.key != file.key:
                    self.close()
                    stack.pop_all()
                    packed = self._packed = _Packed(file)
                    packed.first = self._time_at(file, 0)
                is_needed = packed.first is not None and packed.first <= ends
                return packed.first, self._packed_piece(packed, begins, ends) if is_needed else None
            first = self._time_at(file, 0)
            is_needed = first is not None and first <= ends
            return first, self._piece(file, begins, ends) if is_needed else None

    def _packed_piece(self, packed: _Packed, begins: int, ends: int) -> bytes | None:
        """Return the same as `_piece` for a compressed file."""
        file = packed.file
        first = self._first_time(file.read_at(packed.at, PACKED_BLOCK_BYTES).split(b"\n")[:-1])
        if first is None or first >= begins:
            packed.at = 0
        while packed.at <= PACKED_BYTES_MAX:
            block = file.read_at(packed.at, PACKED_BLOCK_BYTES)
            last = self._first_time(reversed(block.split(b"\n")[:-1]))
            if last is None or last >= begins:
                break
            packed.at += block.rfind(b"\n") + 1
        size = PACKED_BLOCK_BYTES
        while size <= FOUND_BYTES_MAX + PACKED_BLOCK_BYTES and packed.at <= PACKED_BYTES_MAX:
            found = file.read_at(packed.at, size)
            newest = self._first_time(reversed(found.split(b"\n")[:-1]))
            if len(found) < size or (newest is not None and newest > ends):
                return None if file.damage else found[: found.rfind(b"\n") + 1]
            size += PACKED_BLOCK_BYTES
        return None

    def _first_time(self, lines: Iterable[bytes]) -> int | None:
        return next((time for line in lines if (time := self._time_of(line)) is not None), None)

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


@dataclass
class _Packed:
    """A compressed file and where the last search ended. `first` is the time of its first line."""

    file: PackedFile
    first: int | None = None
    at: int = 0
