"""The RFC's questions at a terminal: what runs and for how long, what failed and why, what was asked meanwhile.

Printed once, they are a table as long as it gets, of a state or of logs (`known.py`). Watched, they are a picture
that is as high as the terminal and drawn anew every second; what it shows first is then what would be missed most.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, TextIO

from exporter.command.query_source import QuerySource, from_files, from_state
from exporter.config.options import Config
from exporter.parse.timezone import load_zone
from exporter.records import NANOS, Outcome, RequestRow, TaskRow
from exporter.store.task_view import BAD, State, TaskView, of_ended, of_running
from exporter.terminal import task_table as view
from exporter.terminal.fullscreen import FullScreen
from exporter.terminal.task_table import Listed

Which = Literal["all", "running", "failed"]

TASKS_MAX = 1_000_000
"""More than a history ever has, and a number that SQLite takes."""
MEANWHILE_SHOWN = 3
MEANWHILE_MAX = 1000
"""Requests beside one task, for a person and for a program."""
WATCH_SECONDS = 1.0
"""The log, and the durations that are shown, have whole seconds."""
WATCHED_MAX = 1000
"""Ended tasks that are looked at every second: more than any terminal has rows."""
STALE_NANOS = 300 * NANOS
"""A log may be quiet for minutes; beyond, it is said how old the news is that something runs."""

NONE_FOUND: dict[Which, str] = {
    "all": "No task runs, and none has ended.",
    "running": "No task runs.",
    "failed": "No task has failed or was lost.",
}


def tasks(
    config: Config,
    files: Sequence[Path],
    *,
    which: Which,
    limit: int,
    as_json: bool,
    out: TextIO,
    screen: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
    wall: Callable[[], int] = time.time_ns,
) -> int:
    """Print the tasks that run, then those that failed or were lost, then the others that ended; return 0.

    In each group the newest stands first; of ended tasks the last `limit` are shown. They are those of the daemon
    whose state is in `config.state`, or of `files`. On a terminal the table has its width, and colours unless
    NO_COLOR or a dumb TERM forbids them; elsewhere nothing is cut. With `as_json` it is one JSON list with an
    object on each line (`view.as_object`), and up to 1000 of the requests made meanwhile in each. Progress goes
    to `screen`, stderr by default. `wall` is the clock, in nanoseconds.

    Raises StoreError where there is no state or it may not be read, ArchiveError for a file that cannot be read.
    """
    environ = os.environ if environ is None else environ
    zone = load_zone(config.timezone) if config.timezone else None
    with ExitStack() as resources:
        if files:
            known = from_files(config, files, resources, screen or sys.stderr)
        else:
            known = from_state(config, resources, wall())
        found, is_all = _find(known, which, min(max(limit, 0), TASKS_MAX))
        if as_json:
            _write_json(out, (view.as_object(_listed(known, one, MEANWHILE_MAX), zone) for one in found))
            return 0
        shown = [_listed(known, one, MEANWHILE_SHOWN) for one in found]
        notes = _notes(known, shown, is_all=is_all, is_finished=bool(files))
        out.writelines(f"{line}\n" for line in (_summary([task.state for task in found], which), *notes))
        if shown:
            is_terminal = out.isatty()
            lines = view.table(
                shown,
                zone=zone,
                width=shutil.get_terminal_size().columns if is_terminal else None,
                is_coloured=is_terminal and view.may_be_coloured(environ),
            )
            out.write(f"{_as_of(config, known)}:\n\n")
            out.writelines(f"{line}\n" for line in lines)
        out.flush()
    return 0


def watch(
    config: Config,
    window: FullScreen,
    *,
    which: Which,
    limit: int,
    environ: Mapping[str, str] | None = None,
    wall: Callable[[], int] = time.time_ns,
) -> int:
    """Show the tasks of the daemon whose state is in `config.state` until `q` is pressed; return 0.

    The picture is drawn anew every second, and at once when the window's size changes. It has what failed or was
    lost first, then what runs, then what has ended otherwise, the newest of each, as far as there is room; bad
    ends leave half of it to the others. `wall` is the clock, in nanoseconds.

    Raises StoreError where there is no state or it may not be read, KeyboardInterrupt on Ctrl-C.
    """
    environ = os.environ if environ is None else environ
    is_coloured = view.may_be_coloured(environ)
    with window:
        while True:
            columns, rows = window.size()
            # Opened for each picture: the daemon may have put its state aside and begun another.
            with ExitStack() as resources:
                known = from_state(config, resources, wall())
                lines = _picture(
                    config,
                    known,
                    which,
                    limit=min(max(limit, 0), WATCHED_MAX),
                    columns=columns,
                    rows=rows,
                    is_coloured=is_coloured,
                )
            window.draw(lines)
            if window.wait(WATCH_SECONDS)[:1] in ("q", "Q"):
                return 0


def _picture(
    config: Config,
    known: QuerySource,
    which: Which,
    *,
    limit: int,
    columns: int,
    rows: int,
    is_coloured: bool,
) -> list[str]:
    found, _ = _find(known, which, limit)
    bad = [task for task in found if task.state in ("failed", "lost")]
    rest = [task for task in found if task.state not in ("failed", "lost")]
    # No picture has room for more than a task a row.
    shown = [_listed(known, task, MEANWHILE_SHOWN) for task in [*bad[:rows], *rest[:rows]]]
    zone = load_zone(config.timezone) if config.timezone else None
    notes = _notes(known, shown, is_all=True, is_finished=False)
    head = [
        _summary([task.state for task in found], which),
        *notes,
        f"{_as_of(config, known)}; q ends this.",
        "",
    ]
    titles, blocks = view.blocks(shown, zone=zone, width=columns, is_coloured=is_coloured)
    lines = [*(view.clipped(line, columns) for line in head), *([titles] if shown else [])]
    split = min(len(bad), rows)
    room = max(0, rows - len(lines))
    wanted = sum(map(len, blocks[split:]))
    above = _fitting(blocks[:split], max(room // 2, room - wanted))
    below = _fitting(blocks[split:], room - len(above))
    return [*lines, *above, *below][:rows]


def _fitting(blocks: Sequence[list[str]], room: int) -> list[str]:
    """Return the first blocks that there is room for; of one that has room for its first line, that."""
    lines: list[str] = []
    for block in blocks:
        lines += block[: room - len(lines)]
        if len(lines) >= room:
            break
    return lines


def _as_of(config: Config, known: QuerySource) -> str:
    zone = load_zone(config.timezone) if config.timezone else None
    return f"As of {view.local(known.now, zone):%Y-%m-%d %H:%M:%S} ({config.timezone or 'local time'})"


def _find(known: QuerySource, which: Which, limit: int) -> tuple[list[TaskView], bool]:
    """Return the tasks in the order in which they are shown, and whether these are all."""
    ended: list[TaskRow] = []
    is_all = True
    outcomes: dict[Which, tuple[Outcome | None, ...]] = {
        "all": (None,),
        "failed": BAD,
        "running": (),
    }
    for outcome in outcomes[which]:
        page = known.reader.tasks(limit=limit, outcome=outcome)
        ended += page.tasks
        is_all = is_all and page.before is None
    if which == "failed":
        ended.sort(key=lambda row: row.end, reverse=True)
        is_all = is_all and len(ended) <= limit
        ended = ended[:limit]
    found: list[TaskView] = []
    if which != "failed":
        # What has ended between the two looks is in both; its end is the newer news.
        over = {row.context for row in ended}
        running = sorted(known.snapshot.open_tasks, key=lambda row: row.start, reverse=True)
        found += [
            of_running(row, now=known.now, requests=known.requests)
            for row in running
            if row.context not in over
        ]
    bad = [row for row in ended if row.outcome in BAD]
    rest = [row for row in ended if row.outcome not in BAD]
    return found + [of_ended(row) for row in [*bad, *rest]], is_all


def _listed(known: QuerySource, task: TaskView, limit: int) -> Listed:
    """Return the task with its request and up to `limit` of the others, as far as the history still has them."""
    reader = known.reader
    others: list[RequestRow] = []
    if task.concurrent and limit:
        between = reader.requests_between(task.since + 1, task.until, limit + 1)
        others = [request for request in between if request.ordinal != task.request][:limit]
    request = reader.request(task.request) if task.request else None
    return Listed(task, request, others)


def _summary(states: Sequence[State], which: Which) -> str:
    if not states:
        return NONE_FOUND[which]
    failed = states.count("failed") + states.count("lost")
    counts = {
        "running": states.count("running"),
        "failed or lost": failed,
        "with an unknown end": states.count("unknown"),
        "done": states.count("done"),
    }
    return ", ".join(f"{count:,} {word}" for word, count in counts.items() if count) + "."


def _notes(known: QuerySource, shown: Sequence[Listed], *, is_all: bool, is_finished: bool) -> Iterator[str]:
    """Yield what else one must know to read the table rightly, a sentence each."""
    snapshot = known.snapshot
    rejected = int(snapshot.counters.get(("wok_exporter_lines_total", "rejected"), 0))
    if is_finished and rejected:
        lines = "1 line was" if rejected == 1 else f"{rejected:,} lines were"
        yield f"{lines} not understood: `check` lists them."
    if not is_finished and not snapshot.is_ready:
        yield "The daemon has not read all of the log yet: this is as far as it is."
    elif not is_finished:
        age = known.now - int(snapshot.committed_seconds * NANOS)
        if age > STALE_NANOS and any(listed.task.state == "running" for listed in shown):
            yield f"The daemon has seen nothing new for {view.duration(age)}: what ran then is shown as running."
    doubts = {listed.task.correlation for listed in shown if listed.request is not None}
    if "likely" in doubts:
        yield "A request with ? is likely the task's: others would look the same."
    if "ambiguous" in doubts:
        yield "A request with ?? is one of several that may be the task's."
    if not is_all:
        yield "Tasks that ended earlier are left out: --limit shows more."


def _write_json(out: TextIO, objects: Iterable[dict[str, object]]) -> None:
    """Write a list, one object a line and one in memory: each may have a thousand requests in it."""
    opening = "["
    for one in objects:
        out.write(f"{opening}\n{json.dumps(one)}")
        opening = ","
    out.write("[]\n" if opening == "[" else "\n]\n")
    out.flush()
