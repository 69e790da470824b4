"""The RFC's questions at a terminal: what runs and for how long, what failed and why, what was asked meanwhile.

The answers are in the daemon's state, which may be read while the daemon writes it. For log files that no daemon
has read, the same pipeline reads them into a state of their own, which is thrown away: there is one way from a
log to a task. A finished log has no "now": what still ran at its end has run until its last record.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple, TextIO

from exporter.command import view
from exporter.command.progress import ProgressLine
from exporter.command.view import State, TaskView
from exporter.compose import Composer
from exporter.config import Config
from exporter.correlate.running import Open
from exporter.front import Here
from exporter.parse.zones import load_zone
from exporter.pipeline import Pipeline
from exporter.records import NANOS, Grade, OpenTask, Outcome, RequestRow, TaskRow
from exporter.source.archive import Archive
from exporter.store.reader import Reader, Snapshot
from exporter.store.writer import Store

Which = Literal["all", "running", "failed"]

TASKS_MAX = 1_000_000
"""More than a history ever has, and a number that SQLite takes."""
MEANWHILE_SHOWN = 3
MEANWHILE_MAX = 1000
"""Requests beside one task, for a person and for a program."""
STALE_NANOS = 300 * NANOS
"""A log may be quiet for minutes; beyond, it is said how old the news is that something runs."""

STATES: dict[Outcome, State] = {"success": "done", "failure": "failed", "lost": "lost", "unknown": "unknown"}
NONE_FOUND: dict[Which, str] = {
    "all": "No task runs, and none has ended.",
    "running": "No task runs.",
    "failed": "No task has failed or was lost.",
}


class _Known(NamedTuple):
    """Where the answers are: `snapshot` is of the moment at which the tasks that run are looked at, and
    `requests` the number, and so the last ordinal, of all requests then. `now` is in nanoseconds.
    """

    reader: Reader
    snapshot: Snapshot
    requests: int
    now: int


class _Found(NamedTuple):
    """A task, and the ordinals of its own request (0 without one) and of the last ones before start and end."""

    view: TaskView
    request: int
    since: int
    until: int


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
            known = _from_files(config, files, resources, screen or sys.stderr)
        else:
            known = _from_state(config, resources, wall())
        found, is_all = _find(known, which, min(max(limit, 0), TASKS_MAX))
        if as_json:
            _write_json(out, (view.as_object(_whole(known, one, MEANWHILE_MAX), zone) for one in found))
            return 0
        shown = [_whole(known, one, MEANWHILE_SHOWN) for one in found]
        notes = _notes(known, shown, is_all=is_all, is_finished=bool(files))
        out.writelines(f"{line}\n" for line in (_summary(shown, which), *notes))
        if shown:
            is_terminal = out.isatty()
            lines = view.table(
                shown,
                zone=zone,
                width=shutil.get_terminal_size().columns if is_terminal else None,
                is_coloured=is_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb",
            )
            place = config.timezone or "local time"
            out.write(f"As of {view.local(known.now, zone):%Y-%m-%d %H:%M:%S} ({place}):\n\n")
            out.writelines(f"{line}\n" for line in lines)
        out.flush()
    return 0


def _from_state(config: Config, resources: ExitStack, now: int) -> _Known:
    assert config.state is not None, "the configuration of this command has a state"
    reader = resources.enter_context(closing(Reader(config.state)))
    snapshot = reader.snapshot()
    return _Known(reader, snapshot, _requests(snapshot), now)


def _from_files(config: Config, files: Sequence[Path], resources: ExitStack, screen: TextIO) -> _Known:
    from exporter.command.daemon import rules_of, telemetry_of  # noqa: PLC0415 - drags in all that delivers and serves

    directory = Path(resources.enter_context(TemporaryDirectory(prefix="wok-exporter-")))
    store = resources.enter_context(closing(Store(directory)))
    log = Archive(files, line_bytes_max=config.line_bytes_max)
    marks = partial(Archive, [config.wok_error_log]) if config.wok_error_log else None
    composer = Composer(telemetry_of(config, files[0].name), signals=frozenset())
    pipeline = Pipeline(
        store,
        composer,
        # a state that is new is read from its beginning, once
        lambda loaded: Here(rules_of(config), loaded, log=lambda _: log, marks=marks, wall=None),
        now=lambda: 0.0,
    )
    progress = ProgressLine(screen, log.total_bytes)
    with closing(pipeline):
        lines, is_read = 0, False
        while not is_read:
            step = pipeline.step()
            lines, is_read = lines + step.lines, step.caught_up
            progress.show(log.done_bytes, lines)
    progress.clear()
    reader = resources.enter_context(closing(store.reader()))
    snapshot = reader.snapshot()
    requests = _requests(snapshot)
    return _Known(reader, snapshot, requests, _last_time(reader, snapshot, requests))


def _requests(snapshot: Snapshot) -> int:
    # Counted in the same transaction as the tasks that run; ordinals are given without gaps, from 1.
    return int(sum(count for series, count in snapshot.counters.items() if series[0] == "wok_requests_total"))


def _last_time(reader: Reader, snapshot: Snapshot, requests: int) -> int:
    """Return the time of the last record of a log that has been read to its end, 0 for one without."""
    request = reader.request(requests)
    ended = reader.tasks(limit=1).tasks
    times = [task.start for task in snapshot.open_tasks]
    times += [task.end for task in ended]
    return max([*times, request.time if request is not None else 0])


def _find(known: _Known, which: Which, limit: int) -> tuple[list[_Found], bool]:
    """Return the tasks in the order in which they are shown, and whether these are all."""
    ended: list[TaskRow] = []
    is_all = True
    outcomes: dict[Which, tuple[Outcome | None, ...]] = {
        "all": (None,),
        "failed": ("failure", "lost"),
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
    found: list[_Found] = []
    if which != "failed":
        # What has ended between the two looks is in both; its end is the newer news.
        over = {row.context for row in ended}
        running = sorted(known.snapshot.open_tasks, key=lambda row: row.start, reverse=True)
        found += [_running(known, row) for row in running if row.context not in over]
    bad = [row for row in ended if row.outcome in ("failure", "lost")]
    rest = [row for row in ended if row.outcome not in ("failure", "lost")]
    return found + [_ended(row) for row in [*bad, *rest]], is_all


def _running(known: _Known, row: OpenTask) -> _Found:
    task = Open.from_row(row)
    # A request that has opened its task is certainly its own; a start record has had to look for its request.
    grade: Grade = task.grade if task.by_start else "exact"
    own = 1 if row.since < row.request <= known.requests else 0
    seen = TaskView(
        state="running",
        app=row.app,
        operation=row.operation,
        target_uri=row.target_uri,
        task_id=row.task_id,
        start=row.start,
        end=None,
        duration=max(0, known.now - row.start),
        correlation=grade,
        context=row.context,
        meanwhile_count=max(0, known.requests - row.since - own),
    )
    return _Found(seen, row.request, row.since, known.requests)


def _ended(row: TaskRow) -> _Found:
    is_bad = row.outcome in ("failure", "lost")
    # Of a task without a request and without a time nothing but its final record is known.
    is_brief = row.start == row.end and not row.request
    seen = TaskView(
        state=STATES[row.outcome],
        app=row.app,
        operation=row.operation,
        target_uri=row.target_uri,
        task_id=row.task_id,
        start=row.start,
        end=None if row.outcome == "unknown" else row.end,
        duration=None if row.outcome == "unknown" or is_brief else row.end - row.start,
        correlation=row.correlation,
        context=row.context,
        error_code=row.error_code,
        why=row.message if is_bad else "",
        meanwhile_count=row.concurrent,
    )
    return _Found(seen, row.request, row.since, row.until)


def _whole(known: _Known, found: _Found, limit: int) -> TaskView:
    """Return the task with its request and up to `limit` of the others, as far as the history still has them."""
    reader = known.reader
    others: list[RequestRow] = []
    if found.view.meanwhile_count:
        between = reader.requests_between(found.since + 1, found.until, limit + 1)
        others = [request for request in between if request.ordinal != found.request][:limit]
    request = reader.request(found.request) if found.request else None
    return found.view._replace(request=request, meanwhile=others)


def _summary(shown: Sequence[TaskView], which: Which) -> str:
    if not shown:
        return NONE_FOUND[which]
    states = [task.state for task in shown]
    failed = states.count("failed") + states.count("lost")
    counts = {
        "running": states.count("running"),
        "failed or lost": failed,
        "with an unknown end": states.count("unknown"),
        "done": states.count("done"),
    }
    return ", ".join(f"{count:,} {word}" for word, count in counts.items() if count) + "."


def _notes(known: _Known, shown: Sequence[TaskView], *, is_all: bool, is_finished: bool) -> Iterator[str]:
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
        if age > STALE_NANOS and any(task.state == "running" for task in shown):
            yield f"The daemon has seen nothing new for {view.duration(age)}: what ran then is shown as running."
    doubts = {task.correlation for task in shown if task.request is not None}
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
