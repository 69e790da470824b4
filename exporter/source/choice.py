"""Decides which file of a log is read next, without I/O.

`choose_next` is a pure function of the directory listing, the position, and the facts about files
that were opened. If it needs more facts, it returns `Look`. Then the tail opens that file, adds the
facts, and calls it again. Every other answer is final.

* At a start, and after a file was truncated, reading continues in the newest file that proves the
  last mark. Files with unusual names are tried last. If no file proves it, somebody may have edited
  the log: then reading continues after the last known line. The next choice is a shorter copy of
  what was read. Earlier marks come last: they show which files are old, and that the file that was
  read last is gone.
* After the end of the open file, reading continues in the next file that is not empty. The open
  file is found in the listing by its inode, else by its content: it may have been compressed, or
  replaced by a copy of itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from exporter.source.position import FileMark
from exporter.source.rotation import Generation

Became = Literal["rename", "compressed", "replaced"]
"""What happened to the file that was read last."""


class Place(NamedTuple):
    """The place reached: the marks of the last files, and the device and inode of the open file, if
    any.

    The last mark belongs to the open file. If `is_unmarked` is True it does not, because the open
    file has no complete line yet.
    """

    marks: Sequence[FileMark]
    open_key: tuple[int, int] | None = None
    is_unmarked: bool = False


class Facts(NamedTuple):
    """Facts from opening a file: the places that the last mark and earlier marks prove in it.

    A mark with `cut` in its name is the end of a file that has less than was read. `edited` is the
    place after the last known line; `searched` is True once the file was searched for it
    (`Look.deep`). `error` is why the file cannot be read. `supported` is False for a file that
    needs a missing library. Such a file must not block the files after it.
    """

    last: FileMark | None = None
    last_cut: FileMark | None = None
    earlier: FileMark | None = None
    earlier_cut: FileMark | None = None
    edited: FileMark | None = None
    searched: bool = False
    is_packed: bool = False
    error: OSError | None = None
    supported: bool = True

    @property
    def proved(self) -> FileMark | None:
        """The furthest place in the file that a mark of the position proves."""
        marks = [mark for mark in (self.last, self.earlier) if mark is not None]
        return max(marks, key=lambda mark: mark.offset, default=None)


class Look(NamedTuple):
    """Open the file at index `at` and ask again; `deep` also searches it for known lines."""

    at: int
    deep: bool = False


class Read(NamedTuple):
    """Read the file at index `at`, from the mark on, or from its beginning without one.

    `became` is what happened to the file before it. `is_gap` means that the unread rest of that
    file is lost.
    """

    at: int
    mark: FileMark | None
    became: Became | None = None
    is_gap: bool = False


class Wait(NamedTuple):
    """There is no file to continue with; `error` is the reason, if a file cannot be read."""

    error: OSError | None = None


SEARCHED_MAX = 4
"""Files that are searched for known lines. An edited log is the log itself, or was rotated just
after.
"""

Decision = Look | Read | Wait


def choose_next(listed: Sequence[Generation], place: Place, facts: Mapping[int, Facts]) -> Decision:
    """Return the next action for a log whose files are `listed`, oldest first; `facts` are by
    index.

    If a file is open, this chooses its successor. Otherwise it chooses where reading continues.
    """
    if place.open_key is None:
        return _resumed(listed, place, facts)
    return _following(listed, place, facts)


def _resumed(listed: Sequence[Generation], place: Place, facts: Mapping[int, Facts]) -> Decision:
    found = _located(listed, place, facts)
    if isinstance(found, Read):
        last = place.marks[-1]
        assert found.mark is not None, "what is located is proved"
        if found.became is not None:
            return found
        if found.mark.file != last.file:
            return found._replace(is_gap=True)
        if listed[found.at].is_live or last.done:
            return found
        return found._replace(became="compressed" if facts[found.at].is_packed else "rename")
    if isinstance(found, Look) or found.error is not None:
        return found
    for index, one in enumerate(listed):
        if (one.size or one.is_live) and not one.is_stranger:
            if index not in facts:
                return Look(index)
            if facts[index].error is not None:
                return Wait(facts[index].error)
            if facts[index].supported:
                return Read(index, None, is_gap=True)
    return Wait()


def _following(listed: Sequence[Generation], place: Place, facts: Mapping[int, Facts]) -> Decision:
    here: int | None = next((at for at, one in enumerate(listed) if one.key == place.open_key), None)
    became: Became = "rename"
    if here is None:
        found = _located(listed, place, facts)
        if isinstance(found, Look) or (isinstance(found, Wait) and found.error is not None):
            return found
        if isinstance(found, Read) and found.became is not None:
            return found
        here, became = _where_it_went(listed, place, found)
    for index in range(here + 1, len(listed)):
        if not listed[index].size or listed[index].is_stranger:
            continue
        if index not in facts:
            return Look(index)
        fact = facts[index]
        if fact.error is not None:
            return Wait(fact.error)
        if fact.supported:
            mark = fact.proved
            if mark is None and became == "replaced":
                mark = fact.last_cut or fact.earlier_cut
            return Read(index, mark, became)
    return Wait()


def _where_it_went(listed: Sequence[Generation], place: Place, found: Read | Wait) -> tuple[int, Became]:
    """Return the index after which to continue, and what became of the open file, whose inode is
    gone.
    """
    if isinstance(found, Wait) or found.mark is None:
        return -1, "replaced"
    if place.is_unmarked or found.mark.file != place.marks[-1].file:
        return found.at, "replaced"
    if listed[found.at].is_live:
        return found.at - 1, "replaced"  # a copy took its place: continue in the copy
    return found.at, "compressed"


def _located(listed: Sequence[Generation], place: Place, facts: Mapping[int, Facts]) -> Look | Read | Wait:
    """Return the newest file that proves the last mark, else one that proves an earlier mark, else
    `Wait`.

    A file that cannot be opened may be the one that proves the mark. Then no older file is chosen.
    """
    if not place.marks:
        return Wait()
    newest_first = range(len(listed) - 1, -1, -1)
    own = [index for index in newest_first if not listed[index].is_stranger]
    strangers = [index for index in newest_first if listed[index].is_stranger]
    for index in (*own, *strangers):
        if index not in facts:
            return Look(index)
        if facts[index].last is not None:
            return Read(index, facts[index].last)
    error = next((facts[index].error for index in own if facts[index].error is not None), None)
    if error is None:
        for index in [index for index in own if listed[index].size][:SEARCHED_MAX]:
            if not facts[index].searched:
                return Look(index, deep=True)
            if facts[index].edited is not None:
                return Read(index, facts[index].edited, "replaced")
    for index in own:
        if facts[index].last_cut is not None:
            return Read(index, facts[index].last_cut)
    if error is not None:
        return Wait(error)
    for index in own:
        if facts[index].earlier is not None:
            return Read(index, facts[index].earlier)
    for index in own:
        if facts[index].earlier_cut is not None:
            return Read(index, facts[index].earlier_cut)
    return Wait()
