"""The schema of the state, as the migrations that make it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

APPLICATION_ID = 0x574F4B45
"""In SQLite's header: the file is ours ("WOKE")."""

Migration = Callable[[sqlite3.Connection], None]


def _version_1(db: sqlite3.Connection) -> None:
    for statement in (
        f"PRAGMA application_id = {APPLICATION_ID}",
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
        "CREATE TABLE position (role TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        """CREATE TABLE open_task (
            key BLOB NOT NULL UNIQUE, context BLOB NOT NULL, app TEXT NOT NULL, operation TEXT NOT NULL,
            target_uri TEXT NOT NULL, task_id TEXT NOT NULL, start INTEGER NOT NULL,
            request INTEGER NOT NULL, data TEXT NOT NULL, since INTEGER NOT NULL)""",
        # A series is the JSON list of its family and label values.
        "CREATE TABLE counter (series TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID",
        "CREATE TABLE gauge (series TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID",
        """CREATE TABLE histogram (
            series TEXT PRIMARY KEY, buckets TEXT NOT NULL, sum REAL NOT NULL, exemplars TEXT NOT NULL
            ) WITHOUT ROWID""",
        # AUTOINCREMENT: the number of a row that was sent and deleted must never name another row.
        """CREATE TABLE journal (
            "row" INTEGER PRIMARY KEY AUTOINCREMENT, signal TEXT NOT NULL, items INTEGER NOT NULL,
            first INTEGER NOT NULL, last INTEGER NOT NULL, resource BLOB NOT NULL, payload BLOB NOT NULL)""",
        "CREATE INDEX journal_of_signal ON journal (signal)",
        # `rows`, `records` and `bytes` are sums over the rows that wait, so that nobody has to scan
        # them.
        """CREATE TABLE journal_cursor (
            signal TEXT PRIMARY KEY, item INTEGER NOT NULL, "rows" INTEGER NOT NULL,
            records INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE request (
            ordinal INTEGER PRIMARY KEY, time INTEGER NOT NULL, context BLOB NOT NULL, app TEXT NOT NULL,
            method TEXT NOT NULL, operation TEXT NOT NULL, status INTEGER, user TEXT NOT NULL,
            address TEXT NOT NULL, record_id TEXT NOT NULL, message TEXT NOT NULL)""",
        # The columns that views filter by come first: SQLite decodes a row only as far as needed.
        """CREATE TABLE task (
            id INTEGER PRIMARY KEY, outcome TEXT NOT NULL, app TEXT NOT NULL, operation TEXT NOT NULL,
            start INTEGER NOT NULL, "end" INTEGER NOT NULL, context BLOB NOT NULL, parent BLOB NOT NULL,
            target_uri TEXT NOT NULL, task_id TEXT NOT NULL, correlation TEXT NOT NULL,
            request INTEGER NOT NULL, concurrent INTEGER NOT NULL, error_code TEXT NOT NULL,
            message TEXT NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL)""",
    ):
        db.execute(statement)


def _version_2(db: sqlite3.Connection) -> None:
    for statement in (
        # The bytes of a history, so that nobody has to scan it.
        "CREATE TABLE history (name TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID",
        # A scrape counts the open tasks without reading them.
        "CREATE INDEX open_task_of_operation ON open_task (app, operation, start)",
        # NULL in rows of version 1.
        "ALTER TABLE journal ADD COLUMN checksum INTEGER",
        "ALTER TABLE open_task ADD COLUMN checksum INTEGER",
        # The contexts of the other requests that an ambiguous task might belong to.
        "ALTER TABLE task ADD COLUMN candidates BLOB NOT NULL DEFAULT x''",
        # A second copy of what a start cannot do without, on another page of the file.
        "CREATE TABLE spare (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID",
        # Damaged rows of the journal, kept for inspection.
        """CREATE TABLE damaged (
            id INTEGER PRIMARY KEY, at INTEGER NOT NULL, signal, resource, items, payload)""",
    ):
        db.execute(statement)
    # Version 1 kept texts of any length.
    texts = {
        "request": ("user", "address", "operation", "app", "method", "record_id"),
        "task": ("app", "operation", "task_id", "error_code"),
    }
    for table, names in texts.items():
        for name in names:
            db.execute(f"UPDATE {table} SET {name} = substr({name}, 1, 64) WHERE length({name}) > 256")  # noqa: S608 - our own names
        db.execute(f"UPDATE {table} SET message = substr(message, 1, 512) WHERE length(message) > 2048")  # noqa: S608 - our own names
    db.execute("UPDATE task SET target_uri = substr(target_uri, 1, 1024) WHERE length(target_uri) > 4096")
    db.execute(
        "INSERT INTO history SELECT 'request', coalesce(sum(64 + length(CAST(app AS BLOB))"
        " + length(CAST(method AS BLOB)) + length(CAST(operation AS BLOB)) + length(CAST(user AS BLOB))"
        " + length(CAST(address AS BLOB)) + length(CAST(record_id AS BLOB)) + length(CAST(message AS BLOB))), 0)"
        " FROM request"
    )
    db.execute(
        "INSERT INTO history SELECT 'task', coalesce(sum(64 + length(CAST(app AS BLOB))"
        " + length(CAST(operation AS BLOB)) + length(CAST(target_uri AS BLOB)) + length(CAST(task_id AS BLOB))"
        " + length(CAST(outcome AS BLOB)) + length(CAST(correlation AS BLOB)) + length(CAST(error_code AS BLOB))"
        " + length(CAST(message AS BLOB))), 0) FROM task"
    )


def _version_3(db: sqlite3.Connection) -> None:
    # What wok-error.log says of a failed task.
    for column in ("found_id", "exception", "stack"):
        db.execute(f"ALTER TABLE task ADD COLUMN {column} TEXT NOT NULL DEFAULT ''")


def _version_4(db: sqlite3.Connection) -> None:
    # Gaps in the log were counted among the lost records.
    db.execute(
        "UPDATE counter SET series = '[\"wok_exporter_log_gaps_total\"]'"
        ' WHERE series = \'["wok_exporter_lost_records_total", "gap"]\''
    )


def _version_5(db: sqlite3.Connection) -> None:
    # What a request or a task works on, in words.
    for table in ("request", "task"):
        db.execute(f"ALTER TABLE {table} ADD COLUMN resource TEXT NOT NULL DEFAULT ''")


MIGRATIONS: tuple[Migration, ...] = (_version_1, _version_2, _version_3, _version_4, _version_5)
"""Migration n, counted from 1, brings a state from version n - 1 to n; a released one is never
changed.
"""
