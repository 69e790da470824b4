"""What a start checks in a state that SQLite finds sound, and how damage is set aside.

A disk or a person may have changed bytes that no structure of SQLite depends on. A start must not
fail for that, nor send or count what was never there. So

* positions and the correlator's state, without which nothing could go on, are kept twice, with a
  checksum;
* an open task has a checksum; a damaged one is deleted, and its end will be one of an unknown
  start;
* series of metrics whose name or value cannot be read are deleted;
* rows of the histories whose columns have other types than they were written with are deleted;
* the journal is counted anew (its rows are checked when they are read, see `journal.py`).

All functions work inside the caller's transaction on the caller's connection.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from exporter.records import OUTCOMES, OpenTask
from exporter.store import history, journal
from exporter.store.database import BrokenError, columns

NUMBER_MAX = 2**60
"""Row numbers and ordinals never come near this one; a damaged one could leave no number for the
next row.
"""

_STATE = "state"
_POSITION = "position:"


def checksum(values: Sequence[Any]) -> int:
    """Return the checksum of the columns of a row."""
    return zlib.crc32("\x1f".join(map(str, values)).encode("utf-8", "surrogatepass"))


def keep_spares(db: sqlite3.Connection, positions: Mapping[str, str], state: str) -> None:
    """Write the second copies of what a batch has changed."""
    spares = {_STATE: state, **{_POSITION + role: value for role, value in positions.items()}}
    db.executemany(
        "INSERT OR REPLACE INTO spare VALUES (?, ?, ?)",
        ((key, value, checksum([value])) for key, value in spares.items()),
    )


class Repaired(NamedTuple):
    """How many damages there were, by part, and how many items of the journal are lost."""

    damages: Counter[str]
    lost: int


def repair(db: sqlite3.Connection) -> Repaired:
    """Delete or replace damaged rows.

    Raises BrokenError where both copies of something are damaged that a start cannot do without.
    """
    found = Counter(
        positions=_repair_positions(db),
        open_tasks=_repair_open_tasks(db),
        metrics=_repair_series(db),
        history=_repair_histories(db),
        journal=_repair_journal(db),
    )
    return Repaired(+found, journal.recount(db))


def _repair_positions(db: sqlite3.Connection) -> int:
    damages = 0
    for table, prefix in (("meta", ""), ("position", _POSITION)):
        rows = db.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - our own names
        kept = {name: value for name, value in rows if isinstance(name, str)}
        before = damages
        damages += len(rows) - len(kept)
        for name, spare, written in _spares(db, prefix):
            if name in kept and checksum([kept[name]]) == written:
                continue
            damages += 1
            if checksum([spare]) != written and spare != kept.get(name):
                raise BrokenError(f"both copies of {prefix}{name} are damaged")
            kept[name] = spare
        if table == "meta" and not isinstance(kept.get("committed_seconds", 0.0), int | float):
            damages += 1
            del kept["committed_seconds"]
        if damages != before:
            _rewrite(db, table, list(kept.items()))
            db.execute("DELETE FROM spare WHERE key = ? OR key LIKE ?", (_STATE, f"{_POSITION}%"))
    if damages:
        positions = dict(db.execute("SELECT role, value FROM position"))
        keep_spares(db, positions, db.execute("SELECT value FROM meta WHERE key = 'state'").fetchone()[0])
    return damages


def _rewrite(db: sqlite3.Connection, table: str, rows: Sequence[Sequence[Any]]) -> None:
    """Write all rows anew: a damaged key is at a place where no search finds it."""
    db.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
    marks = ", ".join("?" for _ in rows[0]) if rows else ""
    db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)  # noqa: S608 - our own names


def _spares(db: sqlite3.Connection, prefix: str) -> Iterator[tuple[str, str, int]]:
    for key, value, written in db.execute("SELECT key, value, checksum FROM spare").fetchall():
        if isinstance(key, str) and (key == _STATE if not prefix else key.startswith(prefix)):
            yield key.removeprefix(prefix), value, written


def _repair_open_tasks(db: sqlite3.Connection) -> int:
    damaged = [
        (rowid,)
        for rowid, written, *row in db.execute(f"SELECT rowid, checksum, {columns(OpenTask)} FROM open_task")  # noqa: S608 - our own names
        # Rows of version 1 have no checksum.
        if (written is not None and written != checksum(row)) or not _is_open_task(row)
    ]
    db.executemany("DELETE FROM open_task WHERE rowid = ?", damaged)
    return len(damaged)


def _is_open_task(row: Sequence[Any]) -> bool:
    task = OpenTask._make(row)
    texts = (task.app, task.operation, task.target_uri, task.task_id, task.data)
    return (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(value, bytes) for value in (task.key, task.context))
        and all(isinstance(value, int) for value in (task.start, task.request, task.since))
        and isinstance(_json(task.data), dict)
    )


def _repair_series(db: sqlite3.Connection) -> int:
    damages = 0
    for table in ("counter", "gauge", "histogram"):
        rows = db.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - our own names
        sound = [row for row in rows if _is_series(*row)]
        if len(sound) != len(rows):
            damages += len(rows) - len(sound)
            _rewrite(db, table, sound)
    return damages


def _is_series(name: Any, *values: Any) -> bool:
    labels = _json(name)
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        return False
    if len(values) == 1:
        return isinstance(values[0], int | float)
    buckets, total, exemplars = values
    return isinstance(total, int | float) and _is_histogram(buckets, exemplars)


def _is_histogram(buckets: Any, exemplars: Any) -> bool:
    counts, examples = _json(buckets), _json(exemplars)
    return (
        isinstance(counts, list)
        and all(isinstance(count, int) for count in counts)
        and isinstance(examples, list)
        and all(
            isinstance(each, list)
            and len(each) == 4
            and isinstance(each[0], int)
            and isinstance(each[2], str)
            and all(isinstance(number, int | float) for number in (each[1], each[3]))
            for each in examples
        )
    )


def _repair_histories(db: sqlite3.Connection) -> int:
    outcomes = ", ".join(f"'{outcome}'" for outcome in OUTCOMES)
    own = {
        history.REQUESTS: "typeof(status) NOT IN ('integer', 'null')",
        history.TASKS: f"outcome NOT IN ({outcomes})"
        " OR correlation NOT IN ('exact', 'likely', 'ambiguous', 'none')",
    }
    damages = 0
    for each, condition in own.items():
        wrong = [f"typeof({name}) != '{kind}'" for name, kind in history.types_of(each) if name != '"status"']
        before = db.total_changes
        db.execute(
            f"DELETE FROM {each.table} WHERE {' OR '.join([condition, *wrong])} OR {each.key} > {NUMBER_MAX}"  # noqa: S608 - our own names
        )
        if db.total_changes != before or not _has_size(db, each):
            damages += db.total_changes - before
            history.recount(db, each)
    return damages


def _has_size(db: sqlite3.Connection, each: history.History) -> bool:
    found = db.execute("SELECT bytes FROM history WHERE name = ?", (each.table,)).fetchone()
    return found is not None and isinstance(found[0], int) and 0 <= found[0] < NUMBER_MAX


def _repair_journal(db: sqlite3.Connection) -> int:
    before = db.total_changes
    db.execute('DELETE FROM journal WHERE "row" > ?', (NUMBER_MAX,))
    # Values that the reader can handle. Their row is damaged still, by its checksum.
    for column, value, condition in (
        ("items", "1", f"typeof(items) != 'integer' OR items NOT BETWEEN 1 AND {2**31}"),
        ("first", "0", "typeof(first) != 'integer'"),
        ("last", "0", "typeof(last) != 'integer'"),
        ("resource", "x''", "typeof(resource) != 'blob'"),
        ("payload", "x''", "typeof(payload) != 'blob'"),
    ):
        db.execute(f"UPDATE journal SET {column} = {value} WHERE {condition}")  # noqa: S608 - our own names
    damages = db.total_changes - before
    for name, number in db.execute("SELECT name, seq FROM sqlite_sequence").fetchall():
        if name == "journal" and not (isinstance(number, int) and 0 <= number < NUMBER_MAX):
            damages += 1
            db.execute(
                'UPDATE sqlite_sequence SET seq = 1000 + coalesce((SELECT max("row") FROM journal), 0)'
            )
    return damages


def _json(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
