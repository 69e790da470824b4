"""Finds the generations of a log: its rotated files and the log itself, oldest first.

logrotate can give a rotated file nearly any name: `log.1` (higher numbers are older),
`log-20161123` (`dateext`), or any `dateformat` of `%Y %m %d %H %M %S %V %s`. The extension of the
log can come before or after that (`extension`, `addextension`). The file can be in another
directory (`olddir`), and a compressed file can have any `compressext`. So a name only makes a file
a candidate.

Numbers, and dates in the order year, month, day, sort by name. This is correct even for copies that
lost their modification times. All other files sort by the time of their first records, or by
modification time if they have no records. A file with an unusual name and without any record is
ignored.

If wokd creates the new log before logrotate's `create` does, logrotate 3.21 moves that log, with
its lines, to `log-2016112304.backup`. This name always has the hour, whatever the `dateformat` of
the other files. So only the time of its records determines its place.

Files whose name begins like that of the log, but not in the form of a rotated file, are
*strangers*: somebody may have renamed the log by hand. They are only used if they prove to be the
file that was read last.

A rotation can rename files while a directory is being read. So a listing is only used if a second
one is equal.
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
"""Maximum listings until two are equal: a rotation renames about as many files."""

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
"""Naming scheme, number, and digits of the date. The digits are text: some dates have hours."""


class Generation(NamedTuple):
    """One file of a log; `key` is its device and inode. `is_live` is True for the log itself.

    A stranger does not have the name of a rotated file. It is only used if its content proves that
    it is one.
    """

    path: Path
    key: tuple[int, int]
    size: int
    mtime_ns: int
    is_live: bool
    is_stranger: bool = False


TimeOf = Callable[[Generation], int | None]
"""Returns the time of the first records of a file in nanoseconds, or None without records."""


def rank(suffix: str) -> Rank | None:
    """Return a sort key for rotated names of one log, oldest first, or None for an unusual name.

    `suffix` is the part of the name after that of the log. If files began in the same second, a
    backup is the oldest: its lines were written before logrotate created the next file. Numbered
    names sort before dated names.
    """
    match = _NAMED.match(suffix)
    if match is None:
        return None
    if match["number"]:
        return (_NUMBERED, -int(match["number"]), "")
    return (_BACKUP if match["backup"] else _DATED, 0, re.sub(r"\D", "", match["date"]))


def rank_of_name(name: str) -> Rank:
    """Return a sort key for names of one log: backups, then numbered, then dated, then the log
    itself.
    """
    match = _NAMED.search(name)
    return (match and rank(match[0])) or (_LIVE, 0, "")


def own_name(name: str) -> str:
    """Return the name of the log for the name of any of its files: `wok.log` for `wok.log.2.gz`."""
    name = _KNOWN_PACKED.sub("", name)
    match = _NAMED.search(name)
    if match is not None and match.start() and not match["end"]:
        return name[: match.start()]
    return _DATE_IN_THE_MIDDLE.sub("", _DATE_AT_END.sub("", name))


def generations(path: Path, *, olddir: Path | None = None, time_of: TimeOf | None = None) -> list[Generation]:
    """Return the files of the log `path`, oldest first; the log itself is last if it is a regular
    file.

    A symbolic link is resolved first: rotated files are beside the real file, and in `olddir`,
    which may be relative to it. The list is empty if there are no files. Raises OSError if a
    directory cannot be listed.
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


def paths_of(path: Path, olddir: Path | None = None) -> list[Path]:
    """Return the files of the log `path`, oldest first; only `path` if they cannot be listed."""
    try:
        return listed_paths(path, olddir)
    except OSError:
        return [path]


def listed_paths(path: Path, olddir: Path | None = None) -> list[Path]:
    """Return the files of the log `path`, oldest first, or `path` if there are none. Raises OSError
    if a directory cannot be listed.
    """
    return [one.path for one in generations(path, olddir=olddir) if not one.is_stranger] or [path]


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
                        continue  # the file is gone, or is a broken link
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
    """Return the sort key of a file of `log`, or None if its name is not that of a rotated file."""
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
        # Only times compare files of different naming schemes. The kernel's tick makes equal times
        # likely: then the backup is the later file, because it ends just after a rotation.
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
    # A compressed file comes before a plain file of the same rank: the plain one is newer.
    place, one = item
    return (place, _KNOWN_PACKED.search(one.path.name) is None, one.path.name)


def _without_twins(found: list[tuple[Rank, Generation]]) -> list[tuple[Rank, Generation]]:
    """Remove each compressed file that is still being created from a plain file in the list."""
    plain = {one.path: one.mtime_ns for _, one in found if not one.is_live}
    return [
        (place, one)
        for place, one in found
        if one.is_live
        or place[0] == _BACKUP
        or (name := _PACKED_NAME.fullmatch(one.path.name)) is None
        or plain.get(one.path.with_name(name[1]), one.mtime_ns + 1) > one.mtime_ns
    ]
