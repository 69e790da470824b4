"""One request at a terminal: how it is found, what is shown of it, and that nothing of a log is obeyed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.command.trace import ASCII, UNICODE, Glyphs, Scale, Shown, context_of, drawn, trace
from exporter.config.config import load
from exporter.config.options import Config
from exporter.records import NANOS, TaskRow
from exporter.simulate.story import story
from exporter.store.task_view import of_ended
from exporter.store.writer import Store
from exporter.terminal import task_table as view
from tests.program import run
from tests.store_made import commit, open_task, request_row, task_row

MORNING = datetime(2026, 3, 2, 9, 0, 0, tzinfo=UTC)
NINE = int(MORNING.timestamp())
NASTY = "a\nb\r\x1b[31mred\x1b[0m\u202ekcab\u2028\x00\x9b2J\ud800"

TRACE = bytes(range(16))
RECORD = str(UUID(bytes=TRACE))
CLONE_URI = "/plugins/kimchi/vms/web01/clone"


class Terminal(StringIO):
    """A screen of a person."""

    def isatty(self) -> bool:
        return True


def in_trace(span: int, trace_id: bytes = TRACE) -> bytes:
    return trace_id + span.to_bytes(8, "big")


def configured(directory: Path) -> Config:
    given = {"timezone": "UTC", "messages": "off", "state": str(directory / "state")}
    return load(given, {}, "tasks", root=directory)


def told(
    directory: Path,
    sought: str,
    *files: Path,
    as_json: bool = False,
    out: StringIO | None = None,
    environ: dict[str, str] | None = None,
    code: int = 0,
) -> str:
    """What the command prints, and after it what it says."""
    out, screen = out or StringIO(), StringIO()
    ended = trace(
        configured(directory),
        sought,
        files,
        as_json=as_json,
        out=out,
        screen=screen,
        environ=environ or {},
        wall=lambda: (NINE + 300) * NANOS,
    )
    assert code == ended
    return out.getvalue() + screen.getvalue()


CLONED = task_row(
    1,
    context=in_trace(2),
    parent=in_trace(1),
    operation="vms.clone",
    target_uri=CLONE_URI,
    task_id="4",
    start=(NINE + 2) * NANOS,
    end=(NINE + 129) * NANOS,
    outcome="failure",
    error_code="KCHVM0035E",
    message="web01 could not be cloned: no space is left in the pool default",
    correlation="likely",
    request=2,
    since=1,
    until=26,
    concurrent=24,
)


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[Store]:
    """The state of a daemon that runs: a request with two tasks, of which one runs, among others."""
    store = Store(tmp_path / "state")
    store.mark_ready()
    others = [
        request_row(n, time=(NINE + 5 * n) * NANOS, operation="vms.start", message="") for n in range(3, 31)
    ]
    own = request_row(
        2, time=(NINE + 2) * NANOS, context=in_trace(1), record_id=RECORD, message="A clone of web01"
    )
    running = open_task(
        9,
        context=in_trace(3),
        operation="vms.migrate",
        target_uri="/plugins/kimchi/vms/web01/migrate",
        start=(NINE + 60) * NANOS,
        request=2,
        since=12,
    )
    store.commit(commit(requests=[own, *others], tasks=[CLONED], opened=[running]), NINE + 290)
    yield store
    store.close()


AT_60 = """\
trace 000102030405060708090a0b0c0d0e0f
    kimchi POST vms.clone 202 by ada from 192.0.2.7 at
    2026-03-02 09:00:02 (UTC)
    A clone of web01
    record 00010203-0405-0607-0809-0a0b0c0d0e0f

                                09:00:02            09:05:00
POST vms.clone 202              ┃
├─ failed 2m 07s vms.clone      ████████████
│   /plugins/kimchi/vms/web01/clone, task 4
│   2026-03-02 09:00:02 to 2026-03-02 09:02:09
│   span 0000000000000002
│   why: KCHVM0035E: web01 could not be cloned: no space is
│   left in the pool default
│   correlation: likely, another request could match as well
└─ running 4m 00s vms.migrate        ███████████████████████
    /plugins/kimchi/vms/web01/migrate, task 9
    running since 2026-03-02 09:01:00
    span 0000000000000003

