"""The tasks at a terminal: what the table says, at any width and of anything, and where the answers come from."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.cli import main
from exporter.command.arguments import tasks_arguments
from exporter.command.task_filters import NO_FILTERS, TaskFilters, filters_of
from exporter.command.tasks import Which, tasks, watch
from exporter.config.config import load
from exporter.config.options import Config
from exporter.correlate.certainty import Certainty
from exporter.correlate.stored import row_of
from exporter.correlate.task_state import Task
from exporter.records import NANOS, Grade, OpenTask
from exporter.simulate.busy import busy
from exporter.simulate.records import Dialect
from exporter.simulate.story import story
from exporter.store.task_view import TaskView, Usual
from exporter.store.writer import Store, StoreError
from exporter.terminal import task_table as view
from exporter.terminal.fullscreen import CLEAR_BELOW, CLEAR_LINE, ENTER, HOME, LEAVE, FullScreen
from exporter.terminal.progress import ProgressLine
from exporter.terminal.task_table import Listed, as_object, duration, table
from exporter.wok.operations import Operations
from tests.program import command, environ, run, wait_until
from tests.store_made import commit, context, open_task, request_row, task_row

MORNING = datetime(2026, 3, 2, 9, 0, 0, tzinfo=UTC)
NINE = int(MORNING.timestamp())
NASTY = "a\nb\r\x1b[31mred\x1b[0m\u202ekcab\u2028\x00\x9b2J\ud800"

REQUEST = request_row(7, time=(NINE + 2) * NANOS, message="A clone of web01")
CLONE = Listed(
    TaskView(
        state="failed",
        app="kimchi",
        operation="vms.clone",
        target_uri="/plugins/kimchi/vms/web01-clone-1772442006800000/clone",
        task_id="4",
        start=(NINE + 2) * NANOS,
        end=(NINE + 249) * NANOS,
        duration=247 * NANOS,
        correlation="likely",
        context=context(4),
        error_code="KCHVM0035E",
        why="web01 could not be cloned: no space is left in the pool default",
        user="ada",
        address="192.0.2.7",
        request=7,
        since=6,
        until=19,
        concurrent=12,
    ),
    REQUEST,
    (
        request_row(8, time=(NINE + 3) * NANOS, operation="vms.start"),
        request_row(9, time=(NINE + 4) * NANOS, user="", method="PUT", operation=""),
    ),
)


def but(listed: Listed, **changed: Any) -> Listed:
    """The same with another task."""
    return listed._replace(task=listed.task._replace(**changed))


RUNNING = but(
    CLONE, state="running", end=None, target_uri="", correlation="exact", error_code="", why="", concurrent=0
)
DONE = but(
    CLONE._replace(request=None),
    state="done",
    correlation="none",
    duration=None,
    app="wok",
    operation="other",
    target_uri="/x",
)


CERTAINTIES: dict[Grade, Certainty] = {
    "exact": Certainty(joined=True, named=True),
    "likely": Certainty(joined=True),
    "ambiguous": Certainty(joined=True, contested=True),
    "none": Certainty(),
}


class Terminal(StringIO):
    """A screen of a person."""

    def isatty(self) -> bool:
        return True


def opened(number: int, *, grade: Grade = "none", by_start: bool = False, **changed: Any) -> OpenTask:
    """A running task as the correlator keeps it."""
    task = Task(b"", 1, "", 0, since=0, by_start=by_start)
    task.certainty = CERTAINTIES[grade]
    return open_task(number, data=row_of(task).data, **changed)


def lines_of(*shown: Listed, width: int | None = None, is_coloured: bool = False) -> list[str]:
    return list(table(shown, zone=UTC, width=width, is_coloured=is_coloured))


def configured(directory: Path, **flags: str) -> Config:
    given = {"timezone": "UTC", "messages": "off", "state": str(directory / "state"), **flags}
    return load(given, {}, "tasks", root=directory)


def told(
    config: Config,
    *files: Path,
    which: Which = "all",
    limit: int = 50,
    filters: TaskFilters = NO_FILTERS,
    as_json: bool = False,
    out: StringIO | None = None,
    environ: dict[str, str] | None = None,
    now: float = NINE + 100,
) -> str:
    """What the command prints."""
    out = out or StringIO()
    code = tasks(
        config,
        files,
        which=which,
        limit=limit,
        filters=filters,
        as_json=as_json,
        out=out,
        screen=StringIO(),
        environ=environ or {},
        wall=lambda: int(now * NANOS),
    )
    assert code == 0
    return out.getvalue()


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[Store]:
    """The state of a daemon that runs: one task runs, one failed, one was lost, one is done."""
    store = Store(tmp_path / "state")
    store.mark_ready()
    store.commit(
        commit(
            opened=[opened(6, start=(NINE + 6) * NANOS, request=6, since=6, operation="vms.migrate")],
            requests=[request_row(n, time=(NINE + n) * NANOS, operation=f"vms.op{n}") for n in range(1, 9)],
            tasks=[
                task_row(
                    2,
                    start=(NINE + 2) * NANOS,
                    end=(NINE + 5) * NANOS,
                    since=1,
                    until=5,
                    request=2,
                    concurrent=3,
                    outcome="failure",
                    error_code="KCHVM0035E",
                    message="no room",
                ),
                task_row(
                    3,
                    start=(NINE + 3) * NANOS,
                    end=(NINE + 10) * NANOS,
                    since=3,
                    until=3,
                    request=0,
                    correlation="none",
                    outcome="lost",
                    message="lost: wokd was restarted before the task ended",
                ),
                task_row(
                    1,
                    start=(NINE + 1) * NANOS,
                    end=(NINE + 9) * NANOS,
                    since=1,
                    until=8,
                    request=1,
                    concurrent=7,
                ),
            ],
            counters={("wok_requests_total", "kimchi", "POST", "202"): 8},
        ),
        NINE + 90,
    )
    yield store
    store.close()


# The table


def test_a_table_without_a_terminal() -> None:
    """In a pipe every column is there, whole, below its title; what failed says why, and what else was asked."""
    expected = [
        "STATE    STARTED              DURATION  APP     OPERATION  RESOURCE                                                USER  REQUEST               MEANWHILE  ID",
        "running  2026-03-02 09:00:02  4m 07s    kimchi  vms.clone  A clone of web01                                        ada   POST vms.clone 202    0          00000000",
        "failed   2026-03-02 09:00:02  4m 07s    kimchi  vms.clone  /plugins/kimchi/vms/web01-clone-1772442006800000/clone  ada   POST vms.clone 202 ?  12         00000000",
        "    why: KCHVM0035E: web01 could not be cloned: no space is left in the pool default",
        "    meanwhile: 12 others: POST kimchi vms.start by ada at 09:00:03, PUT kimchi at 09:00:04, ...",
        "done     2026-03-02 09:00:02  -         wok     other      /x                                                      -     -                     12         00000000",
    ]

    assert expected == lines_of(RUNNING, CLONE, DONE)


def test_a_terminal_of_200_columns_has_room_for_all() -> None:
    """Where there is room nothing differs from a pipe."""
    assert lines_of(RUNNING, CLONE, DONE) == lines_of(RUNNING, CLONE, DONE, width=200)


def test_a_terminal_of_80_columns() -> None:
    """Columns that are said again below leave, a resource keeps its end, and reasons are wrapped, not cut."""
    lines = lines_of(RUNNING, CLONE, DONE, width=80)

    expected = [
        "STATE    STARTED              DURATION  OPERATION  RESOURCE                 USER",
        "running  2026-03-02 09:00:02  4m 07s    vms.clone  A clone of web01         ada",
        "failed   2026-03-02 09:00:02  4m 07s    vms.clone  …1772442006800000/clone  ada",
        "    why: KCHVM0035E: web01 could not be cloned: no space is left in the pool",
        "    default",
        "    meanwhile: 12 others: POST kimchi vms.start by ada at 09:00:03, PUT kimchi",
        "    at 09:00:04, ...",
        "done     2026-03-02 09:00:02  -         other      /x                       -",
    ]
    assert expected == lines


@pytest.mark.parametrize("name", ["guest " + "x" * 34, "guest " + "仮" * 17])
def test_repeated_columns_leave_before_a_resource_is_cut(name: str) -> None:
    """At 120 columns a resource of 40 cells is whole beside a user with a long name, who is cut, and the id is there;
    what the operation says already is not.
    """
    user = request_row(1, user="u" * 60)
    titles, line, *_ = lines_of(but(CLONE._replace(request=user), resource=name), width=120)

    assert titles.split() == ["STATE", "STARTED", "DURATION", "OPERATION", "RESOURCE", "USER", "ID"]
    assert f"  {name}  uuuuuu" in line
    assert line.endswith("u…  00000000")


@pytest.mark.parametrize(
    ("seconds", "tasks", "expected"),
    [
        (60, 40, "    usually: 1m 00s"),
        (89, 40, "    usually: 1m 00s"),
        (95, 40, "    usually: 1m 00s, and 9 of 10 take at most 1m 30s"),
        (
            9000,
            40,
            "    usually: 1m 00s, and 9 of 10 take at most 1m 30s; this one has taken 150 times as long",
        ),
        (9000, 2, ""),
    ],
)
def test_a_running_task_is_compared_with_the_usual(seconds: int, tasks: int, expected: str) -> None:
    """Below a running task stands how long such tasks take, and how much longer this one, if there are enough of them."""
    usual = Usual(tasks, 60 * NANOS, 90 * NANOS)
    running = but(RUNNING, duration=seconds * NANOS, concurrent=0)._replace(usual=usual)

    assert lines_of(running)[2:] == ([expected] if expected else [])
    assert lines_of(but(running, state="done"))[2:] == []


def test_the_usual_is_of_the_history(store: Store, tmp_path: Path) -> None:
    """What is usual comes from the tasks of the same operation that succeeded."""
    done = [
        task_row(200 + n, operation="vms.migrate", start=0, end=n * NANOS, request=1, outcome="success")
        for n in range(1, 6)
    ]
    store.commit(commit(tasks=done), 0)

    text = told(configured(tmp_path), which="running")

    assert "usually: 3s, and 9 of 10 take at most 5s; this one has taken 31 times as long" in text


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_no_operation_is_cut(width: int) -> None:
    """Whatever else has to go, the name of every operation that starts tasks is whole, and no line is too wide."""
    operations = Operations.load()
    names = sorted(
        {name for app in ("kimchi", "ginger", "gingerbase", "wok") for name in operations.tasks(app)}
    )
    shown = [but(state, operation=name) for name in names for state in (RUNNING, CLONE, DONE)]
    text = lines_of(*shown, width=width)

    assert len(names) > 20
    assert all(len(line) <= width for line in text)
    assert {name for name in names if not any(f" {name}  " in line for line in text)} == set()


def test_a_terminal_of_40_columns() -> None:
    """What is left in a narrow window is the state, the time and what it is about."""
    expected = [
        "STATE    DURATION  OPERATION  RESOURCE",
        "running  4m 07s    vms.clone  A clone o…",
        "failed   4m 07s    vms.clone  …000/clone",
        "    why: KCHVM0035E: web01 could not be",
        "    cloned: no space is left in the pool",
        "    default",
        "    meanwhile: 12 others: POST kimchi",
        "    vms.start by ada at 09:00:03, PUT",
        "    kimchi at 09:00:04, ...",
        "done     -         other      /x",
    ]

    assert expected == lines_of(RUNNING, CLONE, DONE, width=40)


def test_the_state_is_coloured() -> None:
    """A colour stands around the state alone, and changes no width."""
    plain = lines_of(RUNNING, CLONE, DONE, width=80)
    coloured = lines_of(RUNNING, CLONE, DONE, width=80, is_coloured=True)

    assert coloured[2][:37] == "\x1b[31mfailed\x1b[0m   2026-03-02 09:00:02"
    assert plain == [re.sub(r"\x1b\[\d*m", "", line) for line in coloured]


def test_a_long_reason_shows_its_beginning() -> None:
    """The output of a package manager does not push the other tasks off the screen."""
    lines = lines_of(but(CLONE, why="no room " * 500, concurrent=0), width=80)

    assert len(lines) == 2 + view.DETAIL_LINES_MAX
    assert lines[-1].endswith(" room no roo…")


def test_a_request_of_another_day_has_its_date() -> None:
    """A task may run for days; the time alone would then mislead."""
    later = request_row(8, time=(NINE + 86_400) * NANOS, operation="vms.start")
    lines = lines_of(but(CLONE._replace(meanwhile=[later]), concurrent=1))

    assert lines[-1] == "    meanwhile: 1 other: POST kimchi vms.start by ada at 2026-03-03 09:00:00"


def test_a_loss_says_its_reason_once() -> None:
    """The word that the state says already is not said again."""
    lines = lines_of(but(CLONE, state="lost", error_code="", why="lost: wokd went", concurrent=0))

    assert lines[-1] == "    why: wokd went"


def test_wide_letters_keep_the_columns() -> None:
    """Letters that take two cells, and marks that take none, are measured as a terminal draws them."""
    uris = ("/日本語", "/e\u0301", "/plain")
    lines = lines_of(*(but(DONE, target_uri=uri) for uri in uris))

    expected = [
        "/日本語   -     -        12         00000000",
        "/e\u0301        -     -        12         00000000",
        "/plain    -     -        12         00000000",
    ]
    assert expected == [line[line.index("/") :] for line in lines[1:]]


@pytest.mark.parametrize("width", [None, 40, 80, 200])
def test_hostile_names_are_harmless(width: int | None) -> None:
    """Nothing of a log begins a line, moves the cursor or turns the text, whichever field it stands in."""
    shown = but(
        CLONE._replace(
            request=request_row(1, user=NASTY, method=NASTY, operation=NASTY, message=NASTY),
            meanwhile=[request_row(2, user=NASTY, app=NASTY, method=NASTY, operation=NASTY)],
        ),
        app=NASTY,
        operation=NASTY,
        target_uri="/" + NASTY,
        why=NASTY,
        error_code=NASTY,
    )

    lines = lines_of(shown, but(shown, state="running", target_uri=""), width=width)

    assert [line for line in lines if not line.isprintable()] == []


@given(st.text(max_size=60), st.text(max_size=60), st.integers(1, 220))
def test_no_line_is_wider_than_the_terminal(uri: str, why: str, width: int) -> None:
    """Whatever a log holds, and however narrow the window: a row stays a row."""
    shown = but(CLONE._replace(request=request_row(1, user=why, message=uri)), target_uri=uri, why=why)

    for line in lines_of(shown, RUNNING, width=width):
        assert view.width_of(line) <= width
        assert line.isprintable()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "<1s"),
        (12, "12s"),
        (59.9, "59s"),
        (247, "4m 07s"),
        (3720, "1h 02m"),
        (86_399, "23h 59m"),
        (273_600, "3d 04h"),
    ],
)
def test_durations(seconds: float, expected: str) -> None:
    """A duration has the two units that matter."""
    assert expected == duration(int(seconds * NANOS))


def test_an_object_for_programs() -> None:
    """JSON has everything there is, ids in hex and times with their offset."""
    expected = {
        "state": "failed",
        "app": "kimchi",
        "operation": "vms.clone",
        "resource": None,
        "target_uri": "/plugins/kimchi/vms/web01-clone-1772442006800000/clone",
        "task_id": "4",
        "started": "2026-03-02T09:00:02+00:00",
        "ended": "2026-03-02T09:04:09+00:00",
        "duration_seconds": 247.0,
        "trace_id": "00" * 16,
        "span_id": "00" * 7 + "04",
        "error_code": "KCHVM0035E",
        "exception": None,
        "why": "web01 could not be cloned: no space is left in the pool default",
        "correlation": "likely",
        "request": {
            "time": "2026-03-02T09:00:02+00:00",
            "app": "kimchi",
            "method": "POST",
            "operation": "vms.clone",
            "status": 202,
            "user": "ada",
            "address": "192.0.2.7",
            "message": "A clone of web01",
            "resource": None,
            "record_id": None,
            "trace_id": "00" * 16,
            "span_id": "00" * 7 + "07",
        },
        "meanwhile": {
            "count": 12,
            "requests": [view.request_object(request, UTC) for request in CLONE.meanwhile],
        },
    }

    assert expected == as_object(CLONE, UTC)


def test_what_is_not_known_is_null() -> None:
    """A task that runs, whose window is still open, has no end, no ids and no request."""
    seen = as_object(but(RUNNING._replace(request=None, meanwhile=()), context=b""), UTC)

    known = {"state": "running", "app": "kimchi", "operation": "vms.clone", "resource": None,
             "target_uri": "", "task_id": "4",
             "started": "2026-03-02T09:00:02+00:00", "duration_seconds": 247.0, "correlation": "exact",
             "meanwhile": {"count": 0, "requests": []}}  # fmt: skip
    unknown = ("ended", "trace_id", "span_id", "error_code", "exception", "why", "request")
    assert known | dict.fromkeys(unknown) == seen


# The daemon's state


def test_the_state_of_a_running_daemon(store: Store, tmp_path: Path) -> None:
    """While the daemon has its state open, it is read: what runs, then what went wrong, then what is done."""
    expected = """\
