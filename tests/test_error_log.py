"""wok-error.log: what each release writes, what is kept of it, and what anybody can write between."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.parse.timezone import Zones
from exporter.records import NANOS
from exporter.wok import error_log
from exporter.wok.error_log import (
    STACK_BYTES_MAX,
    TEXT_BYTES_MAX,
    TRACEBACK_LINES_MAX,
    Block,
    Doubt,
    Dropped,
    ErrorLog,
    Frame,
    Header,
    Item,
    Mark,
    clock_sequence_of,
    start_of,
)
from exporter.wok.forgery import Forged, forged_by

from .error_log_made import (
    BOOT,
    CAUSED,
    CHAINED,
    SWAPS_CREATE,
    UTC,
    VMS_CLONE,
    block,
    blocks,
    frames,
    header,
    parsed,
    task_id,
    traceback,
)
from .records_made import EPOCH

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
ONE, TWO, THREE = (task_id(10 + number, number) for number in range(3))


def test_a_block_is_id_class_text_and_frames() -> None:
    """Header and traceback give the task's id, the class, the text, and the functions of plug-ins."""
    (found,) = blocks(block(ONE, said="ValueError: no room"))

    assert found.ids == (ONE,)
    assert (found.exception, found.code, found.text, found.is_cut) == ("ValueError", "", "no room", False)
    assert found.frames == (Frame(*VMS_CLONE),)
    assert found.stack.startswith("Traceback")
    assert found.stack.endswith("ValueError: no room")


def test_the_id_is_the_time_of_the_start() -> None:
    """A uuid1 holds the start to 100 nanoseconds, and the clock sequence of its thread."""
    assert start_of(task_id(12.3456789, 77)) == EPOCH * NANOS + 12_345_678_900
    assert clock_sequence_of(task_id(0, 1)) != clock_sequence_of(task_id(0, 2))


@pytest.mark.parametrize(
    ("said", "exception", "code", "text"),
    [
        (
            "wok.exception.OperationFailed: KCHVM0035E: x",
            "wok.exception.OperationFailed",
            "KCHVM0035E",
            "KCHVM0035E: x",
        ),
        ("OperationFailed: GINSP00005E: x", "OperationFailed", "GINSP00005E", "GINSP00005E: x"),
        ("libvirt.libvirtError: a: b", "libvirt.libvirtError", "", "a: b"),
        ("RuntimeError", "RuntimeError", "", ""),
        ("RuntimeError: KCHVM0035E: x", "RuntimeError", "", "KCHVM0035E: x"),
        ("a.b.<locals>.C: x", "a.b.<locals>.C", "", "x"),
        ("KeyError: 'kc'", "KeyError", "", "'kc'"),
        ("UnicodeError: caf\\xe9 \\u2014", "UnicodeError", "", "caf\\xe9 \\u2014"),
        ("ValueError: one\ntwo >>> three\n   \nfour", "ValueError", "", "one\ntwo >>> three\n   \nfour"),
        ("x.Odd: <unprintable Odd object>", "x.Odd", "", "<unprintable Odd object>"),
        ("ValueError: a\u2028b", "ValueError", "", "a\u2028b"),
    ],
)
def test_classes_and_texts(said: str, exception: str, code: str, text: str) -> None:
    """Class, code and text are as either Python prints them; only a WokException has a code."""
    (found,) = blocks([header(ONE, blank=True), *traceback(said=said)])

    assert (found.exception, found.code, found.text) == (exception, code, text)


def test_an_empty_line_ends_the_text() -> None:
    """Of a text with an empty line the first paragraph is kept, and nothing of the rest is taken for a block."""
    (found,) = blocks(block(ONE, said="RuntimeError: first\nsecond\n\nthird: x\n  fourth"))

    assert found.text == "first\nsecond"


def test_the_own_traceback_of_a_chain_is_the_one_that_begins_in_wok() -> None:
    """The causes stand before it and stay in the stack; the class and the text are the last one's."""
    cause = [
        "Traceback (most recent call last):",
        '  File "/x.py", line 1, in y',
        "    z()",
        "KeyError: 'z'",
        "",
    ]
    for sentence in (CHAINED, CAUSED):
        (found,) = blocks([header(ONE), *traceback(causes=[*cause, sentence, ""], said="OSError: late")])

        assert (found.exception, found.text, found.ids) == ("OSError", "late", (ONE,))
        assert "KeyError: 'z'" in found.stack
        assert found.stack.startswith("Traceback")