meanwhile: 28 other requests
09:00:15 POST vms.start 202 a…   ┃
09:00:20 POST vms.start 202 a…   ┃
09:00:25 POST vms.start 202 a…    ┃
09:00:30 POST vms.start 202 a…    ┃
09:00:35 POST vms.start 202 a…     ┃
09:00:40 POST vms.start 202 a…     ┃
09:00:45 POST vms.start 202 a…      ┃
09:00:50 POST vms.start 202 a…      ┃
09:00:55 POST vms.start 202 a…      ┃
09:01:00 POST vms.start 202 a…       ┃
09:01:05 POST vms.start 202 a…       ┃
09:01:10 POST vms.start 202 a…        ┃
09:01:15 POST vms.start 202 a…        ┃
09:01:20 POST vms.start 202 a…         ┃
09:01:25 POST vms.start 202 a…         ┃
09:01:30 POST vms.start 202 a…          ┃
09:01:35 POST vms.start 202 a…          ┃
09:01:40 POST vms.start 202 a…           ┃
09:01:45 POST vms.start 202 a…           ┃
09:01:50 POST vms.start 202 a…            ┃
and 8 more
"""

AT_100 = """\
trace 000102030405060708090a0b0c0d0e0f
    kimchi POST vms.clone 202 by ada from 192.0.2.7 at 2026-03-02 09:00:02 (UTC)
    A clone of web01
    record 00010203-0405-0607-0809-0a0b0c0d0e0f

                                 09:00:02                                                   09:05:00
POST vms.clone 202               ┃
├─ failed 2m 07s vms.clone       ████████████████████████████▋
│   /plugins/kimchi/vms/web01/clone, task 4
│   2026-03-02 09:00:02 to 2026-03-02 09:02:09
│   span 0000000000000002
│   why: KCHVM0035E: web01 could not be cloned: no space is left in the pool default
│   correlation: likely, another request could match as well
└─ running 4m 00s vms.migrate                 ██████████████████████████████████████████████████████
    /plugins/kimchi/vms/web01/migrate, task 9
    running since 2026-03-02 09:01:00
    span 0000000000000003

