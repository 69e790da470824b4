"""`tasks`: running and failed tasks, why they failed, and what else was requested meanwhile.

Printed once, it is a table of any length, from the daemon's state or from logs (query_source.py).
With `--watch` it is as high as the terminal and drawn again every second, and what matters most
comes first.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, TextIO

from exporter.command.query_source import QuerySource, from_files, from_state, why_nothing
from exporter.command.task_filters import NO_FILTERS, TaskFilters
from exporter.config.options import Config
from exporter.parse.timezone import load_zone
from exporter.records import NANOS, RequestRow
from exporter.store.search import Place, Sought
from exporter.store.task_view import BAD, Ended, Running, State, TaskView, view_of
from exporter.terminal import task_table as view
from exporter.terminal.fullscreen import FullScreen
from exporter.terminal.screen import terminal_width
from exporter.terminal.task_table import Listed

Which = Literal["all", "running", "failed"]

TASKS_MAX = 1_000_000
"""More than any history has, and within SQLite's integers."""
PAGE = 500
"""Tasks to read at a time."""
MEANWHILE_SHOWN = 3
MEANWHILE_MAX = 1000
"""Concurrent requests to show for one task, for people and for programs."""
WATCH_SECONDS = 1.0
"""The log has whole seconds, and so have the durations shown."""
WATCHED_MAX = 1000
"""Finished tasks to read every second: more than any terminal has rows."""
STALE_NANOS = 300 * NANOS
"""A log may be idle for minutes. After this, say how old the information about running tasks is."""

NONE_FOUND: dict[Which, str] = {
    "all": "No tasks found.",
    "running": "No running tasks.",
    "failed": "No failed or lost tasks.",
}


def tasks(
    config: Config,
    files: Sequence[Path],
    *,
    which: Which,
    limit: int,
    as_json: bool,
    out: TextIO,
    filters: TaskFilters = NO_FILTERS,
    screen: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
    wall: Callable[[], int] = time.time_ns,
) -> int:
    """Print running tasks, then failed and lost ones, then other finished ones; return the exit
    code.

    In each group the newest comes first; of finished tasks the last `limit` that pass `filters` are
    shown. They come
    from the daemon's state in `config.state`, or from `files`. On a terminal the table has its
    width, and colours unless NO_COLOR or a dumb TERM disables them; elsewhere nothing is cut. With
    `as_json` it is one JSON list with an object on each line (`view.as_object`), each with up to
    1000 concurrent requests. Progress goes to `screen`, stderr by default. `wall` is the clock, in
    nanoseconds.

    Raises StoreError if there is no state or it cannot be read, ArchiveError if a file cannot be
    read.
    """
    environ = os.environ if environ is None else environ
    zone = load_zone(config.timezone) if config.timezone else None
    with ExitStack() as resources:
        if files:
            known = from_files(config, files, resources, screen or sys.stderr)
        else:
            known = from_state(config, resources, wall())
        found, is_all = _find(known, which, filters.sought(known.now, zone), min(max(limit, 0), TASKS_MAX))
        why = why_nothing(known, files)
        if why:
            (screen or sys.stderr).write(f"error: {why}\n")
        if as_json:
            _write_json(out, (view.as_object(_listed(known, one, MEANWHILE_MAX), zone) for one in found))
            return 1 if why else 0
        shown = [_listed(known, one, MEANWHILE_SHOWN) for one in found]
        notes = _notes(known, shown, is_all=is_all, is_finished=bool(files))
        out.writelines(f"{line}\n" for line in (_summary([task.state for task in found], which), *notes))
        if shown:
            is_terminal = out.isatty()
            lines = view.table(
                shown,
                zone=zone,
                width=terminal_width(out),
                is_coloured=is_terminal and view.may_be_coloured(environ),
            )
            out.write(f"{_as_of(config, known)}:\n\n")
            out.writelines(f"{line}\n" for line in lines)
        out.flush()
    return 1 if why else 0


