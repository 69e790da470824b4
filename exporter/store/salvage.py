"""What can be read of a damaged state, copied into a new one.

A damaged page of a SQLite file makes the rows on it unreadable, and no others. So each table is
read row by row from its beginning. Where SQLite stops, reading goes on with the first row behind
the damage that it finds. The damaged file stays as it is; what cannot be copied is lost, and the
journal's recount tells how much that is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

ROWID_MAX = 2**63 - 1


def copy_tables(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """Copy all readable rows of the tables that `new` has; raises
    `sqlite3.Error` only for `new`.
    """
    tables = [
        (name, "WITHOUT ROWID" in sql)
        for name, sql in new.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
        if not name.startswith("sqlite_")
    ]
    for table, is_keyed in tables:
        fields = [row[1] for row in new.execute(f"PRAGMA table_info({table})")]
        names = ", ".join(f'"{field}"' for field in fields)
        found = _keyed_rows(old, table, names) if is_keyed else _rows(old, table, names)
        marks = ", ".join("?" for _ in fields)
        prefix = "" if is_keyed else "rowid, "
        insert = (
            f"INSERT OR IGNORE INTO {table} ({prefix}{names}) VALUES ({'' if is_keyed else '?, '}{marks})"  # noqa: S608 - our own names
        )
        new.executemany(insert, found)


def _rows(db: sqlite3.Connection, table: str, names: str) -> Iterator[tuple[object, ...]]:
    """Yield the readable rows of a table with rowids, each with its rowid in front."""
    select = f"SELECT rowid, {names} FROM {table} NOT INDEXED WHERE rowid > ? ORDER BY rowid"  # noqa: S608 - our own names
    last = -ROWID_MAX
    while True:
        try:
            for row in db.execute(select, (last,)):
                yield row
                last = row[0]
        except sqlite3.DatabaseError:
            behind = _behind_damage(db, table, max(last, 0))
            if behind is None:
                return
            last = behind - 1
        else:
            return


def _behind_damage(db: sqlite3.Connection, table: str, last: int) -> int | None:
    """Return a row behind unreadable ones, found in steps that double; None when there is none."""
    step = 1
    while last + step < ROWID_MAX:
        try:
            row = db.execute(
                f"SELECT rowid, * FROM {table} NOT INDEXED WHERE rowid > ? ORDER BY rowid LIMIT 1",  # noqa: S608 - our own names
                (last + step,),
            ).fetchone()
        except sqlite3.DatabaseError:
            step *= 2
        else:
            return int(row[0]) if row else None
    return None


def _keyed_rows(db: sqlite3.Connection, table: str, names: str) -> Iterator[tuple[object, ...]]:
    """Yield the readable rows of a table without rowids: small ones, from both ends up to the
    damage.
    """
    key = names.split(",", maxsplit=1)[0]
    for order in ("ASC", "DESC"):
        try:
            yield from db.execute(f"SELECT {names} FROM {table} ORDER BY {key} {order}")  # noqa: S608 - our own names
        except sqlite3.DatabaseError:
            continue
        else:
            return