1 running, 2 failed or lost, 1 done.
As of 2026-03-02 09:01:40 (UTC):

STATE    STARTED              DURATION  APP     OPERATION    RESOURCE                         USER  REQUEST           MEANWHILE  ID
running  2026-03-02 09:00:06  1m 34s    kimchi  vms.migrate  /plugins/kimchi/vms/web-6/clone  ada   POST vms.op6 202  2          00000000
    meanwhile: 2 others: POST kimchi vms.op7 by ada at 09:00:07, POST kimchi vms.op8 by ada at 09:00:08
lost     2026-03-02 09:00:03  7s        kimchi  vms.clone    /plugins/kimchi/vms/web-3/clone  -     -                 0          00000000
    why: wokd was restarted before the task ended
failed   2026-03-02 09:00:02  3s        kimchi  vms.clone    /plugins/kimchi/vms/web-2/clone  ada   POST vms.op2 202  3          00000000
    why: KCHVM0035E: no room
    meanwhile: 3 others: POST kimchi vms.op3 by ada at 09:00:03, POST kimchi vms.op4 by ada at 09:00:04, POST kimchi vms.op5 by ada at 09:00:05
done     2026-03-02 09:00:01  8s        kimchi  vms.clone    /plugins/kimchi/vms/web-1/clone  ada   POST vms.op1 202  7          00000000
"""

    assert expected == told(configured(tmp_path))


def test_only_what_runs(store: Store, tmp_path: Path) -> None:
    """With --running what has ended is left out, without a word about a limit."""
    assert states(told(configured(tmp_path), which="running")) == ["running"]


def test_only_what_failed(store: Store, tmp_path: Path) -> None:
    """With --failed losses are shown, too, the last to end first."""
    assert states(told(configured(tmp_path), which="failed")) == ["lost", "failed"]


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("", ["running", "lost", "failed", "done"]),
        ("--user ada", ["running", "failed", "done"]),
        ("--user ada --user grace", ["running", "failed", "done"]),
        ("--user grace", []),
        ("--operation vms.migrate", ["running"]),
        ("--app ginger", []),
        ("--outcome failure", ["failed"]),
        ("--outcome failure --outcome success", ["failed", "done"]),
        ("--failed --outcome success", []),
        ("--failed --outcome lost", ["lost"]),
        ("--running --outcome lost", []),
        ("--text WEB-3", ["lost"]),
        ("--text no\\ room", ["failed"]),
        ("--since 2026-03-02T09:00:06", ["running", "lost", "done"]),
        ("--since 92s", ["running", "lost", "done"]),
        ("--until 2026-03-02T09:00:03+00:00", ["failed", "done"]),
        ("--until 2026-03-02T06:00:03-03:00 --since 2026-03-02T09:00:09", ["done"]),
    ],
)
def test_filters(store: Store, tmp_path: Path, flags: str, found: list[str]) -> None:
    """The filters mean what they mean in the API, and work with --running and --failed."""
    parser = argparse.ArgumentParser()
    tasks_arguments(parser)
    given = parser.parse_args(shlex.split(flags))
    which: Which = "running" if given.running else "failed" if given.failed else "all"

    assert states(told(configured(tmp_path), which=which, filters=filters_of(given))) == found


def test_too_many_values_are_refused(tmp_path: Path) -> None:
    """More values of one filter than a search takes are an error that says how many it takes; as many are fine."""
    Store(tmp_path / "state").close()
    for name in ("--user", "--operation", "--app"):
        words = ["tasks", "--state", tmp_path / "state", *([name, "x"] * 50)]
        fine, refused = run(*words), run(*words, name, "x")

        assert (fine.returncode, fine.stderr) == (0, "")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr == f"error: {name} is given 51 times: give it at most 50 times\n"


def test_a_time_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """What is no time is refused with forms that are."""
    parser = argparse.ArgumentParser()
    tasks_arguments(parser)
    for text in ("yesterday", "beginning", "end", "2026-13-01", "\x1b[31m", "9" * 5000):
        with pytest.raises(SystemExit, match="2"):
            parser.parse_args(["--since", text])
        error = capsys.readouterr().err
        assert "is no time: write one such as 2026-11-23T08:00" in error
        assert "\x1b" not in error


def test_many_tasks_are_found_by_pages(store: Store, tmp_path: Path) -> None:
    """What passes the filters is found behind thousands of tasks that do not."""
    for first in range(100, 30_000, 5_000):
        store.commit(commit(tasks=[task_row(first + n, operation="x.y") for n in range(5_000)]), 0)

    found = states(told(configured(tmp_path), filters=TaskFilters(text="web-3/", operations=("vms.clone",))))

    assert found == ["lost"]


def test_the_limit_counts_what_has_ended(store: Store, tmp_path: Path) -> None:
    """The last to end are shown, everything that runs beside them, and it is said that there are others."""
    text = told(configured(tmp_path), limit=1)

    assert states(text) == ["running", "done"]
    assert "Older tasks are not shown: use --limit to show more.\n" in text


def test_the_limit_holds_for_failures_and_losses_together(store: Store, tmp_path: Path) -> None:
    """Of two kinds of bad ends together no more are shown than asked for, and the others are told."""
    text = told(configured(tmp_path), which="failed", limit=1)

    assert states(text) == ["lost"]
    assert "Older tasks are not shown: use --limit to show more.\n" in text


@pytest.mark.parametrize(("limit", "expected"), [(-5, 0), (0, 0), (10**30, 2)])
def test_a_limit_may_be_any_number(store: Store, tmp_path: Path, limit: int, expected: int) -> None:
    """A number that no database takes is a number."""
    objects = json.loads(told(configured(tmp_path), which="failed", limit=limit, as_json=True))

    assert expected == len(objects)


@pytest.mark.parametrize("which", ["all", "running", "failed"])
def test_nothing_is_said_in_a_sentence(tmp_path: Path, which: Which) -> None:
    """An empty answer is a sentence for people and an empty list for programs."""
    store = Store(tmp_path / "state")
    store.mark_ready()
    store.close()
    sentences = {
        "all": "No tasks found.\n",
        "running": "No running tasks.\n",
        "failed": "No failed or lost tasks.\n",
    }

    assert sentences[which] == told(configured(tmp_path), which=which)
    assert json.loads(told(configured(tmp_path), which=which, as_json=True)) == []


def test_a_backlog_is_told(tmp_path: Path) -> None:
    """A daemon that has not caught up says so: what it shows as running may have ended long ago."""
    Store(tmp_path / "state").close()

    assert "The daemon is still reading the log: newer tasks are missing.\n" in told(configured(tmp_path))


def test_old_news_are_told(store: Store, tmp_path: Path) -> None:
    """Where the daemon has been silent for an hour, what it shows as running is marked as that old."""
    note = "The daemon has read nothing new for 1h 00m: tasks that were running then are shown as running.\n"

    assert note in told(configured(tmp_path), now=NINE + 90 + 3600)
    assert note not in told(configured(tmp_path), now=NINE + 90 + 299)


def test_what_ends_between_two_looks_has_ended(store: Store, tmp_path: Path) -> None:
    """A task that is seen running, and a moment later ended, is shown once."""
    ended = task_row(6, context=context(6), end=(NINE + 20) * NANOS, outcome="failure", message="x")
    store.commit(commit(tasks=[ended]), NINE + 95)

    objects = json.loads(told(configured(tmp_path), as_json=True))

    assert [one["state"] for one in objects if one["span_id"] == context(6)[16:].hex()] == ["failed"]


@pytest.mark.parametrize(("grade", "mark"), [("exact", ""), ("likely", " ?"), ("ambiguous", " ??")])
def test_doubts_are_marked_and_explained(store: Store, tmp_path: Path, grade: Grade, mark: str) -> None:
    """A request that may be another task's carries a mark, and a sentence says what it means."""
    store.commit(commit(tasks=[task_row(9, end=NINE * NANOS, request=3, correlation=grade)]), NINE)
    text = told(configured(tmp_path), limit=1)

    assert f"POST vms.op3 202{mark}  " in text
    assert bool(mark) is (f"\n{mark.strip()} marks" in text)


