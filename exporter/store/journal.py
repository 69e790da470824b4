"""The journal: encoded spans and log records that wait for delivery, as rows of the state.

Each row belongs to one signal. A signal's cursor is its first remaining row plus the number of
items of that row that are done (`item`): rows are deleted in the transaction that moves the cursor
past them. So a missing row was sent or dropped, and row numbers are never used twice. The cursor
also keeps sums over what remains, so that nobody has to scan. A signal without a cursor is off.

When the journal is full, its oldest rows are dropped, whichever signal they belong to: old rows
belong to the backend that is down. A request in flight at that moment may still be accepted. Its
items are then counted as lost and as delivered. The error is at most one request, and on the side
of alarm.

A row has at most about ROW_BYTES_MAX bytes, so that whoever reads one needs little memory. It has a
checksum: a disk can change a byte, and a user who never existed must not be sent. A damaged row is
moved to the table `damaged` and counted as lost, and the rows behind it are sent.

All functions work inside the caller's transaction on the caller's connection.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from exporter.records import JournalRow

ROW_MAX = 2**63 - 1
"""No row has a higher number."""


ROW_BYTES_MAX = 1024 * 1024
"""A restart of wokd with 60,000 open tasks makes 129 MiB at once. A single larger item stays one
row.
"""

DAMAGED_KEPT = 100
"""Damaged rows that are kept for inspection."""


class JournalStatus(NamedTuple):
    """The queued items of a signal; `oldest_ns` is the time of the oldest one, None without one."""

    records: int
    bytes: int
    oldest_ns: int | None


class JournalEntry(NamedTuple):
    """A row of the journal; the first `skip` of its `items` are done."""

    row: int
    skip: int
    resource: bytes
    items: int
    payload: bytes


class DamagedRowError(Exception):
    """A row is not as it was written: `set_aside` it, and read again."""

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


def append(db: sqlite3.Connection, rows: Iterable[JournalRow]) -> bool:
    """Append the rows of the signals that are on; a large row becomes several. Return whether there
    were any.
    """
    sums = {signal: [0, 0, 0] for signal in signals(db)}

    def inserted() -> Iterator[tuple[Any, ...]]:
        for row in rows:
            of_signal = sums.get(row.signal)
            for part in divided(row) if of_signal is not None else ():
                assert of_signal is not None
                of_signal[0] += 1
                of_signal[1] += part.items
                of_signal[2] += len(part.payload) + len(part.resource)
                yield (*part, checksum(part.signal, part.resource, part.items, part.payload))

    db.executemany(
        "INSERT INTO journal (signal, resource, items, payload, first, last, checksum) VALUES (?, ?, ?, ?, ?, ?, ?)",
        inserted(),
    )
    added = [(*of_signal, signal) for signal, of_signal in sums.items() if of_signal[0]]
    db.executemany(
        'UPDATE journal_cursor SET "rows" = "rows" + ?, records = records + ?, bytes = bytes + ? WHERE signal = ?',
        added,
    )
    return bool(added)


def checksum(signal: str, resource: bytes, items: int, payload: bytes) -> int:
    """Return what tells whether a row is as it was written."""
    return zlib.crc32(payload, zlib.crc32(resource, zlib.crc32(f"{signal} {items} {len(resource)}".encode())))


def divided(row: JournalRow) -> list[JournalRow]:
    """Return a row as rows of at most ROW_BYTES_MAX, or of one item."""
    if len(row.payload) <= ROW_BYTES_MAX or row.items < 2:
        return [row]
    parts: list[JournalRow] = []
    begin = at = items = 0
    for _ in range(row.items):
        end = _end_of_item(row.payload, at)
        if items and end - begin > ROW_BYTES_MAX:
            parts.append(row._replace(payload=row.payload[begin:at], items=items))
            begin, items = at, 0
        at = end
        items += 1
    return [*parts, row._replace(payload=row.payload[begin:], items=items)]


def _end_of_item(payload: bytes, at: int) -> int:
    """Return where the item that begins there ends: a tag of one byte, the length as a varint, the
    item.
    """
    length = shift = 0
    for begin, byte in enumerate(payload[at + 1 : at + 11], at + 2):
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return begin + length
        shift += 7
    return len(payload)


def size(db: sqlite3.Connection) -> tuple[int, int]:
    """Return the number of rows and of bytes that wait, of all signals."""
    rows, size_bytes = db.execute(
        'SELECT coalesce(sum("rows"), 0), coalesce(sum(bytes), 0) FROM journal_cursor'
    ).fetchone()
    return rows, size_bytes


def give_up(db: sqlite3.Connection, rows_max: int, bytes_max: int) -> int:
    """Drop the oldest rows until the journal is within its bound; return the
    number of items lost.
    """
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
    """Return the next rows to send: whole rows within both limits, but at least one if there is
    any.

    Raises DamagedRowError for a damaged row.
    """
    entries: list[JournalEntry] = []
    skip = _item(db, signal)
    rows = db.execute(
        'SELECT "row", resource, items, payload, checksum FROM journal WHERE signal = ? ORDER BY "row"',
        (signal,),
    )
    for row, resource, items, payload, written in rows:
        if not _is_sound(signal, resource, items, payload, written):
            raise DamagedRowError(row)
        items_max -= items - skip
        bytes_max -= len(payload) + len(resource)
        if entries and (items_max < 0 or bytes_max < 0):
            break
        entries.append(JournalEntry(row, skip, resource, items, payload))
        skip = 0
    rows.close()
    return entries


def _is_sound(signal: str, resource: Any, items: Any, payload: Any, written: Any) -> bool:
    if not (isinstance(resource, bytes) and isinstance(payload, bytes) and isinstance(items, int)):
        return False
    # Rows of version 1 have no checksum.
    return written is None or written == checksum(signal, resource, items, payload)


def set_aside(db: sqlite3.Connection, row: int, now_seconds: float) -> int:
    """Move a damaged row out of the journal; return how many items are lost with it."""
    db.execute(
        "INSERT INTO damaged (at, signal, resource, items, payload)"
        ' SELECT ?, signal, resource, items, payload FROM journal WHERE "row" = ?',
        (int(now_seconds), row),
    )
    db.execute("DELETE FROM damaged WHERE id <= (SELECT max(id) FROM damaged) - ?", (DAMAGED_KEPT,))
    before = sum(_records(db).values())
    db.execute('DELETE FROM journal WHERE "row" = ?', (row,))
    recount(db)
    return max(1, before - sum(_records(db).values()))


COUNTED_BYTES_MAX = 2**50
"""No journal is so large."""


def recount(db: sqlite3.Connection) -> int:
    """Count the queued items again, from the rows themselves; return how many fewer there are than
    thought.

    Rows of signals without a cursor are deleted: damage has changed their name.
    """
    before = _records(db)
    db.execute("DELETE FROM journal WHERE signal NOT IN (SELECT signal FROM journal_cursor)")
    for signal in signals(db):
        rows, items, size_bytes = db.execute(
            "SELECT count(*), coalesce(sum(items), 0), coalesce(sum(length(payload) + length(resource)), 0)"
            " FROM journal WHERE signal = ?",
            (signal,),
        ).fetchone()
        first = db.execute(
            'SELECT items FROM journal WHERE signal = ? ORDER BY "row" LIMIT 1', (signal,)
        ).fetchone()
        item = _item(db, signal)
        item = item if first and isinstance(item, int) and 0 <= item < first[0] else 0
        db.execute(
            'UPDATE journal_cursor SET item = ?, "rows" = ?, records = ?, bytes = ? WHERE signal = ?',
            (item, rows, items - item, size_bytes, signal),
        )
    after = _records(db)
    return sum(max(0, count - after.get(signal, 0)) for signal, count in before.items())


def _records(db: sqlite3.Connection) -> dict[str, int]:
    # Each item has at least a byte. A damaged count is not believed: it would be counted as lost.
    found = db.execute("SELECT signal, records, bytes FROM journal_cursor")
    return {
        signal: records
        for signal, records, size_bytes in found
        if isinstance(records, int)
        and isinstance(size_bytes, int)
        and 0 <= records <= size_bytes <= COUNTED_BYTES_MAX
    }


def advance(db: sqlite3.Connection, signal: str, row: int, item: int) -> None:
    """Move the cursor past the first `item` items of `row` and all rows before; a dropped row moves
    nothing.
    """
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
    """Delete a signal's rows up to `row`; return how many of their items were not sent."""
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
    """Return the queued items of every signal that is on."""
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
    """Delete a signal's cursor and rows; return how many items were not sent."""
    undone = drop(db, signal, ROW_MAX)
    db.execute("DELETE FROM journal_cursor WHERE signal = ?", (signal,))
    return undone


def _item(db: sqlite3.Connection, signal: str) -> int:
    found = db.execute("SELECT item FROM journal_cursor WHERE signal = ?", (signal,)).fetchone()
    return found[0] if found else 0
