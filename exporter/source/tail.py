"""The growing log: every complete line once, in order, over rotation, truncation and restarts.

What happens to a log, and what is done about it:

* *Rotation by renaming* (`log` becomes `log.1`, a new `log` appears). The open file is drained
  first, and left only when a later file holds something: a logger that keeps its file open (Wok
  2.1) may go on writing to the old one, even after it was compressed and unlinked. Then comes the
  next file in the order of `rotation.generations`, however many there are.
* *A restart* is the same search: the position holds marks (`marks.Mark`) of the last files; the
  newest file that proves one is where reading goes on, plain or compressed, whatever its name is
  now.
* *copytruncate* (`log` is copied to `log.1` and cut to nothing) shows when the bytes before the
  offset are gone. If the copy has more than was read, that comes first; then `log` from its
  beginning. A logger that does not append (no O_APPEND) leaves a hole of NUL bytes, which is
  returned as it stands.
* *The last line without a newline* waits while somebody may finish it. In a file that was left
  behind it is returned with `ended=False`.

What can be lost: lines of a file that was deleted or cut while nobody read (event `gap` where it is
known); with copytruncate, lines written between the copy and the truncation, and what `rotate 0` or
a later copy overwrote; a compressed file that is damaged, behind the damage (tried again, then
event `gap`); a rotated `.zst` file without a library for it, when it had not been read before its
compression (event `unreadable`). What can come twice: the lines of a file that somebody rewrote in
place or restored with an altered beginning or end; they bear the same identity and offsets where
their first line is the same. Two files with the same first line are told apart by the 256 bytes
before the offset, which must differ.

A crash may fall anywhere: the position in a chunk describes exactly what was returned up to that
chunk.
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
"""Files that a position remembers: when the last ones have vanished, an earlier one still shows
what is old.
"""

DAMAGE_READS_MAX = 3
"""Reads for which a damaged compressed file may still be one that is being written."""

POSITION_VERSION = 1

KNOWN_BYTES = 64 * 1024
"""What is read before a position to know its last lines, where the position does not have them."""

QUIET_NANOS = 1_000_000_000
"""How long the names of a folder have not changed when its listing may be used again: its time of
change is as coarse as the kernel's tick, and on some file systems a second.
"""

TIMES_MAX = 20_000
"""Files whose times are remembered; more than anybody keeps, a megabyte or two."""

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
    """Reads a log that grows and rotates; satisfies `records.Source`.

    `path` is the log itself; its rotated generations are looked for beside it and in `olddir`.
    `first_time` gives the time of the first of some lines that is a record, for files whose names
    do not tell their order. `position` is the text of an earlier chunk, or empty for a first start,
    which begins with the oldest generation there is, or with `from_end=True` behind the last
    complete line. Lines longer than `line_bytes_max` bytes are cut. `problem` is empty, or says why
    the log cannot be read now and what to do about it. Raises ValueError for a position that is
    none.
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
        self._settled = (0, 0)  # size and mtime of the live file when all complete lines had been taken
        self._waited: list[Generation] = []  # the listing in which no successor was found
        self._past: set[tuple[int, int]] | None = None  # the rotated files when the live one was opened
        self._newer_bytes = 0
        self._bytes_behind = 0
        self._damage_reads = 0
        self._plan: list[Generation] = []  # what was listed when a finished file was begun, from that file on
        self._plan_times: tuple[
            int, ...
        ] = ()  # of the folders, when that was listed; empty if it may be stale
        self._listed_times: tuple[int, ...] = ()
        self._was_cut = False  # the live file was cut, and nothing of it has been read since
        self._written_marks: list[FileMark] | None = None
        self._written = ""
        self._skipped: set[tuple[int, int]] = set()
        self._events: list[TailEvent] = []
        self._trouble = ""
        self.problem = ""

    def read(self, limit: int) -> Chunk:
        """Return complete lines of at most about `limit` bytes, or one longer line; never blocks.

        Trouble with the log never raises: it is told by `problem` and by one event `unreadable` for
        each change, and the next call tries again. A chunk that is caught up may have lines.
        """
        self._trouble = ""
        lines: Sequence[Line] = ()
        is_caught_up = True
        live = self._live_status()
        try:
            lines, is_caught_up = self._step(limit, live)
            self._bytes_behind = self._behind(live)
        except FileNotFoundError:
            is_caught_up = False  # a name moved between listing and opening: the next call lists again
            self._plan = []
        except OSError as error:
            self._note(error)
        if self._trouble != self.problem:
            self.problem = self._trouble
            if self.problem:
                self._events.append(TailEvent("unreadable", self.problem))
        events, self._events = self._events, []
        return Chunk(lines, self._position(), events, is_caught_up, self._bytes_behind)

    def _generations(self) -> list[Generation]:
        times = self._folder_times()
        now = time.time_ns()
        is_quiet = bool(times) and all(time_ns + QUIET_NANOS < now for time_ns in times)
        self._listed_times = times if is_quiet else ()
        return generations(self._path, olddir=self._olddir, time_of=self._times)

    def _folder_times(self) -> tuple[int, ...]:
        """Return when names last changed in the folders of the log; nothing if
        that cannot be told.
        """
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
        """Turn an error into the problem's sentence; let go of a file that the system has let go
        of.
        """
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
        """Return lines and whether there were no more of them."""
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
                if (
                    here is not None
                    and offset == 0
                    and (self._has_other_past(reader) or self._is_known(reader))
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
        """Return whether there is nothing to do: the quiet log's whole work is a stat and a short
        read.
        """
        is_same = live.st_size == reader.offset or (live.st_size, live.st_mtime_ns) == self._settled
        return is_same and reader.is_proved()

    def _has_other_past(self, reader: Reader) -> bool:
        """Return whether files were rotated since this one was opened: what it then held may be in
        a copy.

        Asked once for each file, before its first lines are handed on and after they were read,
        because only with them does it get the identity by which a truncation is noticed.
        """
        try:
            return _rotated(self._generations()) != self._past
        except OSError:
            self._forget(reader)  # what it has just given is not handed on
            raise

    def _is_known(self, reader: Reader) -> bool:
        """Return whether a file that was cut and written anew has lines that were read: an editor
        has saved it.

        Then the place behind them becomes the one to go on from.
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
        """Open the file to go on with; return False when there is none."""
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
        """Ask `choose_next`, and open the files that it must know about."""
        facts: dict[int, Facts] = {}
        while isinstance(decision := choose_next(listed, place, facts), Look):
            one = listed[decision.at]
            if decision.deep:
                facts[decision.at] = facts[decision.at]._replace(edited=self._searched(one), searched=True)
            else:
                facts[decision.at] = self._facts(one, place.marks)
        return decision

    def _facts(self, one: Generation, marks: Sequence[FileMark]) -> Facts:
        """Open a listed file; raises FileNotFoundError when its name has moved."""
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
        """Return the place behind the last known line of a file."""
        file = self._opened(one) if self._known else None
        if file is None:
            return None
        try:
            return self._known.place(file)
        finally:
            file.close()

    def _ends(self, listed: Sequence[Generation]) -> list[FileMark]:
        """Return the marks that say that all that is there was read."""
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
            # That one was read to its end before this one was followed.
            self._marks = []
        if self._marks and not self._marks[-1].done:
            read = self._marks[-1].offset
            self._marks[-1] = self._marks[-1]._replace(done=True)
            detail = f"the file that was read up to byte {read} is gone; what followed there is lost"
            self._events.append(TailEvent("gap", detail))

    def _opened(self, one: Generation) -> LogFile | None:
        """Open a file; None for one that needs a library: it must not hold up all that follows."""
        try:
            return _open(one)
        except UnsupportedError as error:
            if one.key not in self._skipped:
                self._skipped.add(one.key)
                self._events.append(TailEvent("unreadable", str(error)))
            return None

    def _begin(self, file: LogFile, mark: FileMark | None, listed: Sequence[Generation], index: int) -> None:
        """Read `file`, the one at `index`, from now on; it belongs to the tail from here."""
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
        """Go to the next file that holds something, if there is one; return what was still to be
        taken here.

        The order of the checks is what makes it safe: a logger writes to one file at a time, so
        once the next one holds something, this one is complete, and is looked at once more.
        """
        listed = self._planned() or self._generations()
        if listed == self._waited:
            return ()
        mark = reader.mark()
        if mark is None and self._past is not None and _rotated(listed) - {reader.file.key} != self._past:
            # It was cut before a line of it was read, and what it held may be in a copy: look for
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
        """Return the open file and its successor, if that is a rotated one of the last listing.

        To list a directory of thousands for each of its files would take minutes. The listing holds
        as long as no name has changed: inode numbers are used again, so they alone do not prove it.
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
        """Let go of a file that was cut: its copy, if there is one, is found like after a restart.

        So are copies that were made and cut again in the meantime. A file that is no longer the log
        and was overwritten all the same (logrotate's `shred`) is given up.
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
        """Return the bytes on disk that are known to be unread; those of compressed files are fewer
        than their text's.
        """
        live_bytes = live.st_size if live is not None else 0
        if self._reader is None:
            return live_bytes
        if live is not None and _key(live) == self._reader.file.key:
            return max(0, live_bytes - self._reader.offset)
        return self._reader.file.bytes_after(self._reader.offset) + self._newer_bytes + live_bytes


def _key(status: os.stat_result) -> tuple[int, int]:
    return (status.st_dev, status.st_ino)


def _open(one: Generation) -> LogFile:
    """Open a listed file; raises FileNotFoundError when its name belongs to another file by now."""
    file = open_log(one.path)
    if file.key != one.key:
        file.close()
        raise FileNotFoundError(errno.ENOENT, "renamed", str(one.path))
    return file


def _proved_in(file: LogFile, marks: Sequence[FileMark], *, is_finished: bool) -> Facts:
    """Return which marks a file proves; where the last one holds, nothing else matters."""
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
    """When files were begun, by their first records; each file is opened once."""

    def __init__(self, first_time: FirstTime, line_bytes_max: int) -> None:
        self._first_time = first_time
        self._line_bytes_max = line_bytes_max
        self._times: dict[tuple[tuple[int, int], int, int], int | None] = {}

    def __call__(self, one: Generation) -> int | None:
        """Return the time in nanoseconds, None for a file without a record or one that cannot be
        read.
        """
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