def test_a_start_record_has_looked_for_its_request(store: Store, tmp_path: Path) -> None:
    """A running task that a start record opened shows how certain its request is."""
    task = opened(8, grade="ambiguous", by_start=True, start=NINE * NANOS, request=8, since=7)
    store.commit(commit(opened=[task]), NINE)

    objects = json.loads(told(configured(tmp_path), which="running", as_json=True))

    assert [(one["correlation"], one["meanwhile"]["count"]) for one in objects] == [
        ("exact", 2),
        ("ambiguous", 0),
    ]


def test_a_history_may_have_forgotten_the_requests(tmp_path: Path) -> None:
    """Where the requests are not kept any more the task is still told, with the number of the others."""
    with_store = Store(tmp_path / "state")
    with_store.commit(commit(tasks=[task_row(1, outcome="failure", message="x", concurrent=3)]), NINE)
    with_store.close()

    text = told(configured(tmp_path))

    assert text.endswith("    meanwhile: 3 others\n")


def test_a_missing_state_is_a_sentence_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no daemon has run, the command says what to name, and exits with 2."""
    code = main(["tasks", "--state", str(tmp_path), "--config", os.devnull], {})

    expected = f"error: {tmp_path}/state.db does not exist; name the directory of a daemon's state\n"
    assert (2, expected) == (code, capsys.readouterr().err)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_state_that_may_not_be_read(store: Store, tmp_path: Path) -> None:
    """Another user than the daemon's is told who may ask."""
    (tmp_path / "state").chmod(0)
    try:
        with pytest.raises(StoreError, match="run the command as root"):
            told(configured(tmp_path))
    finally:
        (tmp_path / "state").chmod(0o700)


