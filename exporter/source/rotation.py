"""The generations of a log: which files are its own past, and in which order they were written.

logrotate can give a rotated file nearly any name: `log.1` (the higher, the older), `log-20161123`
(`dateext`), any `dateformat` of `%Y %m %d %H %M %S %V %s`, with the log's own extension in front of
all that or behind it (`extension`, `addextension`), in another directory (`olddir`), and with any
`compressext` once it is compressed. So a name only makes a file a candidate. Numbers and dates of
the form year, month, day are in the order of the names, which is right even where a copy has lost
its times. All other files are in the order of what they say: the time of their first records, or
where those have none, the time of their last change. A file of an unusual name without any record
is left out.

Where wokd creates the new log before logrotate's `create` does, logrotate 3.21 moves it away again,
with its lines, to `log-2016112304.backup`. That name is of an hour, whatever the `dateformat` of
the others, so only its time tells where it belongs.

Files that begin like the log and have no rotated name are *strangers*: somebody may have renamed
the log by hand. They count only where they prove to be the file that was read last.

Names move while a directory is being read, so a listing counts only when a second one agrees with
it.
"""

from __future__ import annotations

import heapq
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

LISTINGS_MAX = 10
"""How often a directory is read until two listings agree: a rotation renames
about as many files.
"""

_DATE = r"(?:19|20)\d\d-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01])(?:[-_.T]?\d+)*"
_NAMED = re.compile(
    rf"(?:\.(?P<number>\d{{1,6}})|[-._]?(?P<date>{_DATE})(?P<backup>\.backup)?)(?P<end>\.[A-Za-z][A-Za-z0-9]{{0,9}})?$"
)
_UNUSUAL = re.compile(r"(?=.*\d)(?:[-._ ]|\d\d).*")
_BY_HAND = re.compile(
    r"~|(?<![a-z])(?:bak|orig|rej|saved?|copy|old|new|te?mp|sw[a-z]|edit(?:ed)?|lo?ck|part|dpkg|rpm|journal|wal|shm)",
    re.IGNORECASE,
)
_PACKED_NAME = re.compile(r"(.+)\.[A-Za-z][A-Za-z0-9]{0,9}$")
_KNOWN_PACKED = re.compile(r"\.(?:gz|gzip|zst|xz|bz2|[zZ])$")
_DATE_AT_END = re.compile(r"(?<=.)[-._]\d{6,}$")
_DATE_IN_THE_MIDDLE = re.compile(rf"[-._](?:{_DATE}|\d{{6,}})(?=\.[A-Za-z][A-Za-z0-9]*$)")

_BACKUP, _NUMBERED, _DATED, _OTHER, _LIVE = range(5)

Rank = tuple[int, int, str]
"""The way of naming, a number, and a date's digits: as text, because dates may go down to hours or
not.
"""


class Generation(NamedTuple):
    """One file of a log; `key` is its device and inode, `is_live` is True for the log itself.

    A stranger has no name of a rotated file, and counts only where its content proves that it is
    one.
    """

    path: Path
    key: tuple[int, int]
    size: int
    mtime_ns: int
    is_live: bool
    is_stranger: bool = False


TimeOf = Callable[[Generation], int | None]
"""Gives the time of a file's first records in nanoseconds, None for one without."""


def rank(suffix: str) -> Rank | None:
    """Return what sorts the rotated names of one log, oldest first, or None for a name that does
    not tell.

    `suffix` is the part of the name behind the log's own. Of files that began in the same second a
    backup was the first: it holds what was written before logrotate had made the next one. Numbered
    names sort before dated ones.
    """
    match = _NAMED.match(suffix)
    if match is None:
        return None
    if match["number"]:
        return (_NUMBERED, -int(match["number"]), "")
    return (_BACKUP if match["backup"] else _DATED, 0, re.sub(r"\D", "", match["date"]))


def rank_of_name(name: str) -> Rank:
    """Return what sorts names of any one log, oldest first: backups, numbered, dated, then the log
    itself.
    """
    match = _NAMED.search(name)
    return (match and rank(match[0])) or (_LIVE, 0, "")


def own_name(name: str) -> str:
    """Return the name of the log itself for that of any of its files: `wok.log`
    for `wok.log.2.gz`.
    """
    name = _KNOWN_PACKED.sub("", name)
    match = _NAMED.search(name)
    if match is not None and match.start() and not match["end"]:
        return name[: match.start()]
    return _DATE_IN_THE_MIDDLE.sub("", _DATE_AT_END.sub("", name))


def generations(path: Path, *, olddir: Path | None = None, time_of: TimeOf | None = None) -> list[Generation]:
    """Return the files of the log `path`, oldest first, the log itself last if it is a regular
    file.

    A symbolic link is followed first: rotation happens beside the real file, and in `olddir`, which
    may be relative to it. Empty when there is nothing; raises OSError when a directory cannot be
    listed.
    """
    real = Path(os.path.realpath(path))
    folders = [real.parent]
    if olddir is not None and (other := real.parent / olddir) != real.parent:
        folders.append(other)
    listed = _listed(real, folders)
    for _ in range(LISTINGS_MAX):
        again = _listed(real, folders)
        if [(one.path, one.key) for _, one in again] == [(one.path, one.key) for _, one in listed]:
            break
        listed = again
    return _ordered(again, time_of)