meanwhile: 28 other requests
09:00:15 POST vms.start 202 ada    ┃
09:00:20 POST vms.start 202 ada      ┃
09:00:25 POST vms.start 202 ada       ┃
09:00:30 POST vms.start 202 ada        ┃
09:00:35 POST vms.start 202 ada         ┃
09:00:40 POST vms.start 202 ada          ┃
09:00:45 POST vms.start 202 ada           ┃
09:00:50 POST vms.start 202 ada            ┃
09:00:55 POST vms.start 202 ada             ┃
09:01:00 POST vms.start 202 ada               ┃
09:01:05 POST vms.start 202 ada                ┃
09:01:10 POST vms.start 202 ada                 ┃
09:01:15 POST vms.start 202 ada                  ┃
09:01:20 POST vms.start 202 ada                   ┃
09:01:25 POST vms.start 202 ada                    ┃
09:01:30 POST vms.start 202 ada                     ┃
09:01:35 POST vms.start 202 ada                      ┃
09:01:40 POST vms.start 202 ada                        ┃
09:01:45 POST vms.start 202 ada                         ┃
09:01:50 POST vms.start 202 ada                          ┃
and 8 more
"""


@pytest.mark.parametrize(("width", "expected"), [(60, AT_60), (100, AT_100)])
def test_a_request_on_a_terminal(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, expected: str
) -> None:
    """A tree with bars, what failed and why, and the others at their place, in the width that there is."""
    monkeypatch.setenv("COLUMNS", str(width))

    assert expected == told(tmp_path, RECORD, out=Terminal(), environ={"NO_COLOR": "1"})


def test_without_a_terminal_nothing_is_cut(store: Store, tmp_path: Path) -> None:
    """In a pipe every line is whole and plain, and the scale has a length of its own."""
    lines = told(tmp_path, CLONE_URI).splitlines()

    assert "│   why: KCHVM0035E: web01 could not be cloned: no space is left in the pool default" in lines
    assert f"09:00:15 POST vms.start 202 ada{' ' * 3}┃" in lines
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    "sought",
    [
        TRACE.hex(),
        TRACE.hex().upper(),
        RECORD,
        f"  {RECORD} ",
        in_trace(1).hex(),
        in_trace(2).hex(),
        in_trace(3).hex(),
        f"{TRACE.hex()}-{in_trace(2)[16:].hex()}",
        f"00-{TRACE.hex()}-{in_trace(3)[16:].hex()}-01",
        CLONE_URI,
        "/plugins/kimchi/vms/web01/migrate",
    ],
)
def test_whatever_names_it_finds_it(store: Store, tmp_path: Path, sought: str) -> None:
    """A trace id, a span of it, a record id and what a task works on all lead to the same request and tasks."""
    assert told(tmp_path, RECORD) == told(tmp_path, sought)


@pytest.mark.parametrize(
    "sought",
    [
        TRACE.hex()[:4],
        TRACE.hex()[:7].upper(),
        TRACE.hex()[:31],
        RECORD[:8],
        RECORD[:13],
        RECORD[:27],
        "77",
        "2",
        "web01",
        "WEB01",
        "vms/web01/migr",
        "guest web01",
    ],
)
def test_a_beginning_or_a_name_finds_it(store: Store, tmp_path: Path, sought: str) -> None:
    """The first digits of an id, even an odd number of them, a task id, an ordinal and a resource in words lead to the
    only request that they can mean.
    """
    task = CLONED._replace(context=in_trace(4), resource="guest web01", task_id="77")
    store.commit(commit(tasks=[task]), NINE + 291)

    assert told(tmp_path, RECORD) == told(tmp_path, sought)


def test_several_are_listed(store: Store, tmp_path: Path) -> None:
    """A name that several requests have lists them, newest first, with the id that shows each; the code is 1."""
    _add_clones(store, 2, "guest web01")

    text = told(tmp_path, "guest web01", code=1)
    *rows, pick = text.splitlines()

    assert rows[0].split() == ["TIME", "STATE", "OPERATION", "RESOURCE", "USER", "ID"]
    assert [row.split("  ")[0] for row in rows[1:]] == ["2026-03-02 09:16:41", "2026-03-02 09:16:40"]
    assert pick.startswith("2 requests match guest web01: to show one, use its id, as in wok-exporter trace ")
    chosen = rows[1].split()[-1]
    assert pick.endswith(chosen)
    assert "09:16:41" in told(tmp_path, chosen).splitlines()[1]
    objects = told(tmp_path, "guest web01", code=1, as_json=True)
    listed, _, said = objects.rpartition("]\n")
    assert len(json.loads(listed + "]")) == 2
    assert said == pick + "\n"


def test_a_list_is_bounded(store: Store, tmp_path: Path) -> None:
    """Of many matches the newest twenty are listed, and the others are counted."""
    _add_clones(store, 30, "guest web01")

    *rows, pick = told(tmp_path, "guest web01", code=1).splitlines()

    assert len(rows) == 21
    assert pick.startswith("30 requests match guest web01; the newest 20 are listed: to show one, ")


@pytest.mark.parametrize("columns", [50, 60, 80, 120])
def test_a_list_fits_a_terminal(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """On a terminal a list is as wide as that, whatever the log says, and shows each id and operation whole."""
    monkeypatch.setenv("COLUMNS", str(columns))
    _add_clones(store, 3, f"guest web01 {NASTY[:-1]} 仮想マシン 仮想マシン 仮想マシン 仮想マシン 仮想マシン")
    out = Terminal()

    told(tmp_path, "仮想マシン", out=out, code=1)
    *rows, _ = out.getvalue().splitlines()

    for row in rows:
        assert row.isprintable()
        assert view.width_of(row) <= columns
    assert all("vms.clone" in row and re.search(r"[0-9a-f]{32}$", row) for row in rows[1:4])


def _add_clones(store: Store, count: int, resource: str) -> None:
    requests = [
        request_row(100 + n, time=(NINE + 1000 + n) * NANOS, context=b"\xab" * 15 + bytes([n]) + b"rootroot")
        for n in range(count)
    ]
    tasks = [
        CLONED._replace(
            context=row.context[:16] + b"tasktask",
            resource=resource,
            start=row.time,
            request=row.ordinal,
            end=row.time + 9 * NANOS,
        )
        for row in requests
    ]
    store.commit(commit(requests=requests, tasks=tasks), NINE + 295)


@pytest.mark.parametrize(
    "sought", ["f" * 32, in_trace(7).hex(), "/plugins/kimchi/vms/web0/", "0001f", "", "\udcff", "%", "e", "_"]
)
def test_what_is_not_there_is_told(store: Store, tmp_path: Path, sought: str) -> None:
    """Whoever finds nothing learns what was looked for and where, and how far back that goes; the code is 1."""
    named = sought.encode("utf-8", "replace").decode()
    where = f"{tmp_path}/state, whose first request is from 2026-03-02 09:00:02"

    expected = (
        f"Nothing matches {named} in {where}. Looked for trace, span, record and task ids (or their first 4 characters"
        " or more), and for the names of resources and target URIs.\n"
    )
    assert expected == told(tmp_path, sought, code=1)
    assert "[]\n" + expected == told(tmp_path, sought, code=1, as_json=True)


def test_a_hostile_question_is_harmless(store: Store, tmp_path: Path) -> None:
    """What was looked for is repeated without what a terminal obeys."""
    said = told(tmp_path, NASTY, code=1)

    assert said.endswith("\n")
    assert said[:-1].isprintable()


def test_of_many_the_newest_are_shown(store: Store, tmp_path: Path) -> None:
    """A guest that is cloned every day has five traces shown, the newest first, and the others counted."""
    requests = [request_row(100 + n, time=(NINE + 1000 + n) * NANOS) for n in range(8)]
    tasks = [
        CLONED._replace(
            context=context,
            target_uri="/daily",
            start=row.time,
            request=row.ordinal,
            end=row.time + 9 * NANOS,
        )
        for row in requests
        for context in [row.context[:16] + b"tasktask"]
    ]
    store.commit(commit(requests=requests, tasks=tasks), NINE + 295)

    text = told(tmp_path, "/daily")

    assert re.findall(r"at 2026-03-02 (\S+) ", text) == [f"09:16:4{n}" for n in (7, 6, 5, 4, 3)]
    assert text.endswith("\n\nand 3 older ones: use a trace id to show one of them.\n")
    as_json = told(tmp_path, "/daily", as_json=True)
    assert as_json.endswith("]\nand 3 older ones: use a trace id to show one of them.\n")


def test_an_object_for_programs(store: Store, tmp_path: Path) -> None:
    """JSON has the request, its tasks and the others, in the forms of `tasks --json`."""
    (one,) = json.loads(told(tmp_path, RECORD, as_json=True))

    assert list(one) == ["trace_id", "request", "task_count", "tasks", "meanwhile"]
    assert (one["trace_id"], one["request"]["record_id"], one["task_count"]) == (TRACE.hex(), RECORD, 2)
    assert [(task["state"], task["duration_seconds"], task["span_id"]) for task in one["tasks"]] == [
        ("failed", 127.0, in_trace(2)[16:].hex()),
        ("running", 240.0, in_trace(3)[16:].hex()),
    ]
    assert (one["meanwhile"]["count"], len(one["meanwhile"]["requests"])) == (28, 28)


def test_a_request_without_tasks(store: Store, tmp_path: Path) -> None:
    """Most requests start nothing: this is said, and there is no meanwhile."""
    store.commit(commit(requests=[request_row(40, time=NINE * NANOS, context=in_trace(1, b"r" * 16))]), NINE)
    expected = """\
