"""Follows a growing log: returns every complete line once, in order, across rotation and restarts.

How it handles each change of a log:

* *Rotation by renaming* (`log` becomes `log.1`, and a new `log` appears). The open file is read to
  its end. Reading moves on only once a later file is not empty, because a logger that keeps its
  file open (Wok 2.1) may continue to write to the old file, even after it was compressed and
  unlinked. Then the next file in the order of `rotation.generations` is read, and so on.
* *A restart of the exporter* uses the same search. The position has marks (`position.FileMark`) of
  the last files. Reading continues in the newest file that proves a mark, plain or compressed,
  whatever its name is now.
* *copytruncate* (`log` is copied to `log.1` and truncated) is detected when the bytes before the
  offset are gone. If the copy has more than was read, that is read first, then `log` from its
  beginning. A logger that does not append (no O_APPEND) leaves a hole of NUL bytes, which is
  returned unchanged.
* *The last line without a newline* is not returned while it may still be completed. If the file is
  no longer written to, the line is returned with `ended=False`.

Lines that can be lost:

* Lines of a file that was deleted or truncated while the exporter did not read it (event `gap` if
  this is detected).
* With copytruncate, lines that were written between the copy and the truncation, and lines that
  `rotate 0` or a later copy overwrote.
* Lines after the damage in a damaged compressed file (event `gap`, after some retries).
* Lines of a rotated `.zst` file if no library for it is installed and the file was not read before
  it was compressed (event `unreadable`).

Lines that can be returned twice: those of a file that somebody rewrote in place, or restored with a
changed beginning or end. If the first line is unchanged, they have the same identity and offsets.
Two files with the same first line are distinguished by the 256 bytes before the offset, which must
differ.

A crash can happen at any time: the position in a chunk describes exactly the lines returned so far.
"""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.records import Chunk, Line, TailEvent
from exporter.source.choice import Became, Facts, Look, Place, Read, Wait, choose_next
from exporter.source.files import LogFile, UnsupportedError, open_log, require_regular
from exporter.source.line_reader import (
    LINE_BYTES_MAX,
    ChangedError,
    FirstTime,
    Reader,
    time_of_file,
)
from exporter.source.position import (
    KNOWN_LINES_MAX,
    FileMark,
    KnownLines,
    identity,
    last_line_end,
    mark_at,
    mark_from_json,
    proved_mark,
    shortened_mark,
)
from exporter.source.rotation import Generation, generations

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MARKS_MAX = 8
"""Marks in a position: if the last files are gone, earlier marks show which files are old."""

DAMAGE_READS_MAX = 3
"""Retries of a damaged compressed file, which may still be being written."""

POSITION_VERSION = 1

KNOWN_BYTES = 64 * 1024
"""Bytes read before a position to get the last lines, if the position does not contain them."""

QUIET_NANOS = 1_000_000_000
"""A listing is only reused if the directory was unchanged for this time before it. The modification
time of a directory is as coarse as the kernel's tick, and on some file systems a second.
"""

TIMES_MAX = 20_000
"""Files whose times are cached: more than anybody keeps, in a megabyte or two of memory."""

_REMEDIES = {
    errno.EACCES: "give the exporter's user read access",
    errno.EPERM: "give the exporter's user read access",
    errno.EMFILE: "raise the limit of open files (LimitNOFILE=)",
    errno.ENFILE: "raise the system's limit of open files (fs.file-max)",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the network file system",
    errno.ELOOP: "remove the loop of symbolic links",
}
_OTHER_REMEDY = "put the log back in its place"


