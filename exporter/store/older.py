"""Adds older requests and tasks to the histories of a state, from a second reading of the log.

The log is read again into a temporary state, up to the position of the state that gets the older
rows. Both know the requests that the state has read itself, by the same contexts. The temporary
state is better informed about the time before: it has the requests of tasks whose end the state has
read. It knows less about the rest, because log files are deleted. So

* older requests and tasks are added, with numbers below those of the state (`requests_between`);
* a task that the state knows without its request gets it, its start and its certainty;
* a task that runs across the first request of the state is added to the running tasks, so that its
  end will find it;
* everything else in the state stays as it is.

What was added before is found by its context and not added again. All of this is one transaction of
the caller: a process that is killed has changed nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from exporter.records import OpenTask, RequestRow, TaskRow
from exporter.store import history
from exporter.store.database import STATE_FILE, columns, connect

Renumber = Callable[[OpenTask, Callable[[int], int], int], OpenTask]
"""Returns an open task with other ordinals, and with a sequence number that is so much lower."""


@dataclass(frozen=True)
class Numbering:
    """Maps the ordinals of the temporary state to those of the state, which is `shift` ahead."""

    shift: int

    def __call__(self, ordinal: int) -> int:
        """Return the state's ordinal: there is none with the number 0."""
        moved = ordinal + self.shift
        return moved if moved > 0 else moved - 1


class Again(NamedTuple):
    """The result of the second reading: the directory of the temporary state, and other contexts of
    its tasks.

    `aliases` are the contexts that a task has where its request is unknown. `renumber` changes an
    open task.
    """

    directory: Path
    aliases: Mapping[bytes, Sequence[bytes]]
    renumber: Renumber


class Added(NamedTuple):
    """What was added: requests, ended tasks, running tasks, and tasks that got their request.

    `is_found` is False if the temporary state does not have the first request of the state. Then
    nothing was added. `is_full` is True if a history has no room for all of the older rows.
    `oldest` is the time of the first request that the state has now, in nanoseconds (None without
    any).
    """

    requests: int = 0
    tasks: int = 0
    running: Sequence[OpenTask] = ()
    completed: int = 0
    is_found: bool = True
    is_full: bool = False
    oldest: int | None = None


class _Tasks(NamedTuple):
    """Decisions about the tasks of the temporary state, by their ids there."""

    older: Sequence[int]
    completed: Mapping[int, int]
    """The id in the state by that in the temporary state."""


def add_older(
    db: sqlite3.Connection, again: Again, *, requests_max: int, tasks_max: int, bytes_max: int
) -> Added:
    """Add what `again` knows and the state in `db` does not; each history keeps its bounds.

    The caller has a transaction open in `db`.
    """
    with closing(connect(again.directory / STATE_FILE, writable=False)) as other:
        return _add(db, other, again, requests_max, tasks_max, bytes_max)


def _add(
    db: sqlite3.Connection,
    other: sqlite3.Connection,
    again: Again,
    requests_max: int,
    tasks_max: int,
    bytes_max: int,
) -> Added:
    last = _number(other, "SELECT max(ordinal) FROM request")
    first = db.execute("SELECT ordinal, context, time FROM request ORDER BY ordinal LIMIT 1").fetchone()
    boundary, number = last + 1, Numbering(-last)
    if first is not None:
        found = other.execute("SELECT ordinal FROM request WHERE context = ?", (first[1],)).fetchone()
        if found is None:
            # The temporary state has the same bound: it has forgotten this request, too.
            is_full = _number(db, "SELECT count(*) FROM request") >= requests_max
            return Added(is_found=is_full, is_full=is_full, oldest=first[2])
        boundary = found[0]
        number = Numbering(first[0] + (first[0] < 0) - boundary)

    tasks = _decided(db, other, again.aliases, boundary)
    running = _running(db, other, again, boundary, number)
    known = _number(db, "SELECT count(*) FROM request"), _number(db, "SELECT count(*) FROM task")
    room, tasks_room = max(0, requests_max - known[0]), max(0, tasks_max - known[1])
    older = tasks.older[len(tasks.older) - min(tasks_room, len(tasks.older)) :]
    _insert(db, history.REQUESTS, _requests(other, boundary, room, number))
    _insert(db, history.TASKS, _older_tasks(db, other, older, number))
    _complete(db, other, tasks.completed, number)
    for each, rows_max in ((history.REQUESTS, requests_max), (history.TASKS, tasks_max)):
        history.recount(db, each)
        history.trim(db, each, rows_max, bytes_max)
    added = (
        _number(db, "SELECT count(*) FROM request") - known[0],
        _number(db, "SELECT count(*) FROM task") - known[1],
    )
    oldest = db.execute("SELECT time FROM request ORDER BY ordinal LIMIT 1").fetchone()
    return Added(
        max(0, added[0]),
        max(0, added[1]),
        running,
        len(tasks.completed),
        is_full=added[0] < boundary - 1 or added[1] < len(tasks.older),
        oldest=oldest[0] if oldest else None,
    )


