"""Reads finished log files for `replay`, `check` and `text`: in order of time, each line once.

File arguments are rarely in order of time: a shell sorts `log.10.gz` before `log.2.gz`. So the
files are sorted by the time of their first records. Files without a record come first. Ties are
sorted by name, as in rotation.

If the same content is given twice (a file and its gzip copy, or an earlier copy of it), it is read
once. Marks recognize it, as in the tail.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from exporter.records import Chunk, Line, TailEvent
from exporter.source.files import open_log
from exporter.source.line_reader import LINE_BYTES_MAX, ChangedError, FirstTime, Reader, time_of_file
from exporter.source.position import (
    FileMark,
    identity,
    mark_from_json,
    proved_mark,
    shortened_mark,
)
from exporter.source.rotation import Rank, rank_of_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

POSITION_VERSION = 1


class ArchiveError(OSError):
    """Raised for a file that cannot be read; the message has its path and the remedy."""


class _Member(NamedTuple):
    path: Path
    identity: bytes
    size: int
    order: tuple[int, Rank, int]


class Archive:
    """Reads a set of finished files, plain or compressed, in order of time; implements
    `records.Source`.

    `position` is from an earlier chunk. It is valid for the same set of files, and for one with
    more files. Lines longer than `line_bytes_max` bytes are cut. `first_time` returns the time of
    the first records among some lines; without it, the names determine the order. `total_bytes` and
    `done_bytes` are sizes on disk. `file_names` maps the identity in a line to the path as given.

    Raises ArchiveError for a missing or unreadable file, at once or during reading, and ValueError
    for an invalid position. A damaged file is read up to the damage and reported by an `unreadable`
    event.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        position: str = "",
        *,
        line_bytes_max: int = LINE_BYTES_MAX,
        first_time: FirstTime | None = None,
    ) -> None:
        self._line_bytes_max = line_bytes_max
        self._first_time = first_time
        self._marks = _parsed(position)
        self._reader: Reader | None = None
        self._names: dict[bytes, Path] = {}
        self._members = sorted((self._examined(path, at) for at, path in enumerate(paths)), key=_order)
        self._total_bytes = sum(member.size for member in self._members)
        self._at = 0
        self._passed_bytes = 0
        # The unfinished mark where reading of the open file began.
        self._grown_from: FileMark | None = None

    @property
    def paths(self) -> Sequence[Path]:
        """The paths in the order in which they are read."""
        return [member.path for member in self._members]

    @property
    def total_bytes(self) -> int:
        """The total size of the files on disk."""
        return self._total_bytes

    @property
    def done_bytes(self) -> int:
        """The part of `total_bytes` that was read, or skipped because it was read before."""
        if self._reader is None:
            return self._passed_bytes
        ahead = self._reader.file.bytes_after(self._reader.offset)
        return self._passed_bytes + max(0, self._members[self._at].size - ahead)

    @property
    def file_names(self) -> Mapping[bytes, Path]:
        """The paths as given, by identity of the file; of several with the same content, the first
        one.
        """
        return self._names

    def read(self, limit: int) -> Chunk:
        """Return lines of about `limit` bytes; after the last file, a chunk that is caught up."""
        events: list[TailEvent] = []
        while self._at < len(self._members):
            try:
                lines = self._taken(limit, events)
            except OSError as error:
                raise _explained(error, self._members[self._at].path) from error
            if lines is not None:
                return Chunk(lines, self._position(), events, caught_up=False, behind=self._behind())
        return Chunk((), self._position(), events, caught_up=True)

    def close(self) -> None:
        """Close the file that is open, if any."""
        if self._reader is not None:
            self._reader.file.close()
            self._reader = None

    def _taken(self, limit: int, events: list[TailEvent]) -> Sequence[Line] | None:
        """Return the next lines of the current file, or None after moving to the next file."""
        reader = self._reader = self._reader or self._begun()
        offset = reader.offset
        try:
            lines = reader.take(limit)
            if reader.offset == offset and not self._is_continued(reader):
                lines = reader.take_unfinished()
        except ChangedError:
            events.append(TailEvent("unreadable", f"{reader.file.path} changed while it was read"))
            lines = []
        if lines or reader.offset != offset:
            return lines
        if reader.file.damage:
            detail = f"{reader.file.path} is damaged after byte {reader.offset}: {reader.file.damage}"
            events.append(TailEvent("unreadable", detail))
        self._marks = list(dict.fromkeys(self._marks_with(reader.mark(done=True))))
        self.close()
        self._passed_bytes += self._members[self._at].size
        self._at += 1
        return None

    def _begun(self) -> Reader:
        member = self._members[self._at]
        file = open_log(member.path, is_named=True)
        try:
            mark = proved_mark(file, self._marks, is_finished=True)
            self._grown_from = mark if mark is not None and not mark.done else None
            # This file may be a copy of which more was read than the mark of an even earlier copy
            # shows.
            end = shortened_mark(file, self._marks, is_finished=True)
            is_more = end is not None and (mark is None or mark.offset < end.offset)
            if end is not None and is_more and self._is_beginning_of_another(end, member):
                mark = end
                self._grown_from = None
            return Reader(file, mark, self._line_bytes_max)
        except BaseException:
            file.close()
            raise

    def _is_beginning_of_another(self, end: FileMark, member: _Member) -> bool:
        """Return whether another file proves that all of this one was read.

        An equal first line is not enough.
        """
        for other in self._members:
            if other.identity != member.identity or other is member:
                continue
            file = open_log(other.path, is_named=True)
            try:
                if proved_mark(file, [end], is_finished=True) is not None:
                    return True
            finally:
                file.close()
        return False

    def _is_continued(self, reader: Reader) -> bool:
        """Return whether a file that is not read yet has the unfinished last line too, or all of
        it.
        """
        if not reader.unfinished():
            return False
        for other in self._members[self._at + 1 :]:
            if reader.offset and other.identity != reader.identity:
                continue
            file = open_log(other.path, is_named=True)
            try:
                if reader.is_held_by(file):
                    return True
            finally:
                file.close()
        return False

    def _examined(self, path: Path, at: int) -> _Member:
        """Open a file once, to get its identity, its size and the time of its first records."""
        try:
            file = open_log(path, is_named=True)
            try:
                known = identity(file, is_finished=True)
                time = None
                if self._first_time is not None:
                    time = time_of_file(file, self._first_time, self._line_bytes_max)
                size = file.status().st_size
            finally:
                file.close()
        except OSError as error:
            raise _explained(error, path) from error
        if known:
            self._names.setdefault(known, path)
        return _Member(path, known, size, (time or 0, rank_of_name(path.name), at))

    def _behind(self) -> int:
        return max(0, self.total_bytes - self.done_bytes)

    def _marks_with(self, mark: FileMark | None) -> list[FileMark]:
        if mark is None:
            return self._marks
        # Two files may have the same first line, and one may be a shorter copy of the other. So a
        # mark replaces only the unfinished mark that it continues.
        return [*(one for one in self._marks if one != self._grown_from), mark]

    def _position(self) -> str:
        marks = self._marks_with(self._reader.mark()) if self._reader is not None else self._marks
        value = {"version": POSITION_VERSION, "files": [mark.as_json() for mark in marks]}
        return json.dumps(value, separators=(",", ":"))


def _order(member: _Member) -> tuple[int, Rank, int]:
    return member.order


def _explained(error: OSError, path: Path) -> ArchiveError:
    if error.errno is None:
        return ArchiveError(str(error))
    remedy = (
        "check the path" if isinstance(error, FileNotFoundError) else "check its permissions and its disk"
    )
    return ArchiveError(f"cannot read {path}: {error.strerror}; {remedy}")


def _parsed(position: str) -> list[FileMark]:
    if not position:
        return []
    match json.loads(position):
        case {"version": 1, "files": list() as marks}:
            return [mark_from_json(mark) for mark in marks]
        case _:
            raise ValueError(f"not the position of an archive: {position[:80]!r}")