class Tail:
    """Reads a log that grows and rotates; implements `records.Source`.

    `path` is the log itself. Its rotated files are searched beside it and in `olddir`. `first_time`
    returns the time of the first records among some lines, for files that do not sort by name.
    `position` is from an earlier chunk. If it is empty, this is a first start: it begins with the
    oldest file, or after the last complete line if `from_end` is True. Lines longer than
    `line_bytes_max` bytes are cut. `problem` says why the log cannot be read now and what to do; it
    is empty if there is no problem. Raises ValueError for an invalid position.
    """

    def __init__(
        self,
        path: Path,
        position: str = "",
        *,
        line_bytes_max: int = LINE_BYTES_MAX,
        from_end: bool = False,
        olddir: Path | None = None,
        first_time: FirstTime | None = None,
    ) -> None:
        self._path = path
        self._olddir = olddir
        self._times = ContentTimes(first_time, line_bytes_max) if first_time is not None else None
        self._line_bytes_max = line_bytes_max
        self._marks, self._known, log = _parsed(position)
        self._is_of_another_log = log not in {"", str(path)}
        self._skips_to_end = from_end and not position
        self._reader: Reader | None = None
        self._was_live = False
        self._settled = (0, 0)  # size and mtime of the live file after all complete lines were read
        self._waited: list[Generation] = []  # the listing in which no successor was found
        # The rotated files at the time when the live file was opened.
        self._past: set[tuple[int, int]] | None = None
        self._newer_bytes = 0
        self._bytes_behind = 0
        self._damage_reads = 0
        # The listing at the time when a finished file was opened, from that file on.
        self._plan: list[Generation] = []
        # Modification times of the directories at that time; empty if `_plan` may be stale.
        self._plan_times: tuple[int, ...] = ()
        self._listed_times: tuple[int, ...] = ()
        self._was_cut = False  # the live file was truncated and not read since
        self._written_marks: list[FileMark] | None = None
        self._written = ""
        self._skipped: set[tuple[int, int]] = set()
        self._events: list[TailEvent] = []
        self._trouble = ""
        self.problem = ""

    def read(self, limit: int) -> Chunk:
        """Return complete lines of at most about `limit` bytes, or one longer line; never block.

        If the log cannot be read, this does not raise: `problem` has the reason, each change of the
        reason gives one `unreadable` event, and the next call retries. A chunk that is caught up
        can have lines.
        """
        self._trouble = ""
        lines: Sequence[Line] = ()
        is_caught_up = is_readable = True
        live = self._live_status()
        try:
            lines, is_caught_up = self._step(limit, live)
            self._bytes_behind = self._behind(live)
        except FileNotFoundError:
            is_caught_up = False  # a file was renamed after the listing: the next call lists again
            self._plan = []
        except OSError as error:
            is_readable = False
            self._note(error)
        if self._trouble != self.problem:
            self.problem = self._trouble
            if self.problem:
                self._events.append(TailEvent("unreadable", self.problem))
        events, self._events = self._events, []
        return Chunk(lines, self._position(), events, is_caught_up, self._bytes_behind, is_readable)

    def _generations(self) -> list[Generation]:
        times = self._folder_times()
        now = time.time_ns()
        is_quiet = bool(times) and all(time_ns + QUIET_NANOS < now for time_ns in times)
        self._listed_times = times if is_quiet else ()
        return generations(self._path, olddir=self._olddir, time_of=self._times)

    def _folder_times(self) -> tuple[int, ...]:
        """Return the modification times of the log's directories; empty if they are unreadable."""
        real = Path(os.path.realpath(self._path)).parent
        folders = (real,) if self._olddir is None else (real, real / self._olddir)
        try:
            return tuple(folder.stat().st_mtime_ns for folder in folders)
        except OSError:
            return ()

    def close(self) -> None:
        """Close the open file, if any; a later read opens it again."""
        if self._reader is not None:
            self._marks = self._marks_with(self._reader.mark())
            self._reader.file.close()
            self._reader = None

    def _live_status(self) -> os.stat_result | None:
        try:
            status = self._path.stat()
            require_regular(self._path, status)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._note(error)
            return None
        return status

    def _note(self, error: OSError) -> None:
        """Set the text of the problem; close the open file if its handle is stale."""
        if error.errno is None:
            self._trouble = str(error)
        else:
            remedy = _REMEDIES.get(error.errno, _OTHER_REMEDY)
            self._trouble = (
                f"cannot read {error.filename or self._path}: {os.strerror(error.errno)}; {remedy}"
            )
        if error.errno == errno.ESTALE:
            self.close()

    def _step(self, limit: int, live: os.stat_result | None) -> tuple[Sequence[Line], bool]:
        try:
            return self._read(limit, live)
        except ChangedError:
            self._follow_truncation(live)
            return (), False

    def _read(self, limit: int, live: os.stat_result | None) -> tuple[Sequence[Line], bool]:
        """Return lines, and whether these were the last complete ones."""
        if self._reader is None and not self._resume():
            return (), True
        while (reader := self._reader) is not None:
            here = live if live is not None and _key(live) == reader.file.key else None
            self._was_live |= here is not None
            if here is not None and self._is_settled(here, reader):
                return (), True
            offset = reader.offset
            lines: Sequence[Line] = reader.take(limit)
            if reader.offset != offset:
                self._damage_reads = 0
                if offset == 0 and (
                    self._has_other_past(reader) or (here is not None and self._is_known(reader))
                ):
                    self._forget(reader)
                    return (), False
                self._known.add([line.data for line in lines[-KNOWN_LINES_MAX:]])
                return lines, here is not None and here.st_size == reader.offset
            if here is not None:
                self._settled = (here.st_size, here.st_mtime_ns)
                return (), True
            if reader.file.damage and self._damage_reads < DAMAGE_READS_MAX:
                self._damage_reads += 1
                reader.file.retry()
                return (), True
            lines = self._move_on(reader, limit)
            if self._reader is reader:
                return lines, not lines and reader.offset == offset
        return (), False

    def _is_settled(self, live: os.stat_result, reader: Reader) -> bool:
        """Return whether the live file has nothing new: a read of a quiet log costs only this."""
        is_same = live.st_size == reader.offset or (live.st_size, live.st_mtime_ns) == self._settled
        return is_same and reader.is_proved()

    def _has_other_past(self, reader: Reader) -> bool:
        """Return whether files were rotated since this one was opened: one may be a copy of it.

        This is checked once per file, after its first lines were read and before they are returned.
        A truncation before that is not noticed otherwise, because a file without lines has no
        identity. The file itself may have been renamed meanwhile.
        """
        if self._past is None:
            return False
        try:
            return _rotated(self._generations()) - {reader.file.key} != self._past
        except OSError:
            self._forget(reader)  # the lines that were just read are not returned
            raise

    def _is_known(self, reader: Reader) -> bool:
        """Return whether a truncated and rewritten file has known lines: an editor saved the log.

        If so, add a mark after these lines, so that reading continues there.
        """
        if not self._was_cut:
            return False
        self._was_cut = False
        mark = self._known.place(reader.file)
        if mark is None:
            return False
        self._marks = self._marks_with(mark)
        return True

    def _forget(self, reader: Reader) -> None:
        reader.file.close()
        self._reader = None

    def _resume(self) -> bool:
        """Open the file in which reading continues; return False if there is none."""
        listed = self._generations()
        if self._skips_to_end:
            self._marks = self._ends(listed)
            self._skips_to_end = False
        decision = self._choose(listed, Place(self._marks))
        if isinstance(decision, Wait):
            if decision.error is not None:
                raise decision.error
            if listed:
                self._report_gap()
            if not self._trouble:
                self._trouble = f"{self._path} does not exist; check the configured path, or start wokd"
            return False
        if decision.is_gap:
            self._report_gap()
        self._is_of_another_log = False
        self._begin(_open(listed[decision.at]), decision.mark, listed, decision.at)
        if decision.became is not None:
            name = listed[decision.at].path.name
            self._events.append(TailEvent(decision.became, f"now {name}"))
        return True

    def _choose(self, listed: Sequence[Generation], place: Place) -> Read | Wait:
        """Call `choose_next` until it decides, and open the files whose facts it needs."""
        facts: dict[int, Facts] = {}
        while isinstance(decision := choose_next(listed, place, facts), Look):
            one = listed[decision.at]
            if decision.deep:
                facts[decision.at] = facts[decision.at]._replace(edited=self._searched(one), searched=True)
            else:
                facts[decision.at] = self._facts(one, place.marks)
        return decision

    def _facts(self, one: Generation, marks: Sequence[FileMark]) -> Facts:
        """Open a file and return its facts. Raises FileNotFoundError if it was renamed."""
        try:
            file = self._opened(one)
        except FileNotFoundError:
            raise
        except OSError as error:
            return Facts(error=error)
        if file is None:
            return Facts(supported=False)
        try:
            return _proved_in(file, marks, is_finished=not one.is_live)
        finally:
            file.close()

    def _searched(self, one: Generation) -> FileMark | None:
        """Return the mark after the last known line of a file, or None."""
        file = self._opened(one) if self._known else None
        if file is None:
            return None
        try:
            return self._known.place(file)
        finally:
            file.close()

    def _ends(self, listed: Sequence[Generation]) -> list[FileMark]:
        """Return marks at the ends of the last files, as if everything was read."""
        marks: list[FileMark] = []
        for one in listed[-MARKS_MAX:]:
            file = self._opened(one)
            if file is None:
                continue
            try:
                if known := identity(file, is_finished=not one.is_live):
                    end = last_line_end(file, file.end()) if one.is_live else file.end()
                    marks.append(mark_at(file, known, end)._replace(done=not one.is_live))
            finally:
                file.close()
        return marks

    def _report_gap(self) -> None:
        if self._is_of_another_log:
            # The marks are from another log, which was read to its end before the path was changed.
            self._marks = []
        if self._marks and not self._marks[-1].done:
            read = self._marks[-1].offset
            self._marks[-1] = self._marks[-1]._replace(done=True)
            detail = f"the file that was read up to byte {read} is gone; what followed there is lost"
            self._events.append(TailEvent("gap", detail))

    def _opened(self, one: Generation) -> LogFile | None:
        """Open a file, or return None if its library is missing: later files are still read."""
        try:
            return _open(one)
        except UnsupportedError as error:
            if one.key not in self._skipped:
                self._skipped.add(one.key)
                self._events.append(TailEvent("unreadable", str(error)))
            return None

    def _begin(self, file: LogFile, mark: FileMark | None, listed: Sequence[Generation], index: int) -> None:
        """Start reading `file`, which is the one at `index`; the tail closes it."""
        try:
            reader = Reader(file, mark, self._line_bytes_max)
        except BaseException:
            file.close()
            raise
        if self._reader is not None:
            self._reader.file.close()
        self._reader = reader
        self._was_live = False
        self._settled = (-1, 0)
        self._waited = []
        self._damage_reads = 0
        one = listed[index]
        if self._plan_times and len(self._plan) > 1 and self._plan[1] == one:
            del self._plan[0]
            self._newer_bytes -= one.size
        else:
            self._plan = list(listed[index:])
            self._plan_times = self._listed_times
            self._newer_bytes = sum(one.size for one in listed[index + 1 :] if not one.is_live)
        self._past = _rotated(listed) if one.is_live else None
        if mark is not None and not self._known:
            before = file.read_at(max(0, mark.offset - KNOWN_BYTES), min(mark.offset, KNOWN_BYTES))
            self._known.add(before.split(b"\n")[1:-1])

    def _move_on(self, reader: Reader, limit: int) -> Sequence[Line]:
        """Move on to the next file that is not empty, if any; return the last lines of this one.

        The order of the checks makes this safe. A logger writes to one file at a time. So once the
        next file is not empty, this one is complete, and is read once more before it is closed.
        """
        listed = self._planned() or self._generations()
        if listed == self._waited:
            return ()
        mark = reader.mark()
        if mark is None and self._past is not None and _rotated(listed) - {reader.file.key} != self._past:
            # It was truncated before a line of it was read. A copy may have its text: search for
            # that first.
            self._forget(reader)
            return ()
        place = Place(self._marks_with(mark), reader.file.key, is_unmarked=mark is None)
        decision = self._choose(listed, place)
        if isinstance(decision, Wait):
            if decision.error is not None:
                raise decision.error
            self._waited = listed
            self._newer_bytes = 0
            return ()
        assert decision.became is not None, "something became of the file that was open"
        file = _open(listed[decision.at])
        is_read = False
        try:
            offset = reader.offset
            lines = reader.take(limit)
            if reader.offset == offset and not reader.is_held_by(file):
                lines = reader.take_unfinished()
            is_read = reader.offset == offset and not lines
        finally:
            if not is_read:
                file.close()
        if is_read:
            self._leave(reader, decision.became)
            self._begin(file, decision.mark, listed, decision.at)
        return lines

    def _planned(self) -> list[Generation]:
        """Return the open file and its successor; empty if the last listing is not reusable.

        Listing a directory with thousands of files once per file would take minutes. The listing
        stays valid while no name in the directories changes. Equal inode numbers do not prove this,
        because they are reused.
        """
        plan = self._plan
        if not self._plan_times or self._plan_times != self._folder_times():
            return []
        if len(plan) < 2 or plan[1].is_live or plan[1].is_stranger or not plan[1].size:
            return []
        return plan[:2]

    def _leave(self, reader: Reader, became: Became) -> None:
        mark = reader.mark(done=True)
        if self._was_live:
            self._events.append(TailEvent(became, f"read to its end at byte {reader.offset}"))
        if reader.file.damage:
            detail = f"{reader.file.path} is damaged after byte {reader.offset}: {reader.file.damage}"
            self._events.append(TailEvent("gap", detail))
        self._marks = self._marks_with(mark)

    def _follow_truncation(self, live: os.stat_result | None) -> None:
        """Close a file that was truncated; the next read finds its copy, as after a restart.

        It also finds copies of truncations that happened meanwhile. If the file is no longer the
        log and was overwritten (logrotate's `shred`), its unread rest is lost.
        """
        reader = self._reader
        mark = reader.mark(done=True) if reader is not None else None
        if reader is None or mark is None:
            return
        self._marks = self._marks_with(mark)
        if live is not None and _key(live) == reader.file.key:
            detail = (
                f"cut after byte {mark.offset} had been read; what followed there is read if it was copied"
            )
            self._events.append(TailEvent("copytruncate", detail))
            self._was_cut = True
        else:
            detail = f"{reader.file.path} was overwritten after byte {mark.offset} had been read"
            self._events.append(TailEvent("gap", detail))
        self._forget(reader)

    def _marks_with(self, mark: FileMark | None) -> list[FileMark]:
        if mark is None:
            return self._marks
        return [*(one for one in self._marks if one.file != mark.file), mark][-MARKS_MAX:]

    def _position(self) -> str:
        marks = self._marks_with(self._reader.mark()) if self._reader is not None else self._marks
        if marks != self._written_marks:
            self._written_marks = marks
            value = {
                "version": POSITION_VERSION,
                "marks": [mark.as_json() for mark in marks],
                "known": self._known.saved(),
                "log": str(self._path),
            }
            self._written = json.dumps(value, separators=(",", ":"))
        return self._written

    def _behind(self, live: os.stat_result | None) -> int:
        """Return the number of unread bytes on disk, as far as known, compressed as they are."""
        live_bytes = live.st_size if live is not None else 0
        if self._reader is None:
            return live_bytes
        if live is not None and _key(live) == self._reader.file.key:
            return max(0, live_bytes - self._reader.offset)
        return self._reader.file.bytes_after(self._reader.offset) + self._newer_bytes + live_bytes


