"""`trace`: a request, the tasks that it started, and what else was requested while they ran.

Everything is on one time scale, from the request to the last end, or to now while a task runs. A
task is a bar, a request a tick. The label is left of the scale, details are below a task. On a
terminal, labels and scale share the width; elsewhere the labels are as wide as they need, as in
`tasks`.

A terminal may support ASCII only. Bars are then drawn with ASCII, and unsupported characters are
escaped before anything is measured, so that the scale stays aligned.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import tzinfo
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from exporter.command.query_source import QuerySource, from_files, from_state, why_nothing
from exporter.command.trace_matches import MATCHES_SHOWN, choice, listed, nothing_found
from exporter.config.options import Config
from exporter.parse.timezone import load_zone
from exporter.records import Grade, RequestRow, requests_between
from exporter.store.search import Trace
from exporter.store.task_view import Running, TaskView, view_of
from exporter.terminal import task_table as view
from exporter.terminal.screen import terminal_width
from exporter.terminal.text import visible

TRACES_SHOWN = 5
TASKS_SHOWN = 20
MEANWHILE_SHOWN = 20
"""Limits for people; programs get more."""
TASKS_MAX = 1000
MEANWHILE_MAX = 1000

SCALE_CELLS = 40
"""The width of the scale without a terminal."""
SCALE_CELLS_MIN = 10
"""A shorter bar shows nothing that the duration does not."""

DOUBTS: dict[Grade, str] = {
    "exact": "",
    "likely": "another request could match as well",
    "ambiguous": "this is one of several requests that may have started the task",
    "none": "no request was found that could have started the task",
}

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}", re.ASCII)
"""The header of W3C's Trace Context, level 1."""
_CONTEXT = re.compile(r"([0-9a-f]{32})(?:[-:/]?([0-9a-f]{16}))?", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class Glyphs(NamedTuple):
    """The characters of trees and bars: `parts` are bars narrower than a cell,
    the shortest first.
    """

    branch: str
    last: str
    stem: str
    tick: str
    full: str
    parts: str
    vague: str
    cut: str


UNICODE = Glyphs("├─", "└─", "│", "┃", "█", "▏▎▍▌▋▊▉", "░", "…")
ASCII = Glyphs("|-", "`-", "|", "|", "=", "", "-", "~")


class Scale(NamedTuple):
    """The time from `begin` to `finish`, in nanoseconds, on `cells` cells."""

    begin: int
    finish: int
    cells: int

    def tick(self, when: int, glyphs: Glyphs) -> str:
        """Return the mark of a moment; one outside the scale (a clock was set
        back) is at its end.
        """
        return " " * self._at(when, self.cells) + glyphs.tick

    def bar(self, start: int, end: int, glyphs: Glyphs, *, is_vague: bool) -> tuple[str, str]:
        """Return the bar from start to end, at least one cell wide, and the blanks before it."""
        steps = len(glyphs.parts) + 1
        first = self._at(start, self.cells)
        until = self._at(end, self.cells * steps) + 1
        whole, rest = divmod(max(1, until - first * steps), steps)
        if is_vague:
            return glyphs.vague * max(1, whole), " " * first
        return glyphs.full * whole + (glyphs.parts[rest - 1] if rest else ""), " " * first

    def _at(self, when: int, cells: int) -> int:
        span = max(1, self.finish - self.begin)
        return max(0, min((when - self.begin) * cells // span, cells - 1))


class Shown(NamedTuple):
    """A request with its tasks and the concurrent requests, as shown.

    `tasks` are (task, end of its bar in nanoseconds). They and `meanwhile` are the first of
    `task_count` tasks and `meanwhile_count` other requests.
    """

    request: RequestRow | None
    tasks: Sequence[tuple[TaskView, int]]
    task_count: int
    meanwhile: Sequence[RequestRow]
    meanwhile_count: int


def trace(
    config: Config,
    sought: str,
    files: Sequence[Path],
    *,
    as_json: bool,
    out: TextIO,
    screen: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
    wall: Callable[[], int] = time.time_ns,
) -> int:
    """Print the requests that `sought` means, each with its tasks; return 0, or 1 if there are
    none or several.

    `sought` is a trace id (32 hex digits, or a UUID with its dashes), a span context (a trace id
    and a span id, or a traceparent), the record id of a request, or the target_uri of tasks: then
    the newest 5 are shown. Otherwise it is the beginning of an id or (part of) the name of a
    resource (`search.matching`): then the only match is shown, and several are listed.

    The search is in the daemon's state in `config.state`, or in `files`. With `as_json` it is one
    JSON list with an object on each line, each with up to 1000 tasks and 1000 other requests.
    `screen`, stderr by default, says if nothing matches, or more than one. `wall` is the clock, in
    nanoseconds.

    Raises StoreError if there is no state or it cannot be read, ArchiveError if a file cannot be
    read.
    """
    environ = os.environ if environ is None else environ
    screen = screen or sys.stderr
    zone = load_zone(config.timezone) if config.timezone else None
    # An argument that is not valid in this host's encoding cannot be in the history.
    text = sought.strip().encode("utf-8", "replace").decode()
    context = context_of(text)
    with ExitStack() as resources:
        if files:
            known = from_files(config, files, resources, screen)
        else:
            known = from_state(config, resources, wall())
        if why := why_nothing(known, files):
            screen.write(f"error: {why}\n")
        tasks_max = TASKS_MAX if as_json else TASKS_SHOWN
        found = known.reader.traces(
            context=context,
            record_id=text,
            target_uri="" if context else text,
            limit=TRACES_SHOWN,
            tasks_max=tasks_max,
        )
        is_exact = bool(found.traces) or not text
        if not is_exact:
            found = known.reader.matching(text, limit=MATCHES_SHOWN, tasks_max=tasks_max)
        others_max = MEANWHILE_MAX if as_json else MEANWHILE_SHOWN
        shown = [_shown(known, one, found.requests, others_max) for one in found.traces]
    is_unclear = not is_exact and found.found > 1
    if as_json:
        objects = [json.dumps(as_object(one, zone)) for one in shown]
        out.write("[\n" + ",\n".join(objects) + "\n]\n" if objects else "[]\n")
    elif is_unclear:
        width = terminal_width(out)
        lines = listed(found.traces, zone=zone, width=width, now=known.now, requests=found.requests)
        out.writelines(f"{line}\n" for line in lines)
    else:
        _print(shown, config, zone, out, environ)
    out.flush()
    if not shown:
        where = f"the {len(files)} files" if len(files) > 1 else str(files[0] if files else config.state)
        screen.write(nothing_found(text, where, found.oldest, zone))
        return 1
    if is_unclear:
        screen.write(choice(text, found))
        return 1
    if found.found > len(shown):
        more = found.found - len(shown)
        said = f"and {more:,} older {'one' if more == 1 else 'ones'}: use a trace id to show one of them.\n"
        if as_json:
            screen.write(said)
        else:
            out.write(f"\n{said}")
    out.flush()
    return 0


def _print(
    shown: Sequence[Shown], config: Config, zone: tzinfo | None, out: TextIO, environ: Mapping[str, str]
) -> None:
    is_terminal = out.isatty()
    for number, one in enumerate(shown):
        lines = drawn(
            one,
            zone=zone,
            place=config.timezone or "local time",
            width=terminal_width(out),
            encoding=out.encoding or "utf-8",
            is_coloured=is_terminal and view.may_be_coloured(environ),
        )
        out.writelines(f"{line}\n" for line in ([""] if number else []))
        out.writelines(f"{line}\n" for line in lines)


def context_of(text: str) -> bytes:
    """Return the text as a trace id (16 bytes) or a span context (24 bytes); empty if it is
    neither.
    """
    low = text.lower()
    if _UUID.fullmatch(low):
        return bytes.fromhex(low.replace("-", ""))
    match = _TRACEPARENT.fullmatch(low) or _CONTEXT.fullmatch(low)
    return bytes.fromhex(match[1] + (match[2] or "")) if match else b""


def as_object(shown: Shown, zone: tzinfo | None) -> dict[str, Any]:
    """Return a request for JSON, like `tasks --json`; `meanwhile.requests` may be fewer than its
    count.
    """
    return {
        "trace_id": _trace_id(shown) or None,
        "request": view.request_object(shown.request, zone) if shown.request else None,
        "task_count": shown.task_count,
        "tasks": [{**view.task_object(task, zone), "stack": task.stack or None} for task, _ in shown.tasks],
        "meanwhile": {
            "count": shown.meanwhile_count,
            "requests": [view.request_object(request, zone) for request in shown.meanwhile],
        },
    }


def drawn(
    shown: Shown, *, zone: tzinfo | None, place: str, width: int | None, encoding: str, is_coloured: bool
) -> Iterator[str]:
    """Yield the lines that show a request, its tasks, and the other requests.

    Times are shown in `zone` (None: the host's), named `place`. `width` is the terminal's in cells,
    None for no limit; `encoding` is the terminal's, and decides the characters of bars.
    """
    try:
        "".join(UNICODE).encode(encoding)
        glyphs = UNICODE
    except UnicodeEncodeError:
        glyphs = ASCII

    def known(text: str) -> str:
        return visible(text).encode(encoding, "backslashreplace").decode(encoding)

    def clipped(text: str, room: int | None) -> str:
        return text if room is None else view.clipped(text, room).replace("…", glyphs.cut)

    def below(text: str, stem: str) -> Iterator[str]:
        for line in view.detail(known(text), width):
            yield clipped(stem + line[len(stem) :], width)

    request, tasks = shown.request, shown.tasks
    last = max([*(end for _, end in tasks), *([request.time] if request else [])])
    first = min([*(task.start for task, _ in tasks), *([request.time] if request else [])])
    labels = [known(_label(task)) for task, _ in tasks]
    ticks = [known(_tick_label(other, zone)) for other in shown.meanwhile]
    asked = known(view.asked_of(request)) if request else "request unknown"
    left = max(map(view.width_of, [asked, *(f"{glyphs.last} {label}" for label in labels), *ticks]))
    cells = SCALE_CELLS
    if width is not None:
        left = min(left, max(width // 2, width - len(view.GAP) - SCALE_CELLS * 2))
        cells = max(SCALE_CELLS_MIN, width - left - len(view.GAP))
    scale = Scale(first, last, cells)

    def row(label: str, mark: str) -> str:
        head = clipped(label, left)
        gap = " " * (left - view.width_of(head)) + view.GAP
        return clipped((head + gap + mark).rstrip(), width)

    yield clipped(f"trace {_trace_id(shown) or 'not known yet'}", width)
    for line in _head(shown, zone, place):
        yield from below(line, "")
    yield ""
    yield row("", _ends(scale, zone))
    yield row(asked, scale.tick(request.time, glyphs) if request else "")
    for number, ((task, end), label) in enumerate(zip(tasks, labels, strict=True), 1):
        is_last = number == shown.task_count
        bar, before = scale.bar(task.start, end, glyphs, is_vague=task.state == "unknown")
        line = row(f"{glyphs.last if is_last else glyphs.branch} {label}", before + bar)
        # the bar is at the end of the line, whatever was cut before it
        if is_coloured and line.endswith(bar):
            line = line[: len(line) - len(bar)] + view.painted(bar, task.state)
        yield line
        for detail in _details(task, zone):
            yield from below(detail, " " if is_last else glyphs.stem)
    if shown.task_count > len(tasks):
        yield clipped(f"{glyphs.last} and {shown.task_count - len(tasks):,} more", width)
    if not tasks:
        return
    yield ""
    count = shown.meanwhile_count
    yield clipped(
        f"meanwhile: {count:,} other {'request' if count == 1 else 'requests'}"
        if count
        else "meanwhile: no other request",
        width,
    )
    for other, label in zip(shown.meanwhile, ticks, strict=True):
        yield row(label, scale.tick(other.time, glyphs))
    if count > len(shown.meanwhile):
        gone = " no longer in the history" if not shown.meanwhile else " more"
        yield clipped(f"and {count - len(shown.meanwhile):,}{gone}", width)


def _shown(known: QuerySource, found: Trace, requests: int, meanwhile_max: int) -> Shown:
    tasks: list[tuple[TaskView, int]] = []
    for one in found.tasks:
        end = max(known.now, one.row.start) if isinstance(one, Running) else one.row.end
        tasks.append((view_of(one, now=known.now, requests=requests), end))
    if not tasks:
        return Shown(found.request, (), found.task_count, (), 0)
    since = min(task.since for task, _ in tasks)
    until = max(task.until for task, _ in tasks)
    own = {task.request for task, _ in tasks}
    others = known.reader.requests_between(since + 1, until, meanwhile_max + 1)
    count = tasks[0][0].concurrent
    if len(tasks) > 1:
        count = requests_between(since, until) - sum(since < ordinal <= until for ordinal in own)
    meanwhile = [request for request in others if request.ordinal not in own][:meanwhile_max] if count else []
    return Shown(found.request, tasks, found.task_count, meanwhile, count)


def _trace_id(shown: Shown) -> str:
    contexts = [
        *([shown.request.context] if shown.request else []),
        *(task.context for task, _ in shown.tasks),
    ]
    return contexts[0][:16].hex() if contexts else ""


def _head(shown: Shown, zone: tzinfo | None, place: str) -> Iterator[str]:
    request = shown.request
    if request is None:
        has_one = any(task.request for task, _ in shown.tasks)
        yield "Its request is no longer in the history." if has_one else "Its request is unknown."
        first = min(task.start for task, _ in shown.tasks)
        yield f"{view.local(first, zone):%Y-%m-%d %H:%M:%S} ({place})"
        return
    by = f" by {request.user}" if request.user else ""
    origin = f" from {request.address}" if request.address else ""
    yield (
        f"{request.app} {view.asked_of(request)}{by}{origin}"
        f" at {view.local(request.time, zone):%Y-%m-%d %H:%M:%S} ({place})"
    )
    if request.message:
        yield request.message
    if request.record_id:
        yield f"record {request.record_id}"
    if not shown.tasks:
        yield "It started no task."


def _label(task: TaskView) -> str:
    took = "" if task.duration is None else view.duration(task.duration)
    return " ".join(filter(None, (task.state, took, task.operation)))


def _details(task: TaskView, zone: tzinfo | None) -> Iterator[str]:
    number = f", task {task.task_id}" if task.task_id else ""
    yield f"{task.resource or task.target_uri or task.app}{number}"
    start = f"{view.local(task.start, zone):%Y-%m-%d %H:%M:%S}"
    if task.state == "running":
        yield f"running since {start}"
    elif task.end is None:
        yield f"started {start}; the log does not show if or when it ended"
    elif task.duration is None:
        yield f"ended {start}; the log does not show when it started"
    else:
        yield f"{start} to {view.local(task.end, zone):%Y-%m-%d %H:%M:%S}"
    if task.context:
        yield f"span {task.context[16:].hex()}"
    if task.state in ("failed", "lost"):
        yield f"why: {view.why(task)}"
    for line in task.stack.split("\n") if task.stack else ():
        yield f"  {line}"
    if DOUBTS[task.correlation]:
        yield f"correlation: {task.correlation}, {DOUBTS[task.correlation]}"


def _tick_label(request: RequestRow, zone: tzinfo | None) -> str:
    by = f" {request.user}" if request.user else ""
    return f"{view.local(request.time, zone):%H:%M:%S} {view.asked_of(request)}{by}"


def _ends(scale: Scale, zone: tzinfo | None) -> str:
    begin, finish = view.local(scale.begin, zone), view.local(scale.finish, zone)
    form = "%H:%M:%S" if begin.date() == finish.date() else "%m-%d %H:%M:%S"
    ends = format(begin, form), format(finish, form)
    room = scale.cells - sum(map(len, ends))
    return ends[0] + " " * room + ends[1] if room > 0 and scale.begin != scale.finish else ends[0]
