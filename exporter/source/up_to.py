"""Reads finished log files again, up to the position that a tail has reached in them."""

from __future__ import annotations

from exporter.records import Chunk, Line
from exporter.source.archive import Archive, ArchiveError
from exporter.source.files import open_log
from exporter.source.position import FileMark, proved_mark
from exporter.source.tail import last_mark


class UpTo:
    """Reads `archive` until `position`, which is from a tail; implements `records.Source`.

    `is_reached` is True once the position was reached. Nothing after it is returned. Raises
    ArchiveError if no file of the archive has the position, and ValueError if it is not from a
    tail that has read something.
    """

    def __init__(self, archive: Archive, position: str) -> None:
        self._archive = archive
        mark = last_mark(position)
        if mark is None:
            raise ValueError("the position of a tail that has not read anything")
        _require(archive, mark)
        self._mark = mark
        self.is_reached = False

    def read(self, limit: int) -> Chunk:
        """Return lines of about `limit` bytes; at the position, a chunk that is caught up."""
        if self.is_reached:
            return Chunk((), "", caught_up=True)
        chunk = self._archive.read(limit)
        lines: list[Line] = []
        for line in chunk.lines:
            is_of_file = line.file == self._mark.file
            if is_of_file and line.offset >= self._mark.start:
                self.is_reached = True
                break
            lines.append(line)
            if is_of_file and line.offset + line.length + line.ended >= self._mark.start:
                self.is_reached = True
                break
        return chunk._replace(lines=lines)

    @property
    def total_bytes(self) -> int:
        """The size of all files on disk."""
        return self._archive.total_bytes

    @property
    def done_bytes(self) -> int:
        """How much of it was read."""
        return self._archive.done_bytes

    def close(self) -> None:
        """Close the file that is open, if any."""
        self._archive.close()


def _require(archive: Archive, mark: FileMark) -> None:
    """Raise ArchiveError unless a file proves the mark."""
    paths = archive.paths
    for path in paths:
        file = open_log(path, is_named=True)
        try:
            if proved_mark(file, [mark], is_finished=True) is not None:
                return
        finally:
            file.close()
    raise ArchiveError(
        f"none of {len(paths):,} files has the place up to which the daemon has read"
        f" ({', '.join(map(str, paths[:3]))}{', ...' if len(paths) > 3 else ''}): name the log and all of its rotated"
        " files, of the same Wok"
    )
