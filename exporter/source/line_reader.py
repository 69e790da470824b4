"""Reads the complete lines of one open log file, each once, from its beginning or from a mark.

Only the byte 0x0A ends a line: logs before Wok 2.3 contain raw U+2028, U+0085 and carriage returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, repeat
from typing import TYPE_CHECKING

from exporter.records import Line
from exporter.source.position import HEAD_BYTES_MAX, PROOF_BYTES, FileMark, bytes_before, digest

if TYPE_CHECKING:
    from exporter.source.files import LogFile

LINE_BYTES_MAX = 1024 * 1024
"""Longest line that is kept whole. Wok logs whole request bodies, so its lines are unbounded. The
longest line seen in a real log had 37 KB: a failed request whose error quotes the whole request."""

LINES_MAX = 20_000
"""Maximum lines per read: a file of newlines must not become half a million values at once."""

COUNT_BYTES = 1024 * 1024
ESCAPED_NEWLINE = b"\\n"
"""A newline in the JSON of a line. In a line that is cut, the count bounds how many lines continue
it.
"""

KEPT_BYTES = 4096
"""Bytes kept of a line that is too long: enough to recognize it."""


FIRST_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of a file that are searched for its first records."""

FirstTime = Callable[[Sequence[Line]], int | None]
"""Returns the time of the first records among some lines in nanoseconds, or
None without records.
"""


def time_of_file(file: LogFile, first_time: FirstTime, line_bytes_max: int) -> int | None:
    """Return the time of the first records of a file, or None if its first 8 MiB have none."""
    reader = Reader(file, None, line_bytes_max)
    while reader.offset < FIRST_BYTES_MAX:
        offset = reader.offset
        taken = reader.take(64 * 1024)
        if reader.offset == offset:
            taken = reader.take_unfinished()
        time = first_time(taken)
        if time is not None:
            return time
        if reader.offset == offset:
            break
    return None


def _escaped_newlines(file: LogFile, start: int, end: int) -> int:
    """Count the escaped newlines of a part of a file, in pieces of bounded size."""
    found = 0
    is_open = False
    while start < end:
        data = file.read_at(start, min(COUNT_BYTES, end - start))
        if not data:
            break
        found += data.count(ESCAPED_NEWLINE) + (is_open and data.startswith(b"n"))
        is_open = data.endswith(b"\\")
        start += len(data)
    return found + is_open


class ChangedError(Exception):
    """Raised if the bytes before an offset are not those that were read: the file was truncated."""


