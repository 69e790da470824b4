"""The table of tasks: values in, lines or JSON out.

The table has as many columns as the terminal has room for. Columns that other columns or the lines
below the row repeat are dropped first, and a resource is shortened at its beginning, where it says
least. Without a terminal (a pipe, a file) nothing is shortened, dropped or wrapped, and the columns
are still aligned. Programs get JSON.

Anybody who can reach Wok can write these texts. `text.visible` removes what controls a terminal
from every field before anything is measured, cut or coloured.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any, NamedTuple

from exporter.records import NANOS, Grade, RequestRow
from exporter.store.task_view import State, TaskView, Usual
from exporter.terminal.text import visible

COLOURS: dict[State, str] = {"running": "36", "failed": "31", "lost": "35", "unknown": "33", "done": "32"}
"""Numbers of ECMA-48's SGR: cyan, red, magenta, yellow, green, in the terminal's theme."""

DOUBTS: dict[Grade, str] = {"exact": "", "likely": " ?", "ambiguous": " ??", "none": ""}
"""Follows a request that may not be the task's."""

NOTHING = "-"
GAP = "  "
INDENT = "    "
FLOOR_CELLS = 8
"""A narrower column is unreadable."""
ID_DIGITS = 8
"""Of a trace id: enough for `trace`, which lists the traces if several begin alike."""
SENTENCE_CELLS_MAX = 100
"""The limit of a sentence that replaces a resource, also in a pipe."""
SENTENCE_CELLS_MIN = 30
"""A sentence is not wrapped at fewer cells, however narrow the terminal is."""
USUAL_TASKS_MIN = 3
"""Fewer tasks of an operation do not show what is usual."""
DETAIL_LINES_MAX = 4
"""The limit of a reason, which may be as long as the output of a package manager."""


class Listed(NamedTuple):
    """A task with its request, in `meanwhile` the first of the concurrent requests, and how long
    such a task usually takes.
    """

    task: TaskView
    request: RequestRow | None = None
    meanwhile: Sequence[RequestRow] = ()
    usual: Usual | None = None


class _Column(NamedTuple):
    """A column of the table.

    `least` is the width that it may shrink to before columns are dropped (0: it never shrinks), and
    `good` the same before columns are dropped that are repeated elsewhere. `leaves` is its place in
    the order in which columns are dropped (0: never).
    """

    title: str
    least: int = 0
    good: int = 0
    leaves: int = 0
    is_repeated: bool = False


_COLUMNS = (
    _Column("STATE"),
    _Column("STARTED", leaves=5),
    _Column("DURATION"),
    _Column("APP", leaves=3, is_repeated=True),
    _Column("OPERATION"),
    _Column("RESOURCE", least=20, good=40),
    _Column("USER", least=8, good=16, leaves=6),
    _Column("REQUEST", leaves=2, is_repeated=True),
    _Column("MEANWHILE", leaves=1, is_repeated=True),
    _Column("ID", leaves=4),
)
_SHRINK_FIRST = ("RESOURCE", "USER")


def table(
    tasks: Sequence[Listed], *, zone: tzinfo | None, width: int | None, is_coloured: bool
) -> Iterator[str]:
    """Yield the table's lines, in the given order, below a line of titles.

    Times are in `zone` (None: the host's). `width` is the terminal's in cells, None for no limit. A
    failed or lost task has a second line that says why. Failed, lost and running tasks have a line
    with the first concurrent requests.
    """
    titles, rows = blocks(tasks, zone=zone, width=width, is_coloured=is_coloured)
    yield titles
    for block in rows:
        yield from block


def blocks(
    tasks: Sequence[Listed], *, zone: tzinfo | None, width: int | None, is_coloured: bool
) -> tuple[str, list[list[str]]]:
    """Return the line of titles, and the lines of each task, as in `table`."""
    rows = [_cells(task, zone) for task in tasks]
    columns, widths = _fitted(rows, width)
    titles = _line([column.title for column in columns], widths, width)
    found = []
    for listed, row in zip(tasks, rows, strict=True):
        task = listed.task
        line = _line([row[column.title] for column in columns], widths, width)
        # the state is the first word of the line, whatever was cut after it
        block = [painted(task.state, task.state) + line[len(task.state) :] if is_coloured else line]
        if task.state in ("failed", "lost"):
            block += detail(f"why: {why(task)}", width)
        if sentence := compared(task, listed.usual):
            block += detail(sentence, width)
        if task.concurrent and task.state in ("failed", "lost", "running"):
            block += detail(_meanwhile(listed, zone), width)
        found.append(block)
    return titles, found


def may_be_coloured(environ: Mapping[str, str]) -> bool:
    """Return whether to use colours on a terminal: NO_COLOR and a dumb TERM disable them
    (no-color.org).
    """
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def painted(text: str, state: State) -> str:
    """Return the text in the colour of a state."""
    return f"\x1b[{COLOURS[state]}m{text}\x1b[0m"