def _number(db: sqlite3.Connection, query: str) -> int:
    return int(db.execute(query).fetchone()[0] or 0)


def _decided(
    db: sqlite3.Connection, other: sqlite3.Connection, aliases: Mapping[bytes, Sequence[bytes]], boundary: int
) -> _Tasks:
    """Return which ended tasks are older than the state, and which complete one of its tasks."""
    known = {context: own for context, *own in db.execute(_IDS)}
    still_open = {context for (context,) in db.execute("SELECT context FROM open_task")}
    older: list[int] = []
    completed: dict[int, int] = {}
    rows = other.execute("SELECT id, context, request, start, until, outcome FROM task ORDER BY id")
    for row_id, context, request, start, until, outcome in rows:
        names = {context, *aliases.get(context, ())}
        if context in known or names & still_open:
            continue
        name = next((name for name in names if name in known), None)
        if name is not None:
            own, own_request, own_start = known[name]
            if not own_request and (request or start < own_start):
                completed[row_id] = own
        # The log does not report the end of a lost or expired task, so the state cannot know it.
        elif until < boundary or (outcome in ("lost", "unknown") and 0 < request < boundary):
            older.append(row_id)
    return _Tasks(older, completed)


_IDS = "SELECT context, id, request, start FROM task"


def _running(
    db: sqlite3.Connection, other: sqlite3.Connection, again: Again, boundary: int, number: Numbering
) -> list[OpenTask]:
    """Return the tasks that the state does not know to run, as they are stored in it."""
    known = {value for row in db.execute("SELECT key, context FROM open_task") for value in row}
    known |= {row[0] for row in db.execute(_IDS)}
    lowest = min([1, *(_sequence(data) for (data,) in db.execute("SELECT data FROM open_task"))])
    rows = [
        OpenTask._make(row)
        for row in other.execute(f"SELECT {columns(OpenTask)} FROM open_task ORDER BY rowid")  # noqa: S608 - our own names
    ]
    highest = max([0, *(_sequence(row.data) for row in rows)])
    return [
        again.renumber(row, number, highest + 1 - lowest)
        for row in rows
        if (row.request < boundary if row.request else row.since < boundary)
        and known.isdisjoint((row.key, row.context, *again.aliases.get(row.context, ())))
    ]


def _sequence(data: str) -> int:
    return int(json.loads(data).get("seq", 0))


def _requests(
    other: sqlite3.Connection, boundary: int, room: int, number: Numbering
) -> Iterator[tuple[object, ...]]:
    rows = other.execute(
        f"SELECT {columns(RequestRow)} FROM request WHERE ordinal < ? ORDER BY ordinal DESC LIMIT ?",  # noqa: S608 - our own names
        (boundary, room),
    )
    return ((number(row[0]), *row[1:]) for row in rows)


def _older_tasks(
    db: sqlite3.Connection, other: sqlite3.Connection, ids: Sequence[int], number: Numbering
) -> Iterator[tuple[object, ...]]:
    first = db.execute("SELECT coalesce(min(id), 1) FROM task").fetchone()[0] - len(ids)
    for at, row_id in enumerate(ids):
        yield (first + at, *_task(other, row_id, number))


def _complete(
    db: sqlite3.Connection, other: sqlite3.Connection, completed: Mapping[int, int], number: Numbering
) -> None:
    marks = ", ".join(f"{name} = ?" for name in columns(TaskRow).split(", "))
    db.executemany(
        f"UPDATE task SET {marks} WHERE id = ?",  # noqa: S608 - our own names
        ((*_task(other, row_id, number), own) for row_id, own in completed.items()),
    )


def _task(other: sqlite3.Connection, row_id: int, number: Numbering) -> TaskRow:
    row = TaskRow._make(
        other.execute(f"SELECT {columns(TaskRow)} FROM task WHERE id = ?", (row_id,)).fetchone()  # noqa: S608 - our own names
    )
    return row._replace(
        request=number(row.request) if row.request else 0, since=number(row.since), until=number(row.until)
    )


def _insert(db: sqlite3.Connection, each: history.History, rows: Iterator[tuple[object, ...]]) -> None:
    names = columns(each.row_type)
    if each.key == "id":
        names = f"id, {names}"
    marks = ", ".join("?" for _ in names.split(","))
    db.executemany(f"INSERT INTO {each.table} ({names}) VALUES ({marks})", rows)  # noqa: S608 - our own names