def watch(
    config: Config,
    window: FullScreen,
    *,
    which: Which,
    limit: int,
    filters: TaskFilters = NO_FILTERS,
    environ: Mapping[str, str] | None = None,
    wall: Callable[[], int] = time.time_ns,
) -> int:
    """Show the tasks of the daemon whose state is in `config.state` until `q` is pressed; return 0.

    The screen is drawn every second, and immediately when the window's size changes. It shows
    failed and lost tasks first, then running ones, then the others, the newest of each, as far as
    there is room. The first group leaves half of the screen to the others. `wall` is the clock, in
    nanoseconds.

    Raises StoreError if there is no state or it cannot be read, KeyboardInterrupt on Ctrl-C.
    """
    environ = os.environ if environ is None else environ
    is_coloured = view.may_be_coloured(environ)
    with window:
        while True:
            columns, rows = window.size()
            # Opened each time: the daemon may have moved its state aside and created another.
            with ExitStack() as resources:
                known = from_state(config, resources, wall())
                lines = _picture(
                    config,
                    known,
                    which,
                    filters,
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
    filters: TaskFilters,
    *,
    limit: int,
    columns: int,
    rows: int,
    is_coloured: bool,
) -> list[str]:
    zone = load_zone(config.timezone) if config.timezone else None
    found, _ = _find(known, which, filters.sought(known.now, zone), limit)
    bad = [task for task in found if task.state in ("failed", "lost")]
    rest = [task for task in found if task.state not in ("failed", "lost")]
    # There is room for at most one task in a row.
    shown = [_listed(known, task, MEANWHILE_SHOWN) for task in [*bad[:rows], *rest[:rows]]]
    notes = _notes(known, shown, is_all=True, is_finished=False)
    head = [
        _summary([task.state for task in found], which),
        *notes,
        f"{_as_of(config, known)}; press q to quit.",
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
    """Return the first blocks that fit; of a block that fits in part, its first lines."""
    lines: list[str] = []
    for block in blocks:
        lines += block[: room - len(lines)]
        if len(lines) >= room:
            break
    return lines


def _as_of(config: Config, known: QuerySource) -> str:
    zone = load_zone(config.timezone) if config.timezone else None
    return f"As of {view.local(known.now, zone):%Y-%m-%d %H:%M:%S} ({config.timezone or 'local time'})"


def _find(known: QuerySource, which: Which, sought: Sought, limit: int) -> tuple[list[TaskView], bool]:
    """Return the tasks in display order, and whether these are all."""
    ended: list[Ended] = []
    if which == "failed":
        bad = [outcome for outcome in BAD if not sought.outcomes or outcome in sought.outcomes]
        if not bad:
            return [], True
        sought = sought._replace(outcomes=bad)
    if which != "running":
        ended = _ended(known, sought, limit + 1)
    is_all = len(ended) <= limit
    ended = ended[:limit]
    shown: list[Running | Ended] = []
    if which != "failed" and not sought.outcomes:
        # A task that ended between the two queries is in both; its end is newer.
        over = {one.row.context for one in ended}
        running = sorted(_running(known, sought), key=lambda one: one.row.start, reverse=True)
        shown += [one for one in running if one.row.context not in over]
    if which == "failed":
        ended.sort(key=lambda one: one.row.end, reverse=True)
    shown += [one for one in ended if one.row.outcome in BAD]
    shown += [one for one in ended if one.row.outcome not in BAD]
    return [view_of(one, now=known.now, requests=known.requests) for one in shown], is_all


def _ended(known: QuerySource, sought: Sought, count: int) -> list[Ended]:
    """Return the newest ended tasks, at least `count` if there are so many."""
    found: list[Ended] = []
    place: Place | None = None
    while True:
        page = known.reader.find_tasks(sought, running=False, ended=True, place=place, limit=PAGE)
        found += [one for one in page.tasks if isinstance(one, Ended)]
        place = page.next
        if place is None or len(found) >= count:
            return found


def _running(known: QuerySource, sought: Sought) -> Iterator[Running]:
    place: Place | None = None
    while True:
        page = known.reader.find_tasks(sought, running=True, ended=False, place=place, limit=PAGE)
        yield from (one for one in page.tasks if isinstance(one, Running))
        place = page.next
        if place is None:
            return


def _listed(known: QuerySource, task: TaskView, limit: int) -> Listed:
    """Return the task with its request and up to `limit` of the others, if the history still has
    them.
    """
    reader = known.reader
    others: list[RequestRow] = []
    if task.concurrent and limit:
        between = reader.requests_between(task.since + 1, task.until, limit + 1)
        others = [request for request in between if request.ordinal != task.request][:limit]
    request = reader.request(task.request) if task.request else None
    usual = reader.usual().get((task.app, task.operation)) if task.state == "running" else None
    return Listed(task, request, others, usual)


def _summary(states: Sequence[State], which: Which) -> str:
    if not states:
        return NONE_FOUND[which]
    failed = states.count("failed") + states.count("lost")
    counts = {
        "running": states.count("running"),
        "failed or lost": failed,
        "with unknown outcome": states.count("unknown"),
        "done": states.count("done"),
    }
    return ", ".join(f"{count:,} {word}" for word, count in counts.items() if count) + "."


def _notes(known: QuerySource, shown: Sequence[Listed], *, is_all: bool, is_finished: bool) -> Iterator[str]:
    """Yield what else one must know to read the table correctly, a sentence each."""
    snapshot = known.snapshot
    rejected = int(snapshot.counters.get(("wok_exporter_lines_total", "rejected"), 0))
    if is_finished and rejected:
        lines = "1 line was" if rejected == 1 else f"{rejected:,} lines were"
        yield f"{lines} not parsed: `check` lists them."
    if not is_finished and not snapshot.is_ready:
        yield "The daemon is still reading the log: newer tasks are missing."
    elif not is_finished:
        age = known.now - int(snapshot.committed_seconds * NANOS)
        if age > STALE_NANOS and any(listed.task.state == "running" for listed in shown):
            yield (
                f"The daemon has read nothing new for {view.duration(age)}:"
                " tasks that were running then are shown as running."
            )
    doubts = {listed.task.correlation for listed in shown if listed.request is not None}
    if "likely" in doubts:
        yield "? marks a request that likely started the task: another one could match as well."
    if "ambiguous" in doubts:
        yield "?? marks one of several requests that may have started the task."
    if not is_all:
        yield "Older tasks are not shown: use --limit to show more."


def _write_json(out: TextIO, objects: Iterable[dict[str, object]]) -> None:
    """Write a list, one object a line and one in memory: each may contain a thousand requests."""
    opening = "["
    for one in objects:
        out.write(f"{opening}\n{json.dumps(one)}")
        opening = ","
    out.write("[]\n" if opening == "[" else "\n]\n")
    out.flush()