def as_object(listed: Listed, zone: tzinfo | None) -> dict[str, Any]:
    """Return the task for JSON, like `task_object`, with its requests.

    `meanwhile.requests` may have fewer than `meanwhile.count`.
    """
    return {
        **task_object(listed.task, zone),
        "request": request_object(listed.request, zone) if listed.request else None,
        "meanwhile": {
            "count": listed.task.concurrent,
            "requests": [request_object(request, zone) for request in listed.meanwhile],
        },
    }


def task_object(task: TaskView, zone: tzinfo | None) -> dict[str, Any]:
    """Return the task alone for JSON: times in ISO 8601 with the offset of `zone`, ids in hex, null
    if unknown.
    """
    return {
        "state": task.state,
        "app": task.app,
        "operation": task.operation,
        "resource": task.resource or None,
        "target_uri": task.target_uri,
        "task_id": task.task_id,
        "started": iso(task.start, zone),
        "ended": None if task.end is None else iso(task.end, zone),
        "duration_seconds": None if task.duration is None else task.duration / NANOS,
        "trace_id": task.context[:16].hex() or None,
        "span_id": task.context[16:].hex() or None,
        "error_code": task.error_code or None,
        "exception": task.exception or None,
        "why": task.why or None,
        "correlation": task.correlation,
    }


def duration(nanos: int) -> str:
    """Return a duration in at most two units: `12s`, `4m 07s`, `1h 02m`, `3d 04h`.

    The log has whole seconds; less than one is `<1s`.
    """
    seconds = nanos // NANOS
    if seconds < 1:
        return "<1s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h"
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {seconds:02}s" if minutes else f"{seconds}s"


