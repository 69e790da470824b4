"""The histories of requests and ended tasks: rows of bounded size, and the oldest make room for the
newest.

Each history is bounded in rows and in bytes. A row's texts are cut when it is written, for anybody
who can reach Wok decides how long they are: 1,000 failed logins with names of 4,000 characters must
not become 24 MB of memory for everybody who opens the page. What people read is never as long;
spans and log records are not cut here.

All functions work inside the caller's transaction on the caller's connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple, get_type_hints

from exporter.records import RequestRow, TaskRow
from exporter.store.database import columns

SLACK = 10
"""A history may grow a tenth over its bound, so that old rows are deleted in steps, not by each
commit.
"""

ROW_BYTES = 64
"""What a row takes beside its texts: numbers, contexts, SQLite's own."""

TEXT_BYTES_MAX = 256
LONG_TEXT_BYTES_MAX = {"message": 2048, "target_uri": 4096, "stack": 4096}
"""A target_uri names its task again when a further final record comes, so it is cut as late as
possible.
"""

_ELLIPSIS = "…"


class History(NamedTuple):
    """A table of rows in the order of `key`."""

    table: str
    key: str
    row_type: type[tuple[Any, ...]]


REQUESTS = History("request", "ordinal", RequestRow)
TASKS = History("task", "id", TaskRow)

_Limits = Sequence[tuple[int, int]]


def add(
    db: sqlite3.Connection, history: History, rows: Sequence[tuple[Any, ...]], rows_max: int, bytes_max: int
) -> None:
    """Append rows, with their texts cut; then delete the oldest if the history
    is over its bound.
    """
    limits = _limits(history.row_type)
    texts_of_row = itemgetter(*[at for at, _ in limits])
    cut = list(rows)
    unusual: list[int] = []
    added = ROW_BYTES * len(rows)
    for number, row in enumerate(rows):
        # The usual row needs no closer look: all its texts together are as short as one may be.
        try:
            texts = "".join(texts_of_row(row))
        except TypeError:
            # SQLite rejects a value that is not text, with a better reason.
            texts = _ELLIPSIS
        if len(texts) <= TEXT_BYTES_MAX and texts.isascii():
            added += len(texts)
        else:
            cut[number] = _cut(row, limits)
            unusual.append(number)
    db.executemany(_insert(history), cut)
    added += sum(_text_bytes(cut[number], limits) for number in unusual)
    db.execute(
        "INSERT INTO history VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET bytes = bytes + ?2",
        (history.table, added),
    )
    trim(db, history, rows_max, bytes_max)


def texts_of(history: History) -> list[str]:
    """Return the columns that hold texts."""
    fields: tuple[str, ...] = getattr(history.row_type, "_fields")  # noqa: B009 - no type says "a NamedTuple class"
    return [fields[at] for at, _ in _limits(history.row_type)]


def types_of(history: History) -> list[tuple[str, str]]:
    """Return the columns with SQLite's names of their types."""
    kinds = {int: "integer", bytes: "blob"}
    return [(f'"{name}"', kinds.get(hint, "text")) for name, hint in get_type_hints(history.row_type).items()]


def clipped(text: str, bytes_max: int) -> str:
    """Return the text, cut to so many bytes of UTF-8; a cut one ends in an ellipsis."""
    if len(text) * 4 <= bytes_max or (text.isascii() and len(text) <= bytes_max):
        return text
    data = text.encode("utf-8", "replace")
    if len(data) <= bytes_max:
        return text
    return data[: bytes_max - len(_ELLIPSIS.encode())].decode("utf-8", "ignore") + _ELLIPSIS


def _insert(history: History) -> str:
    # REPLACE: a row with a damaged ordinal must not block the request that has this ordinal.
    names = columns(history.row_type)
    marks = ", ".join("?" for _ in names.split(","))
    return f"INSERT OR REPLACE INTO {history.table} ({names}) VALUES ({marks})"  # noqa: S608 - our own names


@cache
def _limits(row_type: type[tuple[Any, ...]]) -> _Limits:
    """Return the places of texts in a row, and their bounds."""
    return [
        (at, LONG_TEXT_BYTES_MAX.get(name, TEXT_BYTES_MAX))
        for at, (name, hint) in enumerate(get_type_hints(row_type).items())
        if hint not in (int, int | None, bytes)
    ]


def _cut(row: tuple[Any, ...], limits: _Limits) -> tuple[Any, ...]:
    for at, bytes_max in limits:
        value = row[at]
        if isinstance(value, str) and len(value) * 4 > bytes_max:
            row = (*row[:at], clipped(value, bytes_max), *row[at + 1 :])
    return row


def _text_bytes(row: Sequence[Any], limits: _Limits) -> int:
    texts = [row[at] for at, _ in limits]
    return sum(len(text) if text.isascii() else len(text.encode("utf-8", "replace")) for text in texts)


def _sql_bytes(history: History) -> str:
    """Return the expression for the bytes of a row."""
    return " + ".join([str(ROW_BYTES), *(f"length(CAST({name} AS BLOB))" for name in texts_of(history))])


def recount(db: sqlite3.Connection, history: History) -> None:
    """Count the bytes of a history anew."""
    (found,) = db.execute(
        f"SELECT coalesce(sum({_sql_bytes(history)}), 0) FROM {history.table}"  # noqa: S608 - our own names
    ).fetchone()
    db.execute("INSERT OR REPLACE INTO history VALUES (?, ?)", (history.table, found))


def trim(db: sqlite3.Connection, history: History, rows_max: int, bytes_max: int) -> None:
    """Delete the oldest rows if the history is over its bound."""
    table, key, _ = history
    oldest, newest = db.execute(
        f"SELECT (SELECT min({key}) FROM {table}), (SELECT max({key}) FROM {table})"  # noqa: S608 - our own names
    ).fetchone()
    if newest is None:
        return
    if newest - oldest >= rows_max + rows_max // SLACK:
        _delete(db, history, newest - rows_max)
    (size_bytes,) = db.execute("SELECT bytes FROM history WHERE name = ?", (table,)).fetchone()
    if size_bytes <= bytes_max + bytes_max // SLACK:
        return
    last = oldest
    rows = db.execute(f"SELECT {key}, {_sql_bytes(history)} FROM {table} ORDER BY {key}")  # noqa: S608 - our own names
    for last, row_bytes in rows:  # noqa: B007 - the last one is what is wanted
        size_bytes -= row_bytes
        if size_bytes <= bytes_max:
            break
    rows.close()
    _delete(db, history, min(last, newest - 1))


def _delete(db: sqlite3.Connection, history: History, last: int) -> None:
    """Delete all rows up to this one."""
    table, key, _ = history
    freed = f"SELECT coalesce(sum({_sql_bytes(history)}), 0) FROM {table} WHERE {key} <= ?"  # noqa: S608 - our own names
    db.execute(f"UPDATE history SET bytes = max(0, bytes - ({freed})) WHERE name = ?", (last, table))  # noqa: S608 - our own names
    db.execute(f"DELETE FROM {table} WHERE {key} <= ?", (last,))  # noqa: S608 - our own names