class Reader:
    """Reads the lines of one open file, from its beginning or from a mark that it proves.

    `identity` is empty until the first line is complete; until then there are no lines. `offset` is
    the end of everything returned so far. Every method can raise OSError. Raises ChangedError for a
    mark that the file does not prove.
    """

    def __init__(self, file: LogFile, mark: FileMark | None, line_bytes_max: int) -> None:
        self.file = file
        self.identity = mark.file if mark else b""
        self.offset = mark.offset if mark else 0
        self._start = mark.start if mark else 0
        self._newlines = 0
        self._before = bytes_before(file, self.offset)
        if mark and digest(self._before) != mark.proof:
            raise ChangedError
        if self._start < self.offset:
            self._newlines = _escaped_newlines(file, self._start, self.offset)
        self._line_bytes_max = line_bytes_max
        self._kept_bytes = min(KEPT_BYTES, line_bytes_max)
        # A long line is skipped in pieces, but only once its beginning is enough for the identity.
        self._window_bytes_max = max(line_bytes_max, HEAD_BYTES_MAX) + 1

    def mark(self, *, done: bool = False) -> FileMark | None:
        """Return the mark of the place reached, or None while the file has no identity."""
        if not self.identity:
            return None
        return FileMark(self.identity, self.offset, self._start, digest(self._before), done)

    def is_proved(self) -> bool:
        """Return whether the bytes before the offset are still those that were read."""
        return self._before == bytes_before(self.file, self.offset)

    def take(self, limit: int) -> list[Line]:
        """Return complete lines of about `limit` bytes, at least one if there is one.

        Only the beginning of a line that is too long is kept. While such a line is skipped, the
        offset moves but no line is returned. Raises ChangedError if the file was truncated before
        the offset.
        """
        is_inside = self._start < self.offset
        window = max(limit, 1)
        while True:
            data = self.file.read_at(self.offset, window)
            parts = data.split(b"\n")
            rest = parts.pop()
            if parts or is_inside or len(rest) < window or window >= self._window_bytes_max:
                break
            window = min(2 * window, self._window_bytes_max)
        # Check after reading: this detects a truncation before the read; a later one does not
        # affect `data`.
        if not self.file.is_packed and not self.is_proved():
            raise ChangedError
        if not parts and not is_inside and len(rest) < self._window_bytes_max:
            return []
        if not self.identity:
            self.identity = digest((parts[0] if parts else rest)[:HEAD_BYTES_MAX])
        if not parts:
            if not is_inside:
                self._newlines = 0
            # The end of a read may split an escape: count it, so that the count is never too low.
            self._newlines += data.count(ESCAPED_NEWLINE) + data.endswith(b"\\")
            self._move(len(data), data[-PROOF_BYTES:], self._start)
            return []
        lines: list[Line] = []
        offset = self.offset
        if len(parts) > LINES_MAX:
            del parts[LINES_MAX:]
            rest = data[sum(map(len, parts)) + len(parts) :]
        if is_inside:
            offset += len(parts[0]) + 1
            self._newlines += parts[0].count(ESCAPED_NEWLINE)
            lines.append(self._cut_line(offset - 1 - self._start))
            del parts[0]
        lines += self._lines(offset, parts)
        taken = len(data) - len(rest)
        self._move(taken, data[max(0, taken - PROOF_BYTES) : taken], self.offset + taken)
        return lines

    def unfinished(self) -> bytes:
        """Return the bytes after the last newline that were not skipped already."""
        return self.file.read_at(self.offset, self._window_bytes_max)

    def take_unfinished(self) -> list[Line]:
        """Return the last line without a newline, of a file that is no longer written to."""
        rest = self.unfinished()
        length = self.offset - self._start + len(rest)
        if not length:
            return []
        if not self.identity:
            self.identity = digest(rest[:HEAD_BYTES_MAX])
        if length <= self._line_bytes_max:
            line = Line(self.identity, self._start, rest, length, ended=False)
        else:
            self._newlines += rest.count(ESCAPED_NEWLINE)
            line = self._cut_line(length)._replace(ended=False)
        self._move(len(rest), rest[-PROOF_BYTES:], self.offset + len(rest))
        return [line]

    def is_held_by(self, other: LogFile) -> bool:
        """Return whether `other` has the same bytes around the offset: one of
        the files is a copy.
        """
        here = self._before + self.unfinished()[:KEPT_BYTES]
        return other.read_at(self.offset - len(self._before), len(here)) == here

    def _lines(self, offset: int, parts: list[bytes]) -> list[Line]:
        """Return the parts as lines from `offset` on. Built in C, which takes a
        third of the time.
        """
        lengths = [len(part) for part in parts]
        offsets = accumulate([length + 1 for length in lengths], initial=offset)
        fields = zip(repeat(self.identity), offsets, parts, lengths, repeat(True), repeat(0))
        lines: list[Line] = list(map(partial(tuple.__new__, Line), fields))
        if lengths and max(lengths) > self._line_bytes_max:
            return [self._cut(line) for line in lines]
        return lines

    def _cut(self, line: Line) -> Line:
        if line.length <= self._line_bytes_max:
            return line
        return line._replace(data=line.data[: self._kept_bytes], newlines=line.data.count(ESCAPED_NEWLINE))

    def _cut_line(self, length: int) -> Line:
        data = self.file.read_at(self._start, self._kept_bytes)
        return Line(self.identity, self._start, data, length, newlines=self._newlines)

    def _move(self, size: int, tail: bytes, start: int) -> None:
        """Advance by `size` bytes, whose last bytes are `tail`."""
        self.offset += size
        self._before = (self._before + tail)[-PROOF_BYTES:]
        self._start = start