trace 72727272727272727272727272727272
    kimchi POST vms.clone 202 by ada from 192.0.2.7 at 2026-03-02 09:00:00 (UTC)
    clones guest 40
    It started no task.

                    09:00:00
POST vms.clone 202  ┃
"""

    assert expected == told(tmp_path, (b"r" * 16).hex())


def odd(store: Store, **changed: Any) -> None:
    """One more ended task, alone with its trace."""
    row: TaskRow = CLONED._replace(
        context=in_trace(9, b"o" * 16), request=0, correlation="none", since=0, until=0, concurrent=0
    )
    store.commit(commit(tasks=[row._replace(**changed)]), NINE + 291)


def test_a_task_without_a_request(store: Store, tmp_path: Path) -> None:
    """What is known of a task alone is shown, with the words that its request is not."""
    odd(store)
    expected = """\
trace 6f6f6f6f6f6f6f6f6f6f6f6f6f6f6f6f
    Its request is unknown.
    2026-03-02 09:00:02 (UTC)

                             09:00:02                        09:02:09
request unknown
└─ failed 2m 07s vms.clone   ████████████████████████████████████████
    /plugins/kimchi/vms/web01/clone, task 4
    2026-03-02 09:00:02 to 2026-03-02 09:02:09
    span 0000000000000009
    why: KCHVM0035E: web01 could not be cloned: no space is left in the pool default
    correlation: none, no request was found that could have started the task

