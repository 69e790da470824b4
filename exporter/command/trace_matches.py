"""The list that `trace` shows if several traces match, and what it says if none does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import tzinfo

from exporter.store.search import PREFIX_MIN, Trace, TracesFound
from exporter.store.task_view import TaskView, view_of
from exporter.terminal import task_table as view
from exporter.terminal.text import visible

MATCHES_SHOWN = 20

ID_DIGITS_MIN = 12
"""Of a trace id, unless listed ones begin alike: two of 100,000 random ones do so once in 56,000
histories.
"""
_STARTED, _STATE, _OPERATION, _RESOURCE, _USER, _ID = range(6)
_TITLES = ("TIME", "STATE", "OPERATION", "RESOURCE", "USER", "ID")
_RESOURCE_LEAST = 12


def listed(
    found: Sequence[Trace], *, zone: tzinfo | None, width: int | None, now: int, requests: int
) -> Iterator[str]:
    """Yield a table of traces, below a line of titles.

    Times are in `zone` (None: the host's). `width` is the terminal's in cells, None for no limit.
    An id and the name of an operation are never cut: the first is what to type next.
    """
    digits = _digits(found)
    rows = [_TITLES, *(_cells(one, zone, now, requests, digits) for one in found)]
    widths = [max(view.width_of(row[at]) for row in rows) for at in range(len(_TITLES))]
    shown = [_STARTED, _STATE, _OPERATION, _RESOURCE, _USER, _ID]
    if width is not None:
        for leaving in (_USER, _STATE, _RESOURCE, _STARTED):
            excess = sum(widths[at] for at in shown) + len(view.GAP) * (len(shown) - 1) - width
            if excess <= 0:
                break
            least = min(widths[_RESOURCE], _RESOURCE_LEAST)
            if _RESOURCE in shown and widths[_RESOURCE] - least >= excess:
                widths[_RESOURCE] -= excess
                break
            shown.remove(leaving)
    for row in rows:
        cells = [view.clipped(row[at], widths[at]) for at in shown]
        padded = [
            cell + " " * (widths[at] - view.width_of(cell)) for cell, at in zip(cells, shown, strict=True)
        ]
        yield view.GAP.join(padded).rstrip()


def _cells(trace: Trace, zone: tzinfo | None, now: int, requests: int, digits: int) -> tuple[str, ...]:
    request = trace.request
    tasks = [view_of(one, now=now, requests=requests) for one in trace.tasks]
    task = tasks[0] if tasks else None
    time = request.time if request is not None else task.start if task is not None else 0
    operation = task.operation if task is not None else request.operation if request is not None else ""
    resource = next(filter(None, (one.resource for one in tasks)), "")
    resource = resource or (request.resource if request is not None else "")
    resource = resource or (task.target_uri if task is not None else "")
    cells = (
        f"{view.local(time, zone):%Y-%m-%d %H:%M:%S}",
        _state(tasks) if tasks else str(request.status or "") if request is not None else "",
        operation + (f" (+{trace.task_count - 1})" if trace.task_count > 1 else ""),
        resource,
        request.user if request is not None else "",
        _id(trace)[:digits],
    )
    return tuple(visible(cell) or view.NOTHING for cell in cells)


def _state(tasks: Sequence[TaskView]) -> str:
    """Return the state of a request's tasks that matters most."""
    states = [task.state for task in tasks]
    return next(state for state in ("failed", "lost", "running", "unknown", "done") if state in states)


def choice(sought: str, found: TracesFound) -> str:
    """Return what to do if several traces match."""
    trace = next((one for one in found.traces if _context(one)), None)
    pick = (
        f": to show one, use its id, as in wok-exporter trace {_id(trace)[: _digits(found.traces)]}"
        if trace is not None
        else ""
    )
    more = found.found - len(found.traces)
    older = f"; the newest {len(found.traces)} are listed" if more else ""
    return f"{found.found:,} requests match {visible(sought)}{older}{pick}\n"


def nothing_found(sought: str, where: str, oldest: int | None, zone: tzinfo | None) -> str:
    """Return what was looked for, and where."""
    since = "which contains no requests"
    if oldest is not None:
        since = f"whose first request is from {view.local(oldest, zone):%Y-%m-%d %H:%M:%S}"
    return (
        f"Nothing matches {visible(sought)} in {visible(where)}, {since}. Looked for trace, span, record and task ids"
        f" (or their first {PREFIX_MIN} characters or more), and for the names of resources and target URIs.\n"
    )


def _context(trace: Trace) -> bytes:
    if trace.request is not None:
        return trace.request.context
    return trace.tasks[0].row.context if trace.tasks else b""


def _id(trace: Trace) -> str:
    return _context(trace)[:16].hex()


def _digits(found: Sequence[Trace]) -> int:
    """Return how many digits of the ids are needed to tell them apart."""
    ids = {_id(trace) for trace in found}
    return next((n for n in range(ID_DIGITS_MIN, 32) if len({one[:n] for one in ids}) == len(ids)), 32)