def test_a_text_that_looks_like_a_chain_is_text() -> None:
    """What follows the own traceback is text, however it looks."""
    said = f'RuntimeError: 1\n{CHAINED}\nTraceback (most recent call last):\n  File "x", line 1, in y\nKeyError: 2'
    (found,) = blocks(block(ONE, said=said))

    assert found.exception == "RuntimeError"
    assert found.text.endswith("KeyError: 2")


def test_carets_notes_and_repeated_lines() -> None:
    """Python 3.11 underlines what it means and adds notes behind the text; recursions are abridged."""
    deeper = [
        '  File "/usr/lib/python3.8/site-packages/wok/plugins/kimchi/model/x.py", line 2, in again',
        "    again(cb)",
        "    ~~~~~^^^^",
        "  [Previous line repeated 990 more times]",
    ]
    (found,) = blocks([header(ONE), *traceback(deeper=deeper, said="RecursionError: too deep\na note")])

    assert found.text == "too deep\na note"
    assert [frame.function for frame in found.frames] == ["_clone_task", "again"]


def test_groups() -> None:
    """An exception group is one exception with the group's own text; its members stay in the stack."""
    lines = [
        header(ONE),
        "  + Exception Group Traceback (most recent call last):",
        *("  | " + line for line in frames(SWAPS_CREATE)),
        "  | ExceptionGroup: several (2 sub-exceptions)",
        "  | a note",
        "  +-+---------------- 1 ----------------",
        "    | ValueError: one",
        "    +---------------- 2 ----------------",
        "    | TypeError: two",
        "    +------------------------------------",
        "",
    ]
    (found,) = blocks(lines)

    assert (found.exception, found.text) == ("ExceptionGroup", "several (2 sub-exceptions)\na note")
    assert found.frames == (Frame(*SWAPS_CREATE),)
    assert "TypeError: two" in found.stack


def test_a_task_without_a_function() -> None:
    """Kimchi hands over a name instead of a function: the traceback has no frame but Wok's."""
    (found,) = blocks([header(ONE), *traceback(None, "TypeError: 'str' object is not callable")])

    assert found.frames == ()


def test_two_headers_before_a_traceback_make_both_unsure() -> None:
    """Which traceback is whose cannot be said; the next header begins anew."""
    lines = [
        header(ONE),
        header(TWO),
        *traceback(said="A: 1"),
        *traceback(said="B: 2"),
        *block(THREE, said="C: 3"),
    ]

    assert [found.ids for found in blocks(lines)] == [(ONE, TWO), (ONE, TWO), (THREE,)]


def test_a_lost_traceback_shifts_nothing() -> None:
    """A header whose traceback could not be written makes the next block unsure, and no other."""
    lines = [header(ONE), *block(TWO), *block(THREE)]

    assert [found.ids for found in blocks(lines)] == [(ONE, TWO), (THREE,)]


def test_a_traceback_too_many_is_a_doubt() -> None:
    """A second traceback of one header says that one of the two is not Wok's."""
    items = parsed([*block(ONE), *traceback()])

    assert [item.ids for item in items if isinstance(item, Doubt)] == [(ONE,)]


def test_a_failed_request_ends_without_an_empty_line() -> None:
    """CherryPy's own traceback is no block, and the header behind it counts."""
    lines = [
        "[01/Aug/2016:00:00:05] HTTP ",
        "Traceback (most recent call last):",
        '  File "/usr/lib/python3/cherrypy/_cprequest.py", line 5, in run',
        "    self.respond()",
        "AttributeError: x",
        *block(ONE),
    ]

    assert [found.ids for found in blocks(lines)] == [(ONE,)]
    assert "cherrypy" not in blocks(lines)[0].stack


def test_a_request_fails_between_header_and_traceback() -> None:
    """Another thread's traceback between the two writes is neither the block nor a part of it."""
    between = [
        "[01/Aug/2016:00:00:05] HTTP ",
        "Traceback (most recent call last):",
        '  File "/usr/lib/python3/cherrypy/_cprequest.py", line 5, in run',
        "AttributeError: x",
    ]
    (found,) = blocks([header(ONE), *between, *traceback()])

    assert (found.ids, found.exception) == ((ONE,), "ValueError")
    assert "AttributeError" not in found.stack


def test_secrets_are_redacted_before_anything_is_kept() -> None:
    """Neither text nor stack nor state holds a secret that the exception quotes, over several lines neither."""
    secret = "RuntimeError: {'username': 'u', 'password': 'top\nmost'} http://a:secretly@host/"
    cause = [
        "Traceback (most recent call last):",
        '  File "/x.py", line 1, in y',
        "KeyError: password=hidden",
        "",
    ]
    reader = ErrorLog(UTC)
    kept = ""
    for line in [header(ONE), *traceback(said=secret, causes=[*cause, CHAINED, ""])]:
        items = reader.feed(line.encode())
        kept += reader.state + repr(items)

    assert "[redacted]" in kept
    assert not any(word in kept for word in ("top", "most'", "secretly", "hidden"))