meanwhile: no other request
"""

    assert re.sub(" +", " ", expected) == re.sub(" +", " ", told(tmp_path, (b"o" * 16).hex()))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"outcome": "unknown"}, "started 2026-03-02 09:00:02; the log does not show if or when it ended"),
        ({"start": CLONED.end}, "ended 2026-03-02 09:02:09; the log does not show when it started"),
        ({"outcome": "lost", "message": "lost: wokd went", "error_code": ""}, "why: wokd went"),
        ({"request": 10**6}, "Its request is no longer in the history."),
        (
            {"correlation": "ambiguous"},
            "correlation: ambiguous, this is one of several requests that may have started the task",
        ),
        ({"concurrent": 3, "since": 900, "until": 903}, "and 3 no longer in the history"),
    ],
)
def test_what_is_not_known_is_said(
    store: Store, tmp_path: Path, changed: dict[str, Any], expected: str
) -> None:
    """Ends, starts, requests and others that nobody knows are told in words."""
    odd(store, **changed)

    assert expected in map(str.strip, told(tmp_path, (b"o" * 16).hex()).splitlines())


def test_one_request_with_very_many_tasks(store: Store, tmp_path: Path) -> None:
    """A log that gives one request hundreds of tasks has the first of them shown, and the others counted."""
    tasks = [CLONED._replace(context=in_trace(100 + n)) for n in range(300)]
    store.commit(commit(tasks=tasks), NINE + 291)
    lines = told(tmp_path, RECORD).splitlines()

    assert sum(line.startswith("├─ ") for line in lines) == 20
    assert "└─ and 282 more" in lines


def test_a_task_that_has_no_trace_yet(store: Store, tmp_path: Path) -> None:
    """A task whose start record still looks for its request is found by what it works on, and it alone."""
    waiting = [
        open_task(n, key=b"%d" % n, context=b"", request=0, target_uri=f"/{n}", start=(NINE + 9) * NANOS)
        for n in (51, 52)
    ]
    store.commit(commit(opened=waiting), NINE + 291)
    lines = told(tmp_path, "/52").splitlines()

    assert lines[0] == "trace not known yet"
    assert [line.strip() for line in lines if ", task" in line] == ["/52, task 52"]


# Terminals


def test_bars_have_the_colour_of_their_state(store: Store, tmp_path: Path) -> None:
    """On a terminal a failure is red, what runs is cyan, and a colour changes no width."""
    plain = told(tmp_path, RECORD, out=Terminal(), environ={"NO_COLOR": "1"})
    coloured = told(tmp_path, RECORD, out=Terminal())

    assert re.findall(r"\x1b\[(\d+)m█", coloured) == ["31", "36"]
    assert plain == re.sub(r"\x1b\[\d*m", "", coloured)
    assert told(tmp_path, RECORD, out=Terminal(), environ={"TERM": "dumb"}) == plain


def test_a_terminal_that_knows_only_ascii(store: Store, tmp_path: Path) -> None:
    """Bars and trees are made of ASCII, and names of other alphabets are spelt out, in their columns."""
    jose = request_row(41, time=NINE * NANOS, user="josé", context=in_trace(1, b"j" * 16))
    odd(store, request=41, target_uri="/日本", since=40, until=41)
    store.commit(commit(requests=[jose]), NINE + 291)
    expected = """\
trace 6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a
    kimchi POST vms.clone 202 by jos\\xe9 from 192.0.2.7 at 2026-03-02 09:00:00 (UTC)
    clones guest 41

                            09:00:00                        09:02:09