def _key(status: os.stat_result) -> tuple[int, int]:
    return (status.st_dev, status.st_ino)


def _open(one: Generation) -> LogFile:
    """Open a listed file. Raises FileNotFoundError if its name belongs to another file by now."""
    file = open_log(one.path)
    if file.key != one.key:
        file.close()
        raise FileNotFoundError(errno.ENOENT, "renamed", str(one.path))
    return file


def _proved_in(file: LogFile, marks: Sequence[FileMark], *, is_finished: bool) -> Facts:
    """Return which marks a file proves; its proof of the last mark makes others unnecessary."""
    last, earlier = marks[-1:], marks[:-1]
    proved = proved_mark(file, last, is_finished=is_finished)
    if proved is not None:
        return Facts(
            last=proved, earlier=proved_mark(file, earlier, is_finished=is_finished), is_packed=file.is_packed
        )
    return Facts(
        last_cut=shortened_mark(file, last, is_finished=is_finished),
        earlier=proved_mark(file, earlier, is_finished=is_finished),
        earlier_cut=shortened_mark(file, earlier, is_finished=is_finished),
        is_packed=file.is_packed,
    )


def _rotated(listed: Sequence[Generation]) -> set[tuple[int, int]]:
    return {one.key for one in listed if not one.is_live}


