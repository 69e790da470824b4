"""Searches of the histories: filters, pages, and one task with its surroundings.

The histories have no indexes, because they are written at the speed of the log and read by people.
The columns that filters use come first in a row, so that SQLite walks 100,000 rows in some 10 ms,
without Python's lock. A search for a text is slower. It stops after `TEXT_ROWS_MAX` rows; the page
says so, and the next page goes on.

A page is bounded in rows and in bytes (`PAGE_BYTES_MAX`), because anybody who can reach Wok decides
how long the texts are.

Pages stay complete while the log goes on. Ended tasks are in the reverse order of their ends in the
log, which is the order of their ids, so new ones come before the first page. A running task may end
between two pages, and would then be shown twice, or never. So a list of both keeps the id of the
task that was the newest to have ended at the first page (`Place.newest`). Tasks that have ended
since then are still listed among the running ones, in the order of (start, context), which an end
does not change.

All functions work inside the caller's transaction on the caller's connection.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from exporter.records import OpenTask, RequestRow, TaskRow
from exporter.store.database import columns
from exporter.store.task_view import Asked, Ended, Running, agreed, other_candidates, view_of

TEXT_ROWS_MAX = 20_000
"""A fifth of a full history: some 15 ms where the texts of a row are a line each."""

PAGE_BYTES_MAX = 1024 * 1024
"""Of the rows of a page, as they are stored. JSON makes at most six times as much of it."""

COMPARED_CHARS_MAX = 300
"""Of a text that is compared between the candidates of a task: a page may have thousands."""

TRACE_ID_BYTES = 16
PREFIX_MIN = 4
"""Characters of an id that are enough to look for it."""
PART_MIN = 2
"""Characters of a part of a resource that are enough to look for it."""
ORDINAL_DIGITS_MAX = 18

INTEGER_MAX = 2**63 - 1
"""SQLite has no larger one."""

INTEGER_MIN = -INTEGER_MAX - 1
"""A number below all ordinals and ids. These are negative in rows that `backfill` added."""

_BEFORE_ALL = (INTEGER_MIN, b"")

_BY_WHOM = "coalesce(r.user, ''), coalesce(r.address, ''), coalesce(r.message, ''), coalesce(r.resource, '')"
_RUNNING = (
    f"SELECT {columns(OpenTask, 't')}, {_BY_WHOM} FROM open_task AS t"  # noqa: S608 - our own names
    " LEFT JOIN request AS r ON r.ordinal = t.request"
)
_ENDED = (
    f"SELECT t.id, {columns(TaskRow, 't')}, {_BY_WHOM} FROM task AS t"  # noqa: S608 - our own names
    " LEFT JOIN request AS r ON r.ordinal = t.request"
)
_REQUEST = f"SELECT {columns(RequestRow)} FROM request"  # noqa: S608 - our own names
_WHY = "iif(t.outcome IN ('failure', 'lost'), t.message, '')"

_Condition = tuple[str, Sequence[Any]]
_Task = TypeVar("_Task", Running, Ended)


class Sought(NamedTuple):
    """The filters: one of each (empty: any), overlapping `since_ns <= t < until_ns`, and containing
    `text`.

    `text` is part of a task's target_uri, resource in words, operation, error code and reason, its
    user or its request's sentence; or of a request's operation, user and sentence. ASCII letters
    match in any case, others as given, in lower case, in upper case, or with the first one in upper
    case.
    """

    apps: Sequence[str] = ()
    operations: Sequence[str] = ()
    outcomes: Sequence[str] = ()
    users: Sequence[str] = ()
    text: str = ""
    since_ns: int | None = None
    until_ns: int | None = None


class Place(NamedTuple):
    """Where a page of tasks stopped: `running` is (start, context) of the last running task shown,
    None when all of them have been shown; then `before` is the id of the last ended one.
    """

    newest: int
    running: tuple[int, bytes] | None
    before: int


class TasksFound(NamedTuple):
    """A page of tasks: running ones first, oldest start first, then ended ones, newest first.

    `next` is None on the last page. `requests` is the ordinal of the last request in the log.
    `is_truncated` is True when the search through the texts stopped before the page was full.
    """

    tasks: list[Running | Ended]
    next: Place | None
    requests: int
    is_truncated: bool


class RequestsFound(NamedTuple):
    """A page of requests, newest first; `before` is for the next page, None on the last one."""

    requests: list[RequestRow]
    before: int | None
    is_truncated: bool


class Story(NamedTuple):
    """One task, its request, the first other requests between its start and its end, the durations
    of successful tasks of its operation (nanoseconds, newest first), and the other requests that it
    might belong to.
    """

    task: Running | Ended
    request: RequestRow | None
    meanwhile: list[RequestRow]
    durations: list[int]
    requests: int
    candidates: list[RequestRow]


class Trace(NamedTuple):
    """A request with its first tasks, in the order of their starts; there are `task_count` of them.

    `request` is None where a task has none, or the history has forgotten it.
    """

    request: RequestRow | None
    tasks: list[Running | Ended]
    task_count: int


class TracesFound(NamedTuple):
    """The newest of the `found` traces, newest first.

    `requests` is the ordinal of the last request in the log, `oldest` the time in nanoseconds of
    the first request that is still known (None without one).
    """

    traces: list[Trace]
    found: int
    requests: int
    oldest: int | None


def tasks(
    db: sqlite3.Connection, sought: Sought, *, running: bool, ended: bool, place: Place | None, limit: int
) -> TasksFound:
    """Return at most `limit` (at least 1) tasks of those that run, that have ended, or both, after
    `place`.
    """
    requests = last_ordinal(db)
    newest = place.newest if place else last_id(db)
    found: list[Running | Ended] = []
    if running and not sought.outcomes and (place is None or place.running is not None):
        key = place.running if place and place.running else _BEFORE_ALL
        found += _running(db, sought, key, limit + 1)
        if ended:
            conditions = [("t.id > ?", (newest,)), ("(t.start, t.context) > (?, ?)", key)]
            found += _ended(db, sought, conditions, "t.start, t.context", limit + 1)
            found.sort(key=lambda one: (one.row.start, one.row.context))
        limit = _fitting(found, limit)
        if len(found) > limit:
            last = found[limit - 1].row
            return TasksFound(
                found[:limit], Place(newest, (last.start, last.context), 0), requests, is_truncated=False
            )
    if not ended:
        return TasksFound(found, None, requests, is_truncated=False)
    before = place.before if place and place.running is None else newest + 1
    floor = before - 1 - TEXT_ROWS_MAX if sought.text else INTEGER_MIN
    room = limit - len(found)
    rows = _ended(db, sought, [("t.id < ?", (before,)), ("t.id > ?", (floor,))], "t.id DESC", room + 1)
    room = min(room, _fitting([*found, *rows], limit) - len(found))
    shown = found + rows[:room]
    if len(rows) > room:
        at = rows[room - 1].id if room else before
        return TasksFound(shown, Place(newest, None, at), requests, is_truncated=False)
    if floor >= _first(db, "task", "id"):
        return TasksFound(shown, Place(newest, None, floor + 1), requests, is_truncated=True)
    return TasksFound(shown, None, requests, is_truncated=False)


def requests(db: sqlite3.Connection, sought: Sought, *, before: int | None, limit: int) -> RequestsFound:
    """Return at most `limit` (at least 1) requests, with ordinals under `before`; `outcomes` plays
    no part.
    """
    before = last_ordinal(db) + 1 if before is None else before
    floor = before - 1 - TEXT_ROWS_MAX if sought.text else INTEGER_MIN
    conditions: list[_Condition] = [
        ("ordinal < ?", (before,)),
        ("ordinal > ?", (floor,)),
        *_one_of("app", sought.apps),
        *_one_of("operation", sought.operations),
        *_one_of("user", sought.users),
    ]
    if sought.since_ns is not None:
        conditions.append(("time >= ?", (sought.since_ns,)))
    if sought.until_ns is not None:
        conditions.append(("time < ?", (sought.until_ns,)))
    conditions += _with_text(sought.text, "operation", "user", "message")
    where, values = _where(conditions)
    found = db.execute(
        f"{_REQUEST} WHERE {where} ORDER BY ordinal DESC LIMIT ?",
        (*values, limit + 1),
    )
    rows = _first_bytes(found)
    limit = _fitting(rows, limit)
    shown = [RequestRow._make(row) for row in rows[:limit]]
    if len(rows) > limit:
        return RequestsFound(shown, shown[-1].ordinal, is_truncated=False)
    if floor >= _first(db, "request", "ordinal"):
        return RequestsFound(shown, floor + 1, is_truncated=True)
    return RequestsFound(shown, None, is_truncated=False)


def story(db: sqlite3.Connection, context: bytes, *, meanwhile_max: int, durations_max: int) -> Story | None:
    """Return the task whose span has this context, with its surroundings; None when the history has
    none.

    Of `meanwhile` and `durations` there are at most as many as given. Tasks of which nothing but
    their final record is known have no duration.
    """
    last = last_ordinal(db)
    with_context: list[_Condition] = [("t.context = ?", (context,))]
    task: Running | Ended
    open_tasks = _running(db, Sought(), _BEFORE_ALL, 1, with_context)
    if open_tasks:
        task, until = open_tasks[0], last
    else:
        ended = _ended(db, Sought(), with_context, "t.id DESC", 1)
        if not ended:
            return None
        task, until = ended[0], ended[0].row.until
    candidates = view_of(task, now=0, requests=0).candidates
    row = task.row
    others = db.execute(
        f"{_REQUEST} WHERE ordinal > ? AND ordinal <= ? AND ordinal != ? ORDER BY ordinal LIMIT ?",
        (row.since, until, row.request, meanwhile_max),
    )
    meanwhile = [RequestRow._make(other) for other in others]
    own = db.execute(f"{_REQUEST} WHERE ordinal = ?", (row.request,)).fetchone()
    durations = db.execute(
        "SELECT \"end\" - start FROM task WHERE outcome = 'success' AND app = ? AND operation = ?"
        ' AND NOT (start = "end" AND request = 0) ORDER BY id DESC LIMIT ?',
        (row.app, row.operation, durations_max),
    )
    return Story(
        task,
        RequestRow._make(own) if own else None,
        meanwhile,
        [duration for (duration,) in durations],
        last,
        _with_contexts(db, candidates),
    )


def _with_contexts(db: sqlite3.Connection, contexts: Sequence[bytes]) -> list[RequestRow]:
    """Return the requests that have these contexts, oldest first."""
    if not contexts:
        return []
    condition, values = next(_one_of("context", contexts))
    rows = db.execute(f"{_REQUEST} WHERE {condition} ORDER BY ordinal", values)
    return [RequestRow._make(row) for row in rows]


def traces(
    db: sqlite3.Connection, *, context: bytes, record_id: str, target_uri: str, limit: int, tasks_max: int
) -> TracesFound:
    """Return at most `limit` matching traces, with up to `tasks_max` tasks each.

    `context` is a trace id, or a whole context: that of a request or of any task. `record_id` is a
    request's, `target_uri` that of any task. An empty value matches nothing.
    """
    own: list[_Condition] = [("substr(context, 1, ?) = ?", (len(context), context))] if context else []
    by_request = [*own, *([("record_id = ?", (record_id,))] if record_id else [])]
    by_task = [*own, *([("target_uri = ?", (target_uri,))] if target_uri else [])]
    return _newest(db, _found(db, by_request, by_task, by_task), target_uri, limit, tasks_max)


def matching(db: sqlite3.Connection, word: str, *, limit: int, tasks_max: int) -> TracesFound:
    """Return the newest traces that a word may mean, with up to `tasks_max` tasks each.

    It may be the beginning of an id (`PREFIX_MIN` characters or more, dashes do not count): of a
    trace, a span, a record or a task. It may be a task id, the ordinal of a request, or a resource
    in words or a part of it, in whole words. If nothing is found, it may be any part of a resource
    or a target_uri.
    """
    by_request: list[_Condition] = []
    by_task: list[_Condition] = []
    digits = word.replace("-", "").upper()
    if len(digits) >= PREFIX_MIN and not digits.strip("0123456789ABCDEF"):
        for first in (1, 2 * TRACE_ID_BYTES + 1):
            own = (f"substr(hex(context), {first}, ?) = ?", (len(digits), digits))
            by_request.append(own)
            by_task.append(own)
    if len(word) >= PREFIX_MIN:
        by_request.append(("substr(lower(record_id), 1, ?) = ?", (len(word), _ascii_lower(word))))
        by_task.append(("substr(lower(task_id), 1, ?) = ?", (len(word), _ascii_lower(word))))
    else:
        by_task.append(("task_id = ?", (word,)))
    if word.isascii() and word.isdigit() and len(word) <= ORDINAL_DIGITS_MAX:
        by_request.append(("ordinal = ?", (int(word),)))
    words = list(_with_text(f" {word} ", "' ' || resource || ' '"))
    found = _found(db, [*by_request, *words], by_task, [*by_task, *words, *_found_ids(word)])
    if not found and len(word) >= PART_MIN:
        resources, targets = list(_with_text(word, "resource")), list(_with_text(word, "target_uri"))
        found = _found(db, resources, targets, [*resources, *targets])
    return _newest(db, found, "", limit, tasks_max)


def _found_ids(word: str) -> list[_Condition]:
    """Return the condition that the id of a task that only wok-error.log has is or begins so."""
    length = len(word) if len(word) >= PREFIX_MIN else 1 << 20
    return [("substr(lower(found_id), 1, ?) = ?", (length, _ascii_lower(word)))]


def _found(
    db: sqlite3.Connection,
    by_request: Sequence[_Condition],
    running: Sequence[_Condition],
    ended: Sequence[_Condition],
) -> dict[tuple[int, bytes], int]:
    """Return the time of each trace of which a request or a task meets any of the conditions.

    A trace with a request has its ordinal as the key, other tasks have their own context.
    """
    found: dict[tuple[int, bytes], int] = {}
    if by_request:
        where, values = _any_of(by_request)
        rows = db.execute(f"SELECT ordinal, time FROM request WHERE {where}", values)  # noqa: S608 - our own names
        found.update(((ordinal, b""), time) for ordinal, time in rows)
    for table, conditions in (("open_task", running), ("task", ended)):
        if conditions:
            where, values = _any_of(conditions)
            rows = db.execute(f"SELECT request, context, start FROM {table} WHERE {where}", values)  # noqa: S608 - our own names
            for request, task, start in rows:
                key = (request, b"" if request else task)
                found[key] = max(start, found.get(key, start))
    return found


def _any_of(conditions: Sequence[_Condition]) -> tuple[str, list[Any]]:
    return (
        " OR ".join(sql for sql, _ in conditions),
        [value for _, values in conditions for value in values],
    )


def _newest(
    db: sqlite3.Connection,
    found: Mapping[tuple[int, bytes], int],
    target_uri: str,
    limit: int,
    tasks_max: int,
) -> TracesFound:
    # Newest first in the order of the log: what has a request by its ordinal, other tasks by their
    # own start.
    newest = sorted(found, key=lambda key: (found[key], key), reverse=True)[:limit]
    oldest = db.execute("SELECT time FROM request ORDER BY ordinal LIMIT 1").fetchone()
    return TracesFound(
        [_trace(db, request, task, target_uri, tasks_max) for request, task in newest],
        len(found),
        last_ordinal(db),
        oldest[0] if oldest else None,
    )


def _trace(db: sqlite3.Connection, request: int, context: bytes, target_uri: str, tasks_max: int) -> Trace:
    own: list[_Condition] = [("t.request = ?", (request,))]
    if not request:
        # A start record that still seeks its request has no context yet; it was found by its
        # target_uri.
        own = [("t.context = ?", (context,)), *([] if context else [("t.target_uri = ?", (target_uri,))])]
    where, values = _where(own)
    count = sum(
        db.execute(f"SELECT count(*) FROM {table} AS t WHERE {where}", values).fetchone()[0]  # noqa: S608 - our own names
        for table in ("open_task", "task")
    )
    tasks: list[Running | Ended] = [
        *_running(db, Sought(), _BEFORE_ALL, tasks_max, own),
        *_ended(db, Sought(), own, "t.start, t.id", tasks_max),
    ]
    tasks.sort(key=lambda one: one.row.start)
    row = db.execute(f"{_REQUEST} WHERE ordinal = ?", (request,)).fetchone()
    return Trace(RequestRow._make(row) if row else None, tasks[:tasks_max], count)


def durations_by_operation(db: sqlite3.Connection, tasks_max: int) -> dict[tuple[str, str], list[int]]:
    """Return the durations of the newest successful tasks, by application and operation."""
    found: dict[tuple[str, str], list[int]] = {}
    rows = db.execute(
        "SELECT app, operation, \"end\" - start FROM task WHERE outcome = 'success'"
        ' AND NOT (start = "end" AND request = 0) ORDER BY id DESC LIMIT ?',
        (tasks_max,),
    )
    for app, operation, duration in rows:
        found.setdefault((app, operation), []).append(duration)
    return found


def last_ordinal(db: sqlite3.Connection) -> int:
    """Return the ordinal of the last request, 0 before the first."""
    return int(db.execute("SELECT coalesce(max(ordinal), 0) FROM request").fetchone()[0])


def last_id(db: sqlite3.Connection) -> int:
    """Return the id of the task that ended last, 0 before the first."""
    return int(db.execute("SELECT coalesce(max(id), 0) FROM task").fetchone()[0])


def _first(db: sqlite3.Connection, table: str, key: str) -> int:
    oldest = f"SELECT coalesce(min({key}), {INTEGER_MAX}) FROM {table}"  # noqa: S608 - our own names
    return int(db.execute(oldest).fetchone()[0])


def _running(
    db: sqlite3.Connection,
    sought: Sought,
    after: tuple[int, bytes],
    limit: int,
    more: Sequence[_Condition] = (),
) -> list[Running]:
    conditions: list[_Condition] = [
        ("(t.start, t.context) > (?, ?)", after),
        *more,
        *_one_of("t.app", sought.apps),
        *_one_of("t.operation", sought.operations),
        *_one_of("r.user", sought.users),
    ]
    if sought.until_ns is not None:
        conditions.append(("t.start < ?", (sought.until_ns,)))
    conditions += _with_text(sought.text, "t.target_uri", "t.operation", "r.user", "r.message", "r.resource")
    where, values = _where(conditions)
    found = db.execute(f"{_RUNNING} WHERE {where} ORDER BY t.start, t.context LIMIT ?", (*values, limit))
    return _agreed(db, [Running(OpenTask._make(row[:-4]), *row[-4:]) for row in _first_bytes(found)])


def _ended(
    db: sqlite3.Connection, sought: Sought, more: Sequence[_Condition], order: str, limit: int
) -> list[Ended]:
    conditions: list[_Condition] = [
        *more,
        *_one_of("t.outcome", sought.outcomes),
        *_one_of("t.app", sought.apps),
        *_one_of("t.operation", sought.operations),
    ]
    if sought.since_ns is not None:
        conditions.append(('t."end" >= ?', (sought.since_ns,)))
    if sought.until_ns is not None:
        conditions.append(("t.start < ?", (sought.until_ns,)))
    # One walk through the requests is cheaper than to look up the request of each of 100,000 tasks.
    for condition, users in _one_of("user", sought.users):
        conditions.append((f"t.request IN (SELECT ordinal FROM request WHERE {condition})", users))  # noqa: S608 - our own names
    texts = (
        "t.operation",
        "t.target_uri",
        "t.error_code",
        _WHY,
        "r.user",
        "r.message",
        "t.resource",
        "r.resource",
    )
    conditions += _with_text(sought.text, *texts)
    where, values = _where(conditions)
    found = db.execute(f"{_ENDED} WHERE {where} ORDER BY {order} LIMIT ?", (*values, limit))
    return _agreed(db, [Ended(row[0], TaskRow._make(row[1:-4]), *row[-4:]) for row in _first_bytes(found)])


def _agreed(db: sqlite3.Connection, found: list[_Task]) -> list[_Task]:
    """Return the tasks; an ambiguous one says of its request what all candidates agree on."""
    others = [other_candidates(one) for one in found]
    if all(each is None for each in others):
        return found
    wanted = {context.hex().upper() for each in others for context in each or ()}
    texts = ", ".join(f"iif(length({name}) <= {COMPARED_CHARS_MAX}, {name}, NULL)" for name in Asked._fields)
    # One walk through the requests for all tasks of the page.
    rows = db.execute(
        f"SELECT context, {texts} FROM request WHERE hex(context) IN (SELECT value FROM json_each(?))",  # noqa: S608 - our own names
        (json.dumps(sorted(wanted)),),
    )
    known = {row[0]: Asked(*row[1:]) for row in rows}
    return [one if each is None else _with(one, each, known) for one, each in zip(found, others, strict=True)]


def _with(task: _Task, others: Sequence[bytes], known: Mapping[bytes, Asked]) -> _Task:
    user, address, message, resource = agreed([_asked(task), *(known.get(each) for each in others)])
    return task._replace(user=user, address=address, message=message, resource=resource)


def _asked(task: Running | Ended) -> Asked | None:
    """Return what the chosen request says, None if the history does not have it."""
    said = Asked(task.user, task.address, task.message, task.resource)
    return said if any(said) else None


def _first_bytes(found: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the first rows: a page, and the one after it that tells that there are more."""
    rows = []
    room = PAGE_BYTES_MAX
    for row in found:
        rows.append(row)
        if room < 0:
            break
        room -= _bytes_of(row)
    return rows