def local(nanos: int, zone: tzinfo | None) -> datetime:
    """Return a timestamp of the log in `zone`, or in the host's zone."""
    return datetime.fromtimestamp(nanos // NANOS, UTC).astimezone(zone)


def iso(nanos: int, zone: tzinfo | None) -> str:
    """Return a timestamp of the log in ISO 8601, with its offset."""
    return local(nanos, zone).isoformat()


def _cells(listed: Listed, zone: tzinfo | None) -> dict[str, str]:
    task, request = listed.task, listed.request
    user = asked = ""
    if request is not None:
        # Of an ambiguous task, only what all candidates agree on is a fact.
        user = task.user if task.correlation == "ambiguous" else request.user
        asked = asked_of(request)
        asked += DOUBTS[task.correlation]
    resource = task.resource or task.target_uri
    if not resource and request is not None and task.correlation != "ambiguous":
        # For a running task without a start record, only its request's sentence says what it works
        # on.
        resource = clipped(visible(request.message), SENTENCE_CELLS_MAX)
    cells = {
        "STATE": task.state,
        "STARTED": f"{local(task.start, zone):%Y-%m-%d %H:%M:%S}",
        "DURATION": NOTHING if task.duration is None else duration(task.duration),
        "APP": task.app,
        "OPERATION": task.operation,
        "RESOURCE": resource,
        "USER": user,
        "REQUEST": asked,
        "MEANWHILE": f"{task.concurrent:,}",
        "ID": task.context[:16].hex()[:ID_DIGITS],
    }
    return {title: visible(cell) or NOTHING for title, cell in cells.items()}


def asked_of(request: RequestRow) -> str:
    """Return a request in a few words: method, operation and, where the log has it, status."""
    status = "" if request.status is None else str(request.status)
    return " ".join(filter(None, (request.method, request.operation, status)))


def why(task: TaskView) -> str:
    """Return why a task failed or was lost, with its error's code or the class of its exception in
    front.
    """
    kind = task.error_code or task.exception
    if not kind or task.why.startswith(kind):
        return task.why.removeprefix(f"{task.state}: ")
    return f"{kind}: {task.why}"


def compared(task: TaskView, usual: Usual | None) -> str:
    """Return how long a running task takes in comparison with others, empty if there are few."""
    if task.state != "running" or task.duration is None or usual is None or usual.tasks < USUAL_TASKS_MIN:
        return ""
    said = f"usually: {duration(usual.median)}"
    if task.duration <= usual.p90:
        return said
    times = task.duration // max(usual.median, NANOS)
    return f"{said}, and 9 of 10 take at most {duration(usual.p90)}" + (
        f"; this one has taken {times:,} times as long" if times > 1 else ""
    )


def _meanwhile(listed: Listed, zone: tzinfo | None) -> str:
    count = listed.task.concurrent
    day = local(listed.task.start, zone).date()
    named = []
    for request in listed.meanwhile:
        what = " ".join(filter(None, (request.method, request.app, request.operation)))
        by = f" by {request.user}" if request.user else ""
        when = local(request.time, zone)
        at = f"{when:%H:%M:%S}" if when.date() == day else f"{when:%Y-%m-%d %H:%M:%S}"
        named.append(f"{what}{by} at {at}")
    others = "1 other" if count == 1 else f"{count:,} others"
    if not named:
        return f"meanwhile: {others}"  # the history has forgotten them
    more = ", ..." if len(named) < count else ""
    return f"meanwhile: {others}: {', '.join(named)}{more}"


def request_object(request: RequestRow, zone: tzinfo | None) -> dict[str, Any]:
    """Return the request for JSON, in the forms of `task_object`."""
    return {
        "time": iso(request.time, zone),
        "app": request.app,
        "method": request.method,
        "operation": request.operation,
        "status": request.status,
        "user": request.user or None,
        "address": request.address or None,
        "message": request.message,
        "resource": request.resource or None,
        "record_id": request.record_id or None,
        "trace_id": request.context[:16].hex(),
        "span_id": request.context[16:].hex(),
    }


# Widths, in cells of a terminal


def _fitted(rows: Sequence[dict[str, str]], width: int | None) -> tuple[list[_Column], list[int]]:
    """Return the columns that fit, and how wide each is."""
    natural = {
        column.title: max(map(width_of, [column.title, *(row[column.title] for row in rows)]))
        for column in _COLUMNS
    }
    columns = list(_COLUMNS)
    if width is None:
        return columns, [natural[column.title] for column in columns]
    least, good = (
        {title: min(natural[title], limit or natural[title]) for title, limit in limits}
        for limits in (
            [(column.title, column.least) for column in _COLUMNS],
            [(column.title, column.good) for column in _COLUMNS],
        )
    )
    for leaving in sorted((column for column in columns if column.leaves), key=lambda column: column.leaves):
        needed = good if leaving.is_repeated else least
        if sum(needed[column.title] for column in columns) + len(GAP) * (len(columns) - 1) > width:
            columns.remove(leaving)
    excess = sum(natural[column.title] for column in columns) + len(GAP) * (len(columns) - 1) - width
    present = [title for title in _SHRINK_FIRST if any(column.title == title for column in columns)]
    for floor, order in (
        (good, present[::-1]),
        (least, present),
        (dict.fromkeys(present, FLOOR_CELLS), present),
    ):
        for title in order:
            given = max(0, min(excess, natural[title] - floor[title]))
            natural[title] -= given
            excess -= given
    return columns, [natural[column.title] for column in columns]


def _line(cells: Sequence[str], widths: Sequence[int], width: int | None) -> str:
    padded = []
    for cell, room in zip(cells, widths, strict=True):
        shown = _clipped_left(cell, room) if cell.startswith("/") else clipped(cell, room)
        padded.append(shown + " " * (room - width_of(shown)))
    line = GAP.join(padded).rstrip()
    return line if width is None else clipped(line, width)


def detail(text: str, width: int | None) -> Iterator[str]:
    """Yield a line below a row, wrapped at its blanks."""
    plain = visible(text).rstrip()
    if width is None:
        yield INDENT + plain
        return
    room = max(1, width - len(INDENT))
    lines = wrapped(plain, room)
    if len(lines) > DETAIL_LINES_MAX:
        lines[DETAIL_LINES_MAX - 1 :] = [f"{lines[DETAIL_LINES_MAX - 1]} …"]
    for line in lines:
        yield clipped(INDENT + clipped(line, room), width)


def hanging(head: str, text: str, width: int | None) -> Iterator[str]:
    """Yield the text after `head`, wrapped so that all of its lines begin below each other."""
    plain = visible(text)
    indent = head
    for line in [plain] if width is None else wrapped(plain, max(SENTENCE_CELLS_MIN, width - len(head))):
        yield indent + line
        indent = " " * len(head)


def wrapped(text: str, room: int) -> list[str]:
    """Return the text as lines that fit, broken at blanks; a word that does not fit is a line."""
    lines: list[str] = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if not lines[-1] or width_of(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def clipped(text: str, room: int) -> str:
    """Return the text, or as much of its beginning as fits."""
    if width_of(text) <= room:
        return text
    kept, used = [], 1
    for c in text:
        used += width_of(c)
        if used > room:
            break
        kept.append(c)
    return "".join(kept) + "…"


def _clipped_left(text: str, room: int) -> str:
    """Return the text, or as much of its end as fits."""
    if width_of(text) <= room:
        return text
    kept, used = [], 1
    for c in reversed(text):
        used += width_of(c)
        if used > room:
            break
        kept.append(c)
    return "…" + "".join(reversed(kept))


def width_of(text: str) -> int:
    """Return how many cells of a terminal the text takes."""
    if text.isascii():
        return len(text)
    # Combining marks have no width; wide and full-width characters take two cells (UAX #11).
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
