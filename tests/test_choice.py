"""The choice of the next file, as a pure function: a table of situations, and laws over all of
them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.source.choice import Decision, Facts, Look, Place, Read, Wait, choose_next
from exporter.source.position import FileMark
from exporter.source.rotation import Generation

OLD = FileMark(b"old", 10, 10, b"proof of old", done=True)
LAST = FileMark(b"last", 20, 20, b"proof of last")
CUT = FileMark(b"last", 5, 5, b"proof of cut")
DENIED = PermissionError(13, "Permission denied")


def listing(*names: str, empty: tuple[str, ...] = ()) -> list[Generation]:
    """Files oldest first, with inodes 1, 2, ...; the one called `log` is the live one."""
    return [
        Generation(Path(name), (1, number), 0 if name in empty else 100, number, name == "log")
        for number, name in enumerate(names, 1)
    ]


def decided(listed: list[Generation], place: Place, opened: dict[int, Facts]) -> tuple[Decision, list[int]]:
    """Answer every `Look` with what opening that file shows; return the final decision and what was
    opened.
    """
    facts: dict[int, Facts] = {}
    asked: list[int] = []
    while isinstance(decision := choose_next(listed, place, facts), Look):
        shown = opened.get(decision.at, Facts())
        if decision.deep:
            facts[decision.at] = facts[decision.at]._replace(edited=shown.edited, searched=True)
        else:
            asked.append(decision.at)
            facts[decision.at] = shown._replace(edited=None)
    return decision, asked


@pytest.mark.parametrize(
    ("names", "place", "opened", "decision", "asked"),
    [
        # A start: the live log proves the last mark, and nothing else is opened.
        (["log.1", "log"], Place([OLD, LAST]), {1: Facts(last=LAST)}, Read(1, LAST), [1]),
        # It was renamed, or compressed, meanwhile.
        (["log.1", "log"], Place([LAST]), {0: Facts(last=LAST)}, Read(0, LAST, "rename"), [1, 0]),
        (
            ["log.1", "log"],
            Place([LAST]),
            {0: Facts(last=LAST, is_packed=True)},
            Read(0, LAST, "compressed"),
            [1, 0],
        ),
        # A file that was done before the start gives no event.
        (
            ["log.1", "log"],
            Place([LAST._replace(done=True)]),
            {0: Facts(last=LAST)},
            Read(0, LAST),
            [1, 0],
        ),
        # A shorter copy of the last file goes before an earlier file.
        (
            ["log.1", "log"],
            Place([OLD, LAST]),
            {1: Facts(earlier=OLD), 0: Facts(last_cut=CUT)},
            Read(0, CUT, "rename"),
            [1, 0],
        ),
        # Somebody edited the log: reading continues after the last known line, in the newest file
        # with one.
        (
            ["log.1", "log"],
            Place([OLD, LAST]),
            {1: Facts(edited=CUT), 0: Facts(edited=OLD)},
            Read(1, CUT, "replaced"),
            [1, 0],
        ),
        (
            ["log.1", "log"],
            Place([OLD, LAST], (1, 9)),
            {1: Facts(edited=CUT, earlier=OLD)},
            Read(1, CUT, "replaced"),
            [1, 0],
        ),
        (
            ["log.1", "log"],
            Place([LAST]),
            {1: Facts(edited=CUT), 0: Facts(last=LAST)},
            Read(0, LAST, "rename"),
            [1, 0],
        ),
        (
            ["log.1", "log"],
            Place([LAST]),
            {1: Facts(edited=CUT), 0: Facts(error=DENIED)},
            Wait(DENIED),
            [1, 0],
        ),
        # The last file is gone: an earlier one shows what is old, and the rest is lost.
        (["log.1", "log"], Place([OLD, LAST]), {0: Facts(earlier=OLD)}, Read(0, OLD, None, True), [1, 0]),
        # A file that cannot be opened may be the last one, so an earlier mark is not believed.
        (
            ["log.1", "log"],
            Place([OLD, LAST]),
            {0: Facts(earlier=OLD), 1: Facts(error=DENIED)},
            Wait(DENIED),
            [1, 0],
        ),
        # No mark is proved: reading begins with the oldest file that is not empty.
        (["log.2", "log.1", "log"], Place([]), {}, Read(0, None, None, True), [0]),
        (["log.2", "log"], Place([]), {0: Facts(supported=False)}, Read(1, None, None, True), [0, 1]),
        (["log.2", "log"], Place([]), {0: Facts(error=DENIED)}, Wait(DENIED), [0]),
        ([], Place([LAST]), {}, Wait(), []),
        # The open file was renamed: the next one follows.
        (["log.1", "log"], Place([LAST], (1, 1)), {}, Read(1, None, "rename"), [1]),
        (["log"], Place([LAST], (1, 1)), {}, Wait(), []),
        # What follows may have been read in part.
        (
            ["log.1", "log"],
            Place([OLD, LAST], (1, 1)),
            {1: Facts(earlier=OLD, earlier_cut=CUT)},
            Read(1, OLD, "rename"),
            [1],
        ),
        (["log.1", "log"], Place([LAST], (1, 1)), {1: Facts(last_cut=CUT)}, Read(1, None, "rename"), [1]),
        # Its inode is gone, and its content is in a compressed file.
        (
            ["log.1.gz", "log"],
            Place([LAST], (1, 9)),
            {0: Facts(last=LAST, is_packed=True)},
            Read(1, None, "compressed"),
            [1, 0],
        ),
        # Its inode and its content are gone.
        (["log"], Place([LAST], (1, 9)), {}, Read(0, None, "replaced"), [0]),
        # The same text in another inode: reading continues there; a shorter text was read already.
        (["log"], Place([LAST], (1, 9)), {0: Facts(last=LAST)}, Read(0, LAST, "replaced"), [0]),
        (["log"], Place([LAST], (1, 9)), {0: Facts(last_cut=CUT)}, Read(0, CUT, "replaced"), [0]),
        # Of a file without a complete line nothing can be proved.
        (
            ["log.1", "log"],
            Place([OLD], (1, 9), is_unmarked=True),
            {0: Facts(last=OLD)},
            Read(1, None, "replaced"),
            [1, 0],
        ),
        # An unreadable file blocks the files after it; a file whose library is missing does not.
        (["log.2", "log.1", "log"], Place([LAST], (1, 1)), {1: Facts(error=DENIED)}, Wait(DENIED), [1]),
        (
            ["log.2", "log.1", "log"],
            Place([LAST], (1, 1)),
            {1: Facts(supported=False)},
            Read(2, None, "rename"),
            [1, 2],
        ),
    ],
)
def test_next_file(
    names: list[str], place: Place, opened: dict[int, Facts], decision: Decision, asked: list[int]
) -> None:
    """Each situation has one decision, and only the files that it needs are opened."""
    assert decided(listing(*names), place, opened) == (decision, asked)


def test_empty_files_are_passed_over() -> None:
    """A file without text is no successor and no beginning, unless it is the log itself."""
    place = Place([LAST], (1, 1))

    assert decided(listing("log.2", "log.1", "log", empty=("log.1",)), place, {}) == (
        Read(2, None, "rename"),
        [2],
    )
    assert decided(listing("log.1", "log", empty=("log",)), place, {}) == (Wait(), [])
    assert decided(listing("log.1", "log", empty=("log.1", "log")), Place([]), {}) == (
        Read(1, None, None, True),
        [1],
    )


def test_strangers_count_only_where_they_prove_the_mark() -> None:
    """A file with an unusual name is opened last, and only read if it proves the last mark."""
    listed = [one._replace(is_stranger="old" in one.path.name) for one in listing("log.old", "log.1", "log")]

    assert decided(listed, Place([LAST]), {0: Facts(last=LAST)}) == (Read(0, LAST, "rename"), [2, 1, 0])
    assert decided(listed, Place([LAST]), {0: Facts(earlier=OLD)}) == (Read(1, None, None, True), [2, 1, 0])
    assert decided(listed, Place([LAST], (1, 1)), {}) == (Read(1, None, "rename"), [1])
    assert decided([listed[0]], Place([]), {}) == (Wait(), [])


marks = st.sampled_from([None, OLD, LAST, CUT])
facts_made = st.builds(
    Facts,
    last=marks,
    last_cut=marks,
    earlier=marks,
    earlier_cut=marks,
    edited=marks,
    is_packed=st.booleans(),
    error=st.sampled_from([None, None, DENIED]),
    supported=st.sampled_from([True, True, False]),
)
places = st.builds(
    Place,
    st.sampled_from([[], [LAST], [OLD, LAST]]),
    st.sampled_from([None, (1, 1), (1, 2), (1, 9)]),
    st.booleans(),
)


@given(st.lists(facts_made, max_size=4), places, st.sets(st.integers(0, 3)))
def test_every_situation_has_an_answer(opened: list[Facts], place: Place, empty: set[int]) -> None:
    """No file is opened twice, and the chosen file exists, is readable and is not the open file."""
    names = [f"log.{number}" for number in range(len(opened) - 1, 0, -1)] + ["log"] * bool(opened)
    listed = listing(*names, empty=tuple(names[at] for at in empty if at < len(names)))
    decision, asked = decided(listed, place, dict(enumerate(opened)))

    assert len(asked) == len(set(asked)) <= len(listed)
    if isinstance(decision, Read):
        assert 0 <= decision.at < len(listed)
        assert listed[decision.at].key != place.open_key
        assert (decision.became is None) <= (place.open_key is None)
