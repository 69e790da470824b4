"""The generations of a log: which files beside it are its own past, and in which order they were written.

logrotate and Python's handlers name them `log.1` (the higher, the older), `log-20161123` (`dateext`) or
with another date format, each with `.gz`, `.zst`, `.xz` or `.bz2` behind it once it is compressed. Where wokd
creates the new log before logrotate's `create` does, logrotate 3.21 moves it away again, with its lines, to
`log-2016112304.backup`. That name is of an hour, whatever the `dateformat` of the others, so only its time tells
where it belongs. Names move while a directory is being read, so a listing counts only when a second
one agrees with it.

Not recognised: `olddir`, and logrotate's `extension` (`log.1.data`).
"""

from __future__ import annotations

import heapq
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from exporter.source.files import PACKED_SUFFIXES

LISTINGS_MAX = 10
"""How often a directory is read until two listings agree: a rotation renames about as many files."""

_ROTATED = re.compile(
    r"(?:\.(?P<number>\d{1,6})|[-._](?P<date>\d{4}-?\d\d-?\d\d(?:[-_.T]?\d+)*|\d{8,})(?P<backup>\.backup)?)"
    r"(?:\.(?:gz|zst|xz|bz2))?$"
)

_BACKUP, _NUMBERED, _DATED, _LIVE = range(4)

Rank = tuple[int, int, str]
"""The way of naming, a number, and a date's digits: as text, because dates may go down to hours or not."""


class Generation(NamedTuple):
    """One file of a log; `key` is its device and inode, `is_live` is True for the log itself."""

    path: Path
    key: tuple[int, int]
    size: int
    mtime_ns: int
    is_live: bool


def rank(suffix: str) -> Rank | None:
    """Return what sorts the rotated names of one log, oldest first, or None for a name of another kind.

    `suffix` is the part of the name behind the log's own. Of files that began in the same second a backup was the
    first: it holds what was written before logrotate had made the next one. Numbered names sort before dated ones.
    """
    match = _ROTATED.match(suffix)
    if match is None:
        return None
    if match["number"]:
        return (_NUMBERED, -int(match["number"]), "")
    return (_BACKUP if match["backup"] else _DATED, 0, re.sub(r"\D", "", match["date"]))


def rank_of_name(name: str) -> Rank:
    """Return what sorts names of any one log, oldest first: backups, numbered, dated, then the log itself."""
    match = _ROTATED.search(name)
    return (match and rank(match[0])) or (_LIVE, 0, "")


def own_name(name: str) -> str:
    """Return the name of the log itself for that of any of its files: `wok.log` for `wok.log.2.gz`."""
    for suffix in PACKED_SUFFIXES:
        name = name.removesuffix(suffix)
    match = _ROTATED.search(name)
    return name[: match.start()] if match and match.start() else name


def generations(path: Path) -> list[Generation]:
    """Return the files of the log `path`, oldest first, the log itself last if it is a regular file.

    A symbolic link is followed first: rotation happens beside the real file. Empty when there is nothing;
    raises OSError when the directory cannot be listed.
    """
    real = Path(os.path.realpath(path))
    listed = _listed(real)
    for _ in range(LISTINGS_MAX):
        again = _listed(real)
        if [(one.path, one.key) for one in again] == [(one.path, one.key) for one in listed]:
            return again
        listed = again
    return listed


def paths_of(path: Path) -> list[Path]:
    """Return the files of the log `path`, oldest first; the path alone if they cannot be listed."""
    try:
        return [one.path for one in generations(path)] or [path]
    except OSError:
        return [path]


def _listed(real: Path) -> list[Generation]:
    rotated: dict[int, list[tuple[Rank, Generation]]] = {_NUMBERED: [], _DATED: [], _BACKUP: []}
    live: list[Generation] = []
    try:
        with os.scandir(real.parent) as entries:
            for entry in entries:
                if not entry.name.startswith(real.name):
                    continue
                is_live = entry.name == real.name
                place = None if is_live else rank(entry.name[len(real.name) :])
                if not is_live and place is None:
                    continue
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue
                if not stat.S_ISREG(status.st_mode):
                    continue
                key = (status.st_dev, status.st_ino)
                one = Generation(Path(entry.path), key, status.st_size, status.st_mtime_ns, is_live)
                if place is None:
                    live.append(one)
                else:
                    rotated[place[0]].append((place, one))
    except (FileNotFoundError, NotADirectoryError):
        return []
    # Within one way of naming the names are right even where times were lost; between them, times are all. Of equal
    # times, which a kernel's tick makes likely, the backup's is the later one: it ends a moment after a rotation.
    ways = [[one for _, one in sorted(way, key=_place)] for way in rotated.values()]
    return _without_twins(list(heapq.merge(*ways, key=lambda one: one.mtime_ns))) + live


def _place(item: tuple[Rank, Generation]) -> tuple[Rank, bool, str]:
    place, one = item
    return (place, one.path.suffix not in PACKED_SUFFIXES, one.path.name)


def _without_twins(rotated: list[Generation]) -> list[Generation]:
    """Leave out a compressed file that is being made from a plain one which is still there."""
    plain = {one.path: one.mtime_ns for one in rotated if one.path.suffix not in PACKED_SUFFIXES}
    return [
        one
        for one in rotated
        if one.path.suffix not in PACKED_SUFFIXES
        or plain.get(one.path.with_suffix(""), one.mtime_ns + 1) > one.mtime_ns
    ]