def last_mark(position: str) -> FileMark | None:
    """Return the mark of the file that was read last, None if nothing was read. Raises ValueError
    for an invalid position.
    """
    marks, _, _ = _parsed(position)
    return marks[-1] if marks else None


def _parsed(position: str) -> tuple[list[FileMark], KnownLines, str]:
    if not position:
        return [], KnownLines(), ""
    match json.loads(position):
        case {"version": 1, "marks": list() as marks, **rest}:
            return (
                [mark_from_json(mark) for mark in marks],
                KnownLines(str(rest.get("known", ""))),
                str(rest.get("log", "")),
            )
        case _:
            raise ValueError(f"not the position of a log: {position[:80]!r}")


class ContentTimes:
    """Returns the times of the first records of files. Opens each file once and caches its time."""

    def __init__(self, first_time: FirstTime, line_bytes_max: int) -> None:
        self._first_time = first_time
        self._line_bytes_max = line_bytes_max
        self._times: dict[tuple[tuple[int, int], int, int], int | None] = {}

    def __call__(self, one: Generation) -> int | None:
        """Return the time in nanoseconds, or None for a file without readable records."""
        known = (one.key, one.size, one.mtime_ns)
        if known not in self._times:
            if len(self._times) >= TIMES_MAX:
                self._times.clear()
            try:
                file = _open(one)
            except FileNotFoundError:
                raise
            except OSError:
                return None
            try:
                self._times[known] = time_of_file(file, self._first_time, self._line_bytes_max)
            finally:
                file.close()
        return self._times[known]