def test_a_state_whose_directory_is_closed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same without another user: the system's refusal becomes a sentence with its remedy."""

    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)

    with pytest.raises(StoreError, match="run the command as root"):
        told(configured(tmp_path))


# Terminals


def test_a_terminal_has_its_width_and_colours(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal the table has its width, and states are coloured."""
    monkeypatch.setenv("COLUMNS", "40")
    text = told(configured(tmp_path), out=Terminal())

    rows = text.partition("\n\n")[2].splitlines()
    assert "\x1b[36mrunning\x1b[0m" in text
    assert max(len(re.sub(r"\x1b\[\d*m", "", row)) for row in rows) <= 40


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_forbidden(store: Store, tmp_path: Path, environ: dict[str, str]) -> None:
    """NO_COLOR and a terminal that knows none leave the text plain (no-color.org)."""
    assert "\x1b" in told(configured(tmp_path), out=Terminal(), environ={"NO_COLOR": ""})
    assert "\x1b" not in told(configured(tmp_path), out=Terminal(), environ=environ)


def test_progress_is_for_long_work_on_a_terminal() -> None:
    """Nothing is drawn in the first second, then not at each call, and in the end the line is empty again."""
    times = iter([0.0, 0.9, 1.0, 1.0, 1.1, 1.3, 1.3])
    screen = Terminal()
    progress = ProgressLine(screen, 200, clock=lambda: next(times))
    for done in (10, 50, 60, 100):
        progress.show(done, done * 10)
    progress.clear()

    assert screen.getvalue() == "\r 25%  500 lines\r 50%  1,000 lines\r                 \r"


def test_progress_is_for_nobody_without_a_terminal() -> None:
    """A log file of stderr is not filled with it."""
    screen = StringIO()
    progress = ProgressLine(screen, 200, clock=lambda: 1e9)
    progress.show(10, 10)
    progress.clear()

    assert screen.getvalue() == ""


# Files


def states(text: str) -> list[str]:
    """The states of the rows, in their order."""
    return re.findall(r"^(running|failed|lost|unknown|done) ", text, re.MULTILINE)


def written(path: Path, dialect: Dialect) -> Path:
    """The demo's story as a log, with wok-error.log beside it."""
    lines = list(story(dialect, start=MORNING))
    for log, name in (("requests", "log"), ("errors", "errors")):
        path.with_suffix(f".{name}").write_bytes(
            b"".join(line.data + b"\n" for line in lines if line.log == log)
        )
    return path.with_suffix(".log")


def test_a_log_without_a_daemon(tmp_path: Path) -> None:
    """A log of the RFC's dialect answers all three questions by itself."""
    log = written(tmp_path / "rfc", "rfc")
    text = told(configured(tmp_path), log, which="failed")

    expected = """\
5 failed or lost.
As of 2026-03-02 09:00:39 (UTC):

STATE   STARTED              DURATION  APP         OPERATION      RESOURCE                                              USER   REQUEST                 MEANWHILE  ID
failed  2026-03-02 09:00:33  1s        ginger      lvs.create     volume group data  josé   POST lvs.create 202     0          00a5215c
    why: GINLV00003E: the logical volume could not be created: data has 12 GiB left
lost    2026-03-02 09:00:24  6s        kimchi      vms.clone      guest web01        ada    POST vms.clone 202      1          729d6f5e
"""
    head = [line.split() for line in expected.splitlines()]
    assert head == [line.split() for line in text.splitlines()][: len(head)]
    assert not (tmp_path / "state").exists()


def test_what_runs_at_the_end_of_a_log_has_run_until_then(tmp_path: Path) -> None:
    """The clock of a finished log is its last record's: years later a task has still run for seconds."""
    log = written(tmp_path / "json", "json")
    running = json.loads(told(configured(tmp_path), log, which="running", as_json=True, now=NINE + 10**9))

    expected = [("vms.clone", 15.0, 6, "ada"), ("host.swupdate", 19.0, 8, "grace")]
    assert expected == [
        (one["operation"], one["duration_seconds"], one["meanwhile"]["count"], one["request"]["user"])
        for one in running
    ]


def test_a_task_of_which_only_the_end_is_known_has_no_duration(tmp_path: Path) -> None:
    """Where neither a request nor a start is in the log, nobody knows how long it took: it is not `<1s`."""
    log = written(tmp_path / "json", "json")
    found = json.loads(told(configured(tmp_path), log, as_json=True))

    orphans = [one for one in found if one["request"] is None]
    assert [one["duration_seconds"] for one in orphans] == [None] * 5
    assert 0.0 in [one["duration_seconds"] for one in found]


def test_the_marks_of_restarts_tell_what_was_lost(tmp_path: Path) -> None:
    """With wok-error.log the tasks that a restart has ended are lost, and do not run for ever."""
    log = written(tmp_path / "json", "json")
    errors = str(log.with_suffix(".errors"))
    found = json.loads(told(configured(tmp_path, wok_error_log=errors), log, as_json=True))

    assert [one["state"] for one in found if one["state"] in ("lost", "running")] == ["lost", "lost"]


def test_what_is_listed_is_what_is_counted(tmp_path: Path) -> None:
    """For every task the requests that are listed are all that are counted, and never its own."""
    log = tmp_path / "busy.log"
    lines = busy("rfc", start=MORNING, requests=400, per_second=5)
    log.write_bytes(b"".join(line.data + b"\n" for line in lines))
    found: list[dict[str, Any]] = json.loads(told(configured(tmp_path), log, limit=1000, as_json=True))

    assert len(found) > 100
    for one in found:
        others = one["meanwhile"]["requests"]
        assert one["meanwhile"]["count"] == len(others)
        assert one["request"] not in others
        assert all(one["started"] <= other["time"] <= one["ended"] for other in others)


def test_an_empty_log(tmp_path: Path) -> None:
    """A log without a record has no tasks, and no time."""
    log = tmp_path / "empty.log"
    log.write_bytes(b"")

    assert told(configured(tmp_path), log) == "No tasks found.\n"


def test_lines_that_were_not_understood_are_told(tmp_path: Path) -> None:
    """Whoever trusts the table learns that it may lack something, and where to look."""
    log = written(tmp_path / "rfc", "rfc")
    log.write_bytes(b"not a record\n" + log.read_bytes())

    assert "1 line was not parsed: `check` lists them.\n" in told(configured(tmp_path), log)


def test_programs_get_no_raw_text(tmp_path: Path) -> None:
    """JSON is printed in ASCII, so that a terminal obeys nothing of it either."""
    log = written(tmp_path / "rfc", "rfc")
    log.write_bytes(log.read_bytes().replace(b"db01", "db\u202e\u2028é".encode()))

    assert told(configured(tmp_path), log, as_json=True).isascii()


# Watched


class Script(FullScreen):
    """A window of a size, that keeps what is drawn, and whose keys and resizes come as told."""

    def __init__(self, *waits: Callable[[], str], columns: int = 100, rows: int = 30) -> None:
        self.columns, self.rows = columns, rows
        self.waits = iter(waits)
        self.pictures: list[list[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def size(self) -> tuple[int, int]:
        return self.columns, self.rows

    def draw(self, lines: Sequence[str]) -> None:
        self.pictures.append(list(lines))

    def wait(self, seconds: float) -> str:
        assert seconds == 1
        return next(self.waits)()


def quits() -> str:
    return "q"


def nothing() -> str:
    return ""


def watched(
    directory: Path,
    window: Script,
    which: Which = "all",
    environ: dict[str, str] | None = None,
    limit: int = 50,
) -> list[list[str]]:
    """The pictures that are drawn, a second after one another."""
    seconds = count(NINE + 100)
    code = watch(
        configured(directory),
        window,
        which=which,
        limit=limit,
        environ={"NO_COLOR": "1"} if environ is None else environ,
        wall=lambda: next(seconds) * NANOS,
    )
    assert code == 0
    return window.pictures


WATCHED_AT_100 = """\
1 running, 2 failed or lost, 1 done.
As of 2026-03-02 09:01:40 (UTC); press q to quit.

STATE    STARTED              DURATION  OPERATION    RESOURCE                         USER  ID
lost     2026-03-02 09:00:03  7s        vms.clone    /plugins/kimchi/vms/web-3/clone  -     00000000
    why: wokd was restarted before the task ended
failed   2026-03-02 09:00:02  3s        vms.clone    /plugins/kimchi/vms/web-2/clone  ada   00000000
    why: KCHVM0035E: no room
    meanwhile: 3 others: POST kimchi vms.op3 by ada at 09:00:03, POST kimchi vms.op4 by ada at
    09:00:04, POST kimchi vms.op5 by ada at 09:00:05
running  2026-03-02 09:00:06  1m 34s    vms.migrate  /plugins/kimchi/vms/web-6/clone  ada   00000000
    meanwhile: 2 others: POST kimchi vms.op7 by ada at 09:00:07, POST kimchi vms.op8 by ada at
    09:00:08
done     2026-03-02 09:00:01  8s        vms.clone    /plugins/kimchi/vms/web-1/clone  ada   00000000
"""

WATCHED_AT_60 = """\
1 running, 2 failed or lost, 1 done.
As of 2026-03-02 09:01:40 (UTC); press q to quit.

STATE    DURATION  OPERATION    RESOURCE                USER
lost     7s        vms.clone    …imchi/vms/web-3/clone  -
    why: wokd was restarted before the task ended
failed   3s        vms.clone    …imchi/vms/web-2/clone  ada
    why: KCHVM0035E: no room
    meanwhile: 3 others: POST kimchi vms.op3 by ada at
    09:00:03, POST kimchi vms.op4 by ada at 09:00:04, POST
    kimchi vms.op5 by ada at 09:00:05
running  1m 34s    vms.migrate  …imchi/vms/web-6/clone  ada
    meanwhile: 2 others: POST kimchi vms.op7 by ada at
    09:00:07, POST kimchi vms.op8 by ada at 09:00:08
done     8s        vms.clone    …imchi/vms/web-1/clone  ada
"""


@pytest.mark.parametrize(("columns", "expected"), [(100, WATCHED_AT_100), (60, WATCHED_AT_60)])
def test_a_picture(store: Store, tmp_path: Path, columns: int, expected: str) -> None:
    """What failed or was lost stands first, then what runs, then what is done, in the width that there is."""
    (picture,) = watched(tmp_path, Script(quits, columns=columns))

    assert expected.splitlines() == picture


def test_durations_tick(store: Store, tmp_path: Path) -> None:
    """Each picture has the duration of its moment; an unknown key changes nothing, a Q ends it."""
    pictures = watched(tmp_path, Script(nothing, lambda: "x", lambda: "Q"))

    rows = [line.split()[3:5] for picture in pictures for line in picture if line.startswith("running")]
    assert rows == [["1m", "34s"], ["1m", "35s"], ["1m", "36s"]]


def test_a_picture_shows_what_the_daemon_has_just_written(store: Store, tmp_path: Path) -> None:
    """A task that ends while it is watched is shown as ended in the next picture."""

    def ends() -> str:
        ended = task_row(6, context=context(6), start=(NINE + 6) * NANOS, end=(NINE + 101) * NANOS)
        store.commit(commit(closed=[open_task(6).key], tasks=[ended]), NINE + 101)
        return ""

    before, after = watched(tmp_path, Script(ends, quits))

    assert states("\n".join(before)) == ["lost", "failed", "running", "done"]
    assert states("\n".join(after)) == ["lost", "failed", "done", "done"]


def test_a_resize_is_followed(store: Store, tmp_path: Path) -> None:
    """The next picture has the size of the window as it is then."""

    def shrinks() -> str:
        window.columns, window.rows = 40, 6
        return ""

    window = Script(shrinks, quits)
    before, after = watched(tmp_path, window)

    assert max(map(len, before)) > 40 >= max(map(len, after))
    assert len(after) == 6


@pytest.mark.parametrize("rows", range(1, 24))
def test_what_has_no_room_is_left_out(store: Store, tmp_path: Path, rows: int) -> None:
    """However low the window: no picture is higher, and bad ends leave room for what runs."""
    (picture,) = watched(tmp_path, Script(quits, rows=rows))

    assert len(picture) <= rows
    if rows >= 7:
        assert states("\n".join(picture))[0] == "lost"
        assert "running" in states("\n".join(picture))


def test_bad_ends_take_no_more_than_half(store: Store, tmp_path: Path) -> None:
    """On the worst of days the newest failures are there, and still what runs; what others leave is theirs."""
    bad = [task_row(n, end=(NINE + n) * NANOS, outcome="failure", message="x") for n in range(20, 60)]
    store.commit(commit(tasks=bad), NINE + 95)
    (few,) = watched(tmp_path, Script(quits, rows=19))
    (alone,) = watched(tmp_path, Script(quits, rows=19), which="failed")
    store.commit(commit(opened=[opened(n, start=NINE * NANOS, since=8) for n in range(100, 120)]), NINE + 95)
    (many,) = watched(tmp_path, Script(quits, rows=19))

    assert states("\n".join(few)) == ["failed"] * 6 + ["running", "done"]
    assert states("\n".join(alone)) == ["failed"] * 8
    assert states("\n".join(many)) == ["failed"] * 4 + ["running"] * 6


def test_nothing_to_watch(tmp_path: Path) -> None:
    """An empty state is a sentence, and goes on being looked at."""
    empty = Store(tmp_path / "state")
    empty.mark_ready()
    empty.close()

    pictures = watched(tmp_path, Script(nothing, quits))

    assert [picture[0] for picture in pictures] == ["No tasks found."] * 2


def test_a_picture_is_coloured(store: Store, tmp_path: Path) -> None:
    """States are coloured unless NO_COLOR or a dumb terminal forbids it."""
    (picture,) = watched(tmp_path, Script(quits), environ={})
    (plain,) = watched(tmp_path, Script(quits), environ={"TERM": "dumb"})

    assert "\x1b[36mrunning\x1b[0m" in "\n".join(picture)
    assert plain == [re.sub(r"\x1b\[\d*m", "", line) for line in picture]


class Pty:
    """The program on a terminal of 100 columns and 30 rows, and what it has printed there."""

    def __init__(self, *arguments: object) -> None:
        self.ours, self.theirs = pty.openpty()
        self.resize(100, 30)
        self.modes = termios.tcgetattr(self.theirs)
        env = environ(TERM="xterm")
        self.process = subprocess.Popen(
            command(*arguments),
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env={name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one system call, to have Ctrl-C and Ctrl-Z
        )
        self.printed = b""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, text: str, times: int = 1) -> None:
        """Read until the text has been printed so many times; fail after a minute."""
        while self.printed.count(text.encode()) < times:
            ready, _, _ = select.select([self.ours], [], [], 60)
            assert ready, self.printed
            self.printed += os.read(self.ours, 65536)

    def ended(self) -> int:
        """Read until the end, as a terminal does, and return the exit code; fail after a minute."""
        since = time.monotonic()
        while (code := self.process.poll()) is None:
            assert time.monotonic() - since < 60, self.printed
            if select.select([self.ours], [], [], 0.05)[0]:
                self.printed += os.read(self.ours, 65536)
        while select.select([self.ours], [], [], 0)[0]:
            self.printed += os.read(self.ours, 65536)
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture(name="terminal")
def _terminal(store: Store, tmp_path: Path) -> Iterator[Pty]:
    """The command, watching the state of a daemon, when its first picture is there."""
    terminal = Pty("tasks", "--watch", "--state", tmp_path / "state")
    try:
        terminal.read_until("press q to quit.")
        yield terminal
    finally:
        terminal.close()


def is_left_as_it_was(terminal: Pty) -> bool:
    modes = termios.tcgetattr(terminal.theirs)
    return terminal.printed.endswith(LEAVE.encode()) and modes == terminal.modes


def test_a_real_terminal(terminal: Pty) -> None:
    """It is drawn on beside what stood there, unechoed and over and over, until q, and is left as it was."""
    assert terminal.printed.startswith(ENTER.encode())
    assert termios.tcgetattr(terminal.theirs) != terminal.modes
    terminal.read_until("press q to quit.", times=3)
    os.write(terminal.ours, b"q")

    assert terminal.ended() == 0
    assert is_left_as_it_was(terminal)


def test_a_real_resize(terminal: Pty) -> None:
    """A smaller window is filled again at once, and no more than filled."""
    terminal.resize(40, 6)
    terminal.printed = b""
    whole: list[str] = []
    # On its way may still be the rest of an old picture, and one more of the old size.
    while len(whole) < 3 and not any(picture.count("\r\n") == 5 for picture in whole):
        terminal.read_until(CLEAR_BELOW, terminal.printed.count(CLEAR_BELOW.encode()) + 1)
        begun = terminal.printed.decode("utf-8", "replace").split(HOME)[1:]
        whole = [picture.partition(CLEAR_BELOW)[0] for picture in begun if CLEAR_BELOW in picture]

    assert whole[-1].count("\r\n") == 5
    os.write(terminal.ours, b"q")
    assert terminal.ended() == 0


def test_a_resize_is_not_waited_for() -> None:
    """A change of size rings before the second is over; inside, a keyboard that is no terminal has no keys."""
    out = StringIO()
    with Path(os.devnull).open(encoding="utf-8") as keyboard, FullScreen(out, keyboard) as window:
        signal.raise_signal(signal.SIGWINCH)
        is_rung = select.select([window._bell], [], [], 0)[0] != []

        assert is_rung
        assert window.wait(60) == ""
        assert window.wait(0) == ""
    assert out.getvalue() == ENTER + LEAVE


def test_a_keyboard_that_is_closed() -> None:
    """A program whose standard input is closed draws all the same."""
    out = StringIO()
    with FullScreen(out, None) as window:
        window.draw(["a", "b"])

    assert out.getvalue() == f"{ENTER}{HOME}a{CLEAR_LINE}\r\nb{CLEAR_LINE}{CLEAR_BELOW}{LEAVE}"


@pytest.mark.parametrize("how", ["^C", "SIGTERM", "SIGHUP"])
def test_an_interrupted_watch(terminal: Pty, how: str) -> None:
    """Ctrl-C, and whoever asks the program to end, gets 130, and the terminal as it was."""
    if how == "^C":
        os.write(terminal.ours, b"\x03")
    else:
        terminal.process.send_signal(signal.Signals[how])

    assert terminal.ended() == 130
    assert is_left_as_it_was(terminal)


def test_a_stopped_watch(terminal: Pty) -> None:
    """While it is stopped with Ctrl-Z the terminal is the shell's; afterwards it is drawn anew."""
    terminal.printed = b""
    os.write(terminal.ours, b"\x1a")
    terminal.read_until(LEAVE)
    wait_until(lambda: os.WIFSTOPPED(os.waitpid(terminal.process.pid, os.WUNTRACED | os.WNOHANG)[1]))

    assert termios.tcgetattr(terminal.theirs) == terminal.modes
    terminal.process.send_signal(signal.SIGCONT)
    terminal.read_until(ENTER)
    terminal.read_until("press q to quit.")
    os.write(terminal.ours, b"q")
    assert terminal.ended() == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            [],
            "error: --watch needs a terminal: without --watch the tasks are printed once, and as JSON with --json\n",
        ),
        (["--json"], "error: --watch shows the daemon's state on a terminal: omit FILE and --json\n"),
        (["x.log"], "error: --watch shows the daemon's state on a terminal: omit FILE and --json\n"),
    ],
)
def test_what_cannot_be_watched(tmp_path: Path, arguments: list[str], expected: str) -> None:
    """Without a terminal, or of a finished log, there is nothing to watch: a sentence says what to do, with code 2."""
    done = run("tasks", "--watch", *arguments, "--state", tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


def test_a_state_that_goes_while_it_is_watched(store: Store, tmp_path: Path) -> None:
    """Where the state has gone the watch ends with its error, instead of showing what is no more."""

    def goes() -> str:
        (tmp_path / "state" / "state.db").unlink()
        return ""

    with pytest.raises(StoreError, match="does not exist"):
        watched(tmp_path, Script(goes, quits))