def paths_of(path: Path) -> list[Path]:
    """Return the files of the log `path`, oldest first; the path alone if they cannot be listed."""
    try:
        return [one.path for one in generations(path) if not one.is_stranger] or [path]
    except OSError:
        return [path]


def _listed(real: Path, folders: list[Path]) -> list[tuple[Rank, Generation]]:
    found: list[tuple[Rank, Generation]] = []
    stem = real.stem
    for folder in folders:
        is_own = folder == real.parent
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    is_live = is_own and entry.name == real.name
                    place = (_LIVE, 0, "") if is_live else _place(real.name, entry.name)
                    if place is None and is_own and not entry.name.startswith(stem):
                        continue
                    try:
                        status = entry.stat()
                    except OSError:
                        continue  # it has gone, or is a link that leads nowhere
                    if not stat.S_ISREG(status.st_mode):
                        continue
                    key = (status.st_dev, status.st_ino)
                    path = Path(entry.path)
                    one = Generation(path, key, status.st_size, status.st_mtime_ns, is_live, place is None)
                    found.append((place or (_OTHER, 0, entry.name), one))
        except (FileNotFoundError, NotADirectoryError):
            continue
    return found


def _place(log: str, name: str) -> Rank | None:
    """Return what sorts this file among those of `log`, None when it does not have a rotated file's
    name.
    """
    if name.startswith(log):
        return _place_of_suffix(name[len(log) :])
    stem, extension = Path(log).stem, Path(log).suffix
    middle, found, end = name[len(stem) :].rpartition(extension) if extension else ("", "", "")
    if not found or not name.startswith(stem) or (end and _PACKED_NAME.fullmatch(f"x{end}") is None):
        return None
    return _place_of_suffix(middle)


def _place_of_suffix(suffix: str) -> Rank | None:
    if _BY_HAND.search(suffix):
        return None
    return rank(suffix) or ((_OTHER, 0, suffix) if _UNUSUAL.fullmatch(suffix) else None)


def _ordered(found: list[tuple[Rank, Generation]], time_of: TimeOf | None) -> list[Generation]:
    ways: dict[int, list[tuple[Rank, Generation]]] = {
        _NUMBERED: [],
        _DATED: [],
        _BACKUP: [],
        _OTHER: [],
        _LIVE: [],
    }
    strangers: list[Generation] = []
    for place, one in _without_twins(found):
        if one.is_stranger:
            strangers.append(one)
        else:
            ways[place[0]].append((place, one))
    live = [one for _, one in ways.pop(_LIVE)]
    others = ways.pop(_OTHER)
    rotated = [[one for _, one in sorted(way, key=_by_name)] for way in ways.values() if way]
    times: dict[tuple[int, int], int] = {}
    if others or len(rotated) > 1:
        # Between the ways of naming, times are all. Of equal times, which a kernel's tick makes
        # likely, the backup's is the later one: it ends a moment after a rotation.
        for one in [one for way in rotated for one in way]:
            times[one.key] = (time_of(one) if time_of is not None else None) or one.mtime_ns
        for _, one in others:
            time = time_of(one) if time_of is not None else one.mtime_ns
            if time is not None:
                times[one.key] = time
        known = [(place, one) for place, one in others if one.key in times]
        rotated.append(
            [one for _, one in sorted(known, key=lambda item: (times[item[1].key], _by_name(item)))]
        )
    ordered = list(heapq.merge(*rotated, key=lambda one: times.get(one.key, 0)))
    for stranger in sorted(strangers, key=lambda one: (one.mtime_ns, one.path.name)):
        at = next((at for at, one in enumerate(ordered) if one.mtime_ns > stranger.mtime_ns), len(ordered))
        ordered.insert(at, stranger)
    return ordered + live


def _by_name(item: tuple[Rank, Generation]) -> tuple[Rank, bool, str]:
    # A compressed file before the plain one of the same rank, which was made later.
    place, one = item
    return (place, _KNOWN_PACKED.search(one.path.name) is None, one.path.name)


def _without_twins(found: list[tuple[Rank, Generation]]) -> list[tuple[Rank, Generation]]:
    """Leave out a compressed file that is being made from a plain one which is still there."""
    plain = {one.path: one.mtime_ns for _, one in found if not one.is_live}
    return [
        (place, one)
        for place, one in found
        if one.is_live
        or place[0] == _BACKUP
        or (name := _PACKED_NAME.fullmatch(one.path.name)) is None
        or plain.get(one.path.with_name(name[1]), one.mtime_ns + 1) > one.mtime_ns
    ]
