"""The journal: encoded spans and log records that are still to be sent, as rows of the state.

Each row belongs to one signal. A signal's cursor is its first remaining row plus the number of items of it
that are done (`item`), for rows are deleted in the very transaction that moves the cursor past them. So a row
that is not there any more has been sent or given up, and row numbers are never used twice. Beside `item` the
cursor keeps sums over what remains, so that nobody ever has to scan. A signal without a cursor is off.

Over its bound, the journal's oldest rows are given up, whichever signal they belong to: the backend that is
down is the one whose rows are old. A request in flight at that moment may still be taken, and its items are
then counted as lost and as delivered; the error is at most one request, and on the side of alarm.

All functions work inside the caller's transaction on the caller's connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from exporter.records import JournalRow

ROW_MAX = 2**63 - 1
"""No row has a higher number."""


class JournalStatus(NamedTuple):
    """What of a signal is still to be sent; `oldest_ns` is its oldest record's time, None without one."""

    records: int
    bytes: int
    oldest_ns: int | None


class JournalEntry(NamedTuple):
    """A row of the journal to be sent; the first `skip` of its `items` are already done."""

    row: int
    skip: int
    resource: bytes
    items: int
    payload: bytes


def append(db: sqlite3.Connection, rows: Sequence[JournalRow]) -> None:
    """Append the rows of the signals that are on."""
    known = signals(db)
    kept = [row for row in rows if row.signal in known]
    db.executemany(
        "INSERT INTO journal (signal, resource, items, payload, first, last) VALUES (?, ?, ?, ?, ?, ?)", kept
    )
    db.executemany(
        'UPDATE journal_cursor SET "rows" = "rows" + 1, records = records + ?, bytes = bytes + ?'
        " WHERE signal = ?",
        ((row.items, len(row.payload) + len(row.resource), row.signal) for row in kept),
    )


def size(db: sqlite3.Connection) -> tuple[int, int]:
    """Return the number of rows and of bytes that are still to be sent, of all signals."""
    rows, size_bytes = db.execute(
        'SELECT coalesce(sum("rows"), 0), coalesce(sum(bytes), 0) FROM journal_cursor'
    ).fetchone()
    return rows, size_bytes


def give_up(db: sqlite3.Connection, rows_max: int, bytes_max: int) -> int:
    """Delete the oldest rows until the journal is within its bound; return the number of items lost."""
    rows, size_bytes = size(db)
    if rows <= rows_max and size_bytes <= bytes_max:
        return 0
    oldest = db.execute('SELECT "row", length(payload) + length(resource) FROM journal ORDER BY "row"')
    last = 0
    for last, row_bytes in oldest:  # noqa: B007 - the last one is what is wanted
        rows -= 1
        size_bytes -= row_bytes
        if rows <= rows_max and size_bytes <= bytes_max:
            break
    oldest.close()
    return sum(drop(db, signal, last) for signal in signals(db))


def read(db: sqlite3.Connection, signal: str, items_max: int, bytes_max: int) -> list[JournalEntry]:
    """Return the next rows to be sent: whole rows within both limits, but at least one if there is any."""
    entries: list[JournalEntry] = []
    skip = _item(db, signal)
    rows = db.execute(
        'SELECT "row", resource, items, payload FROM journal WHERE signal = ? ORDER BY "row"', (signal,)
    )
    for row, resource, items, payload in rows:
        items_max -= items - skip
        bytes_max -= len(payload) + len(resource)
        if entries and (items_max < 0 or bytes_max < 0):
            break
        entries.append(JournalEntry(row, skip, resource, items, payload))
        skip = 0
    rows.close()
    return entries


def advance(db: sqlite3.Connection, signal: str, row: int, item: int) -> None:
    """Move the cursor past the first `item` items of `row`, and all rows before; one given up moves nothing."""
    found = db.execute('SELECT items FROM journal WHERE "row" = ? AND signal = ?', (row, signal)).fetchone()
    if found is None:
        return
    if item >= found[0]:
        drop(db, signal, row)
        return
    drop(db, signal, row - 1)
    db.execute(
        "UPDATE journal_cursor SET records = records - max(0, ?1 - item), item = max(item, ?1) WHERE signal = ?2",
        (item, signal),
    )


def drop(db: sqlite3.Connection, signal: str, row: int) -> int:
    """Delete a signal's rows up to `row`; return how many of their items were still to be sent."""
    rows, items, size_bytes = db.execute(
        "SELECT count(*), coalesce(sum(items), 0), coalesce(sum(length(payload) + length(resource)), 0)"
        ' FROM journal WHERE signal = ? AND "row" <= ?',
        (signal, row),
    ).fetchone()
    if not rows:
        return 0
    undone: int = items - _item(db, signal)
    db.execute('DELETE FROM journal WHERE signal = ? AND "row" <= ?', (signal, row))
    db.execute(
        'UPDATE journal_cursor SET item = 0, "rows" = "rows" - ?, records = records - ?, bytes = bytes - ?'
        " WHERE signal = ?",
        (rows, undone, size_bytes, signal),
    )
    return undone


def status(db: sqlite3.Connection) -> dict[str, JournalStatus]:
    """Return what is still to be sent, for every signal that is on."""
    oldest = '(SELECT first FROM journal WHERE journal.signal = journal_cursor.signal ORDER BY "row" LIMIT 1)'
    return {
        signal: JournalStatus(records, size_bytes, oldest_ns)
        for signal, records, size_bytes, oldest_ns in db.execute(
            f"SELECT signal, records, bytes, {oldest} FROM journal_cursor"  # noqa: S608 - our own names
        )
    }


def signals(db: sqlite3.Connection) -> list[str]:
    """Return the signals that are on."""
    return [signal for (signal,) in db.execute("SELECT signal FROM journal_cursor ORDER BY signal")]


def switch_on(db: sqlite3.Connection, signal: str) -> None:
    """Give a signal a cursor; it begins with the next row."""
    db.execute("INSERT INTO journal_cursor VALUES (?, 0, 0, 0, 0)", (signal,))


def switch_off(db: sqlite3.Connection, signal: str) -> int:
    """Take a signal's cursor and rows away; return how many items were still to be sent."""
    undone = drop(db, signal, ROW_MAX)
    db.execute("DELETE FROM journal_cursor WHERE signal = ?", (signal,))
    return undone


def _item(db: sqlite3.Connection, signal: str) -> int:
    found = db.execute("SELECT item FROM journal_cursor WHERE signal = ?", (signal,)).fetchone()
    return found[0] if found else 0