POST vms.clone 202          |
`- failed 2m 07s vms.clone  ========================================
    /\\u65e5\\u672c, task 4
"""
    printed = BytesIO()
    with TextIOWrapper(printed, encoding="ascii", write_through=True) as out:
        trace(configured(tmp_path), (b"j" * 16).hex(), (), as_json=False, out=out, environ={})
        shown = printed.getvalue().decode("ascii")

    assert expected == shown[: len(expected)]


@pytest.mark.parametrize("width", [None, 20, 60, 100])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_hostile_names_are_harmless(width: int | None, encoding: str) -> None:
    """Nothing of a log begins a line, moves the cursor or turns the text, whichever field it stands in."""
    row = CLONED._replace(
        app=NASTY, operation=NASTY, target_uri=NASTY, task_id=NASTY, error_code=NASTY, message=NASTY
    )
    request = request_row(
        2, app=NASTY, method=NASTY, operation=NASTY, user=NASTY, address=NASTY, record_id=NASTY, message=NASTY
    )
    shown = Shown(request, [(of_ended(row), row.end)], 1, [request], 1)

    lines = all_lines(shown, width, encoding)

    assert [line for line in lines if not line.isprintable()] == []


def all_lines(shown: Shown, width: int | None, encoding: str = "utf-8") -> list[str]:
    return list(drawn(shown, zone=UTC, place="UTC", width=width, encoding=encoding, is_coloured=False))


@given(
    st.text(max_size=60),
    st.integers(1, 200),
    st.lists(st.integers(0, 2**62), min_size=4, max_size=4),
    st.sampled_from(["utf-8", "ascii"]),
)
def test_no_line_is_wider_than_the_terminal(text: str, width: int, times: list[int], encoding: str) -> None:
    """Whatever a log holds, clocks that were set back as well, and however narrow the window: a row stays a row."""
    row = CLONED._replace(operation=text, target_uri=text, message=text, start=times[0], end=times[1])
    request = request_row(2, time=times[2], operation=text, user=text, message=text)
    other = request._replace(time=times[3])
    shown = Shown(request, [(of_ended(row), row.end)], 1, [other], 1)

    for line in all_lines(shown, width, encoding):
        assert view.width_of(line) <= width
        assert line.isprintable()


@pytest.mark.parametrize(
    ("start", "end", "glyphs", "expected"),
    [
        (0, 100, UNICODE, "██████████"),
        (0, 50, UNICODE, "█████▏"),
        (50, 100, UNICODE, "     █████"),
        (25, 50, UNICODE, "  ███▏"),
        (0, 0, UNICODE, "▏"),
        (100, 100, UNICODE, "         █"),
        (50, 40, UNICODE, "     ▏"),
        (0, 100, ASCII, "=========="),
        (50, 60, ASCII, "     =="),
        (0, 0, ASCII, "="),
    ],
)
def test_bars(start: int, end: int, glyphs: Glyphs, expected: str) -> None:
    """A bar stands from its start to its end, is never nothing, and never leaves the scale."""
    bar, before = Scale(0, 100, 10).bar(start, end, glyphs, is_vague=False)

    assert expected == before + bar


def test_what_nobody_saw_end_is_vague() -> None:
    """A task of which the end is unknown has a bar that looks like it."""
    assert Scale(0, 100, 10).bar(0, 50, UNICODE, is_vague=True) == ("░░░░░", "")


@pytest.mark.parametrize(
    "text", ["", "abc", "f" * 31, "f" * 33, "g" * 32, "٣" * 32, "f" * 32 + "-" + "f" * 15]
)
def test_what_is_no_id(text: str) -> None:
    """Only whole ids of ASCII are ids; all else is what a task works on."""
    assert context_of(text) == b""


# The command


def test_logs_without_a_daemon(tmp_path: Path) -> None:
    """The command reads logs as `tasks` does, finds what is in them, and says with its code what it did not find."""
    log = tmp_path / "user-requests.data"
    lines = story("json", start=MORNING)
    log.write_bytes(b"".join(line.data + b"\n" for line in lines if line.log == "requests"))

    found = run("trace", "/lvs/vg_name/data", "--timezone", "UTC", "--messages", "off", "--file", log)
    missing = run("trace", "f" * 32, "--file", log, log)

    assert (found.returncode, found.stderr) == (0, "")
    assert "└─ failed 1s lvs.create" in found.stdout
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith(
        f"Nothing matches {'f' * 32} in the 2 files, whose first request is from "
    )


def test_no_state_is_a_sentence(tmp_path: Path) -> None:
    """Without a daemon's state the command says what to name, and exits with 2."""
    done = run("trace", RECORD, "--state", tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == f"error: {tmp_path}/state.db does not exist; name the directory of a daemon's state\n"
    )