def test_limits() -> None:
    """A long text is cut, a long stack keeps its head and its tail, and an endless traceback is dropped."""
    (long_text,) = blocks(block(ONE, said="RuntimeError: " + "x" * 100_000))
    deep = ['  File "/x.py", line 1, in y', "    y()"]
    (long_stack,) = blocks([header(ONE), *traceback(deeper=deep * 900, said="RecursionError: end")])
    endless = parsed([header(ONE), *traceback(deeper=deep * TRACEBACK_LINES_MAX), *block(TWO)])
    paragraph = "RuntimeError: x" + "\ny" * (TRACEBACK_LINES_MAX + 5)
    (long_paragraph, after) = blocks([*block(ONE, said=paragraph), *block(TWO)])

    assert (len(long_text.text), long_text.is_cut) == (TEXT_BYTES_MAX, True)
    assert len(long_stack.stack.encode()) <= STACK_BYTES_MAX
    assert long_stack.stack.startswith("Traceback")
    assert long_stack.stack.endswith("RecursionError: end")
    assert [item.ids for item in endless if isinstance(item, Dropped)] == [(ONE,)]
    assert [item.ids for item in endless if isinstance(item, Block)] == [(TWO,)]
    assert long_paragraph.is_cut
    assert after.ids == (TWO,)


def test_bytes_that_are_no_text() -> None:
    """A latin-1 locale writes bytes that are no UTF-8: they are replaced, and nothing is raised."""
    lines = [line.encode() for line in block(ONE, said="ValueError: caf")]
    lines[-2] += b"\xe9"

    assert blocks(lines)[0].text == "caf\ufffd"


def test_a_torn_traceback_is_dropped() -> None:
    """A traceback that breaks off gives no block, and what follows it is read."""
    lines = [header(ONE), *traceback()[:4], "KCHVM0035E: told by another thread", *block(TWO)]
    items = parsed(lines)

    assert [item.ids for item in items if isinstance(item, Dropped)] == [(ONE,)]
    assert [item.ids for item in items if isinstance(item, Block)] == [(TWO,)]


def test_a_header_inside_a_text_is_quoted() -> None:
    """A header within the text of a block is reported as what it is, and begins nothing."""
    said = "\n".join(["RuntimeError: x", *block(TWO)[:-1]])
    items = parsed(block(ONE, said=said))

    assert [(item.task_id, item.is_quoted) for item in items if isinstance(item, Header)] == [
        (ONE, False),
        (TWO, True),
    ]
    assert [item.ids for item in items if isinstance(item, Block)] == [(ONE,)]


def test_a_traceback_from_elsewhere_is_odd() -> None:
    """In one boot `_run_helper` stands in one file and line: what differs from its neighbours is marked."""
    true = [line for number in range(4) for line in block(task_id(number))]
    odd = block(ONE, place="/usr/lib/python3/dist-packages")

    assert [found.is_odd for found in blocks([*true, *odd, *block(TWO)])] == [False] * 4 + [True, False]


def test_marks_and_their_chain() -> None:
    """A mark has the local time of the host, and says whether wokd's other lines stand before it."""
    (mark,) = parsed(BOOT)
    bare = parsed([BOOT[0], BOOT[-1]])[-1]
    (only,) = parsed(BOOT[-1:])
    (half,) = parsed([BOOT[2], BOOT[5]])

    assert mark == Mark(1, 1_470_009_602 * NANOS, True, BOOT[-1].decode())
    assert isinstance(bare, Mark)
    assert isinstance(half, Mark)
    assert not bare.is_chained
    # A file in which no such lines stand at all says nothing against the mark.
    assert isinstance(only, Mark)
    assert only.is_chained
    assert not half.is_chained
    assert parsed([line + b"\r" for line in BOOT]) == [mark]
    assert parsed(BOOT, ErrorLog(Zones("America/Sao_Paulo"))) == [
        mark._replace(time=mark.time + 3 * 3600 * NANOS)
    ]


def test_a_forged_mark_does_not_take_the_chain() -> None:
    """A mark in the middle of wokd's own lines leaves them to the true one."""
    lines = [*BOOT[:3], BOOT[5], *BOOT[3:]]

    assert [item.is_chained for item in parsed(lines) if isinstance(item, Mark)] == [False, True]


