"""Which file of a log is read next, decided without I/O.

`choose_next` is a pure function of what a directory listed, what the position remembers, and what opening some of the
files has shown. Where it must know more it answers `Look`: the tail opens that file, adds what it found to the facts,
and asks again. Every other answer is final.

* At a start, and after a file was cut, reading goes on in the newest file that proves the last mark, at last in one of
  an unusual name. If none does, somebody may have edited the log: then it goes on behind the last line that is known.
  A shorter copy of what was read is next. Only then do earlier marks count: they show which files are old, and that
  the file which was read last is gone.
* After the end of the open file comes the next one that holds something. The open file is found by its inode, else by
  its content: it may have been compressed, or replaced by a copy of itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from exporter.source.position import FileMark
from exporter.source.rotation import Generation

Became = Literal["rename", "compressed", "replaced"]
"""What happened to the file that was read before."""


class Place(NamedTuple):
    """How far reading has come: the marks of the last files, and the inode of the file that is open, if any.

    The last mark is that of the open file, unless `is_unmarked`: no line of that file is complete yet.
    """

    marks: Sequence[FileMark]
    open_key: tuple[int, int] | None = None
    is_unmarked: bool = False


class Facts(NamedTuple):
    """What opening a file has shown: where the last mark and the earlier ones are proved in it.

    `edited` is the place behind the last known line, in a file that was searched for one (`Look.deep`); `searched`
    tells that it was. A mark that is `cut` is the end of a file that holds less than was read. `error` is why the file cannot be
    read; one that needs a library is not `supported`, and must not hold up all that follows.
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
        """The furthest place in the file that the position proves."""
        marks = [mark for mark in (self.last, self.earlier) if mark is not None]
        return max(marks, key=lambda mark: mark.offset, default=None)


class Look(NamedTuple):
    """Open this file of the listing, and ask again; a `deep` look searches all of it for lines that are known."""

    at: int
    deep: bool = False


class Read(NamedTuple):
    """Read this file of the listing, from the mark on or from its beginning.

    `became` is what happened to the file before it; `is_gap` says that the unread rest of that one is lost.
    """

    at: int
    mark: FileMark | None
    became: Became | None = None
    is_gap: bool = False


class Wait(NamedTuple):
    """There is nothing to go on with; `error` is what stands in the way, if anything does."""

    error: OSError | None = None


SEARCHED_MAX = 4
"""Files that are searched for known lines: an edited log is the log itself, or was rotated a moment later."""

Decision = Look | Read | Wait


def choose_next(listed: Sequence[Generation], place: Place, facts: Mapping[int, Facts]) -> Decision:
    """Return what to do with a log whose files are `listed`, oldest first; `facts` are by index.

    With an open file the question is which one follows it. Without one it is where to go on.
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
    """Return behind which file to go on, and what became of the open file, whose inode is gone."""
    if isinstance(found, Wait) or found.mark is None:
        return -1, "replaced"
    if place.is_unmarked or found.mark.file != place.marks[-1].file:
        return found.at, "replaced"
    if listed[found.at].is_live:
        return found.at - 1, "replaced"  # the same text in another file: reading goes on there
    return found.at, "compressed"


def _located(listed: Sequence[Generation], place: Place, facts: Mapping[int, Facts]) -> Look | Read | Wait:
    """Return the newest file that proves the last mark, else one that proves an earlier mark, else `Wait`.

    A file that cannot be opened may be the one that proves the mark: then nothing older is believed.
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