def _fitting(rows: Sequence[tuple[Any, ...]], limit: int) -> int:
    """Return how many rows make a page: at most `limit`, and at least one."""
    room = PAGE_BYTES_MAX
    for count, row in enumerate(rows[:limit]):
        room -= _bytes_of(row)
        if room < 0:
            return max(1, count)
    return limit


def _bytes_of(row: tuple[Any, ...]) -> int:
    """Return about the size of a row's texts; a letter that is not ASCII counts as a long one."""
    return sum(
        (len(value) if value.isascii() else 3 * len(value))
        if isinstance(value, str)
        else _bytes_of(value)
        if isinstance(value, tuple)
        else len(value)
        if isinstance(value, bytes)
        else 8
        for value in row
    )


def _one_of(column: str, values: Sequence[Any]) -> Iterator[_Condition]:
    if values:
        yield f"{column} IN ({', '.join('?' * len(values))})", values


def _with_text(text: str, *expressions: str) -> Iterator[_Condition]:
    """Yield the condition that one of the expressions contains `text`; it is the last one, as the
    slowest.
    """
    if text:
        # SQLite's lower() knows the letters of ASCII alone. LIKE would do the same, but takes 25
        # times as long for a text that nearly matches everywhere.
        spellings = {_ascii_lower(each) for each in (text, text.lower(), text.upper(), text.capitalize())}
        found = [f"instr(lower({expression}), ?)" for expression in expressions for _ in spellings]
        yield f"({' OR '.join(found)})", sorted(spellings) * len(expressions)


def _ascii_lower(text: str) -> str:
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


def _where(conditions: Sequence[_Condition]) -> tuple[str, list[Any]]:
    return (
        " AND ".join(sql for sql, _ in conditions),
        [value for _, values in conditions for value in values],
    )