def test_other_lines_say_nothing() -> None:
    """What only resembles a mark or a header is none."""
    others = [
        b"  [01/Aug/2016:00:00:02] ENGINE Bus STARTED",
        b"[99/Aug/2016:00:00:02] ENGINE Bus STARTED",
        b"[01/Foo/2016:00:00:02] ENGINE Bus STARTED",
        b"[01/Aug/2016:00:00:02] ENGINE Bus STOPPED",
        b"[01/Aug/2016:00:00:02] ENGINE Caught signal SIGTERM.",
        b"x [01/Aug/2016:00:00:02] ENGINE Bus STARTED",
        b"\xff\xfe [01/Aug/2016:00:00:02] ENGINE Bus STARTED",
        b"Error in async_task 11 ",
        b"Error in async_task 69ae76e6-e6ec-41f1-a1fa-02fc00000001",
        b"x Error in async_task " + ONE.encode(),
        b"\xff\xfe",
        b"",
    ]

    assert parsed(others) == []


def test_what_a_parameter_has_written() -> None:
    """Headers and marks behind an escaped line break of the request log are found, others are not."""
    line = rb'{"username": "x\nError in async_task ' + ONE.encode() + rb"\n" + BOOT[-1] + rb'"}'

    assert forged_by(line) == Forged((ONE,), (BOOT[-1].decode(),))
    assert forged_by(line.replace(rb"\n", b" ")) == forged_by(b"") == forged_by(rb"a\nb") == Forged()


LINES = st.lists(
    st.one_of(
        st.sampled_from([ONE, TWO, THREE]).map(lambda made: [header(made)]),
        st.sampled_from(
            ["ValueError: x", "RuntimeError", "OperationFailed: KCHVM0035E: x\ny", "not a class"]
        ).map(lambda said: traceback(said=said)),
        st.just(["Traceback (most recent call last):", '  File "/x.py", line 1, in y', "KeyError: 1", ""]),
        st.sampled_from(["", CHAINED, "x", "  x", "  | x", "Traceback (most recent call last):"]).map(
            lambda x: [x]
        ),
        st.sampled_from([line.decode() for line in BOOT]).map(lambda line: [line]),
    ),
    max_size=12,
).map(lambda groups: [line for group in groups for line in group])


@settings(max_examples=300, deadline=None)
@given(LINES, st.sets(st.integers(0, 200)))
def test_a_restart_at_any_line_changes_nothing(lines: list[str], stops: set[int]) -> None:
    """A reader that is made again from its state, and reads again what was held, gives the same items."""
    data = [line.encode() for line in lines]
    expected = parsed(data)

    reader = ErrorLog(UTC)
    items: list[Item] = []
    for at, line in enumerate(data):
        items += reader.feed(line)
        if at in stops:
            held = reader.held
            reader = ErrorLog(UTC, reader.state)
            for again in data[at + 1 - held : at + 1]:
                assert reader.feed(again) == []

    assert items == expected


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(st.binary(max_size=40).filter(lambda x: b"\n" not in x), st.sampled_from(BOOT)), max_size=30
    )
)
def test_nothing_is_raised(lines: list[bytes]) -> None:
    """Any bytes are read; what is kept of them stays bounded."""
    reader = ErrorLog(UTC)
    for line in [header(ONE).encode(), *lines]:
        reader.feed(line)

    assert len(reader.state) < 4096


def test_an_unended_traceback_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a traceback goes on, no more of it is held than the limit."""
    monkeypatch.setattr(error_log, "TRACEBACK_BYTES_MAX", 10_000)
    reader = ErrorLog(UTC)
    for line in [header(ONE), *traceback()[:-2], "ValueError: x", *["y" * 100] * 500]:
        reader.feed(line.encode())

    assert reader.held < 150


@pytest.mark.parametrize(
    ("name", "starts", "others"),
    [
        ("wok-3.0.0-errors", 4, 4),
        ("wok-2.4.0-errors", 4, 4),
        ("wok-2.5.0-tasklog", 3, 0),
        ("wok-2.1.0", 2, 0),
    ],
)
def test_marks_of_real_logs(name: str, starts: int, others: int) -> None:
    """Every true start of wokd has its chain, and no forged one has."""
    path = CORPUS / name / "wok-error.log"
    if not path.exists():
        pytest.skip("no corpus beside the checkout")
    found = [item for item in parsed(path.read_bytes().split(b"\n")) if isinstance(item, Mark)]

    assert [sum(mark.is_chained for mark in found), sum(not mark.is_chained for mark in found)] == [
        starts,
        others,
    ]
