"""What scrapes and views see of the store: short reads on a connection of their own.

A reader works beside the running daemon, in its process or in another one, and never holds it up. Every
method is one short read transaction, so that what it returns belongs to one moment between two batches.
The histories have no indexes, because they are written at the speed of the log and read by people: a filter
that finds little walks 100,000 rows, in some tens of milliseconds.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from exporter.records import Histogram, OpenTask, RequestRow, Series, TaskRow
from exporter.store import journal
from exporter.store.database import MIGRATIONS, STATE_FILE, StoreError, connect, explain, known_version
from exporter.store.journal import JournalStatus


class Snapshot(NamedTuple):
    """All that a scrape shows, as of one moment.

    `journal` has an entry for every signal that is on. `committed_seconds` (epoch) is the time of the last
    commit, 0.0 before the first.
    """

    counters: dict[Series, float]
    gauges: dict[Series, float]
    histograms: dict[Series, Histogram]
    open_tasks: list[OpenTask]
    journal: dict[str, JournalStatus]
    is_ready: bool
    committed_seconds: float


class TaskPage(NamedTuple):
    """Ended tasks, newest first; `before` asks for the next page, None when there is none."""

    tasks: list[TaskRow]
    before: int | None


class Reader:
    """Reads the state in `directory`; any thread may call it, one at a time is served.

    Raises StoreError, here and in every method, when there is no state, when its version is not this
    release's, or when it cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / STATE_FILE
        self._turn = threading.Lock()
        try:
            is_there = self._path.is_file()
        except PermissionError as error:
            raise StoreError(
                f"{directory} may not be read by this user: ask as root, or as the user that the daemon runs as"
            ) from error
        if not is_there:
            raise StoreError(f"{self._path} does not exist; name the directory of a daemon's state")
        try:
            self._db = connect(self._path, writable=False)
        except sqlite3.Error as error:
            raise explain(self._path, error) from error
        try:
            self._refuse_other_versions()
        except BaseException:
            self._db.close()
            raise

    def _refuse_other_versions(self) -> None:
        with self._reading() as db:
            version = known_version(db, self._path)
        if version < len(MIGRATIONS):
            raise StoreError(f"{self._path} is of an earlier release; start the daemon once to update it")

    def close(self) -> None:
        """Close the connection."""
        with self._turn:
            self._db.close()

    def snapshot(self) -> Snapshot:
        """Return what a scrape shows."""
        with self._reading() as db:
            meta = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('ready', 'committed_seconds')"))
            return Snapshot(
                counters={series_of(text): value for text, value in db.execute("SELECT * FROM counter")},
                gauges={series_of(text): value for text, value in db.execute("SELECT * FROM gauge")},
                histograms={
                    series_of(text): Histogram(
                        json.loads(buckets), total, [tuple(exemplar) for exemplar in json.loads(exemplars)]
                    )
                    for text, buckets, total, exemplars in db.execute("SELECT * FROM histogram")
                },
                open_tasks=_running(db),
                journal=journal.status(db),
                is_ready="ready" in meta,
                committed_seconds=meta.get("committed_seconds", 0.0),
            )

    def running(self) -> list[OpenTask]:
        """Return the open tasks, the one that started first in front."""
        with self._reading() as db:
            return sorted(_running(db), key=lambda task: task.start)

    def tasks(
        self,
        *,
        limit: int,
        outcome: str | None = None,
        app: str | None = None,
        operation: str | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        before: int | None = None,
    ) -> TaskPage:
        """Return at most `limit` ended tasks, in the reverse order of their ends in the log.

        A task is in a time range when `since_ns <= end < until_ns`. `before` is that of the page before.
        """
        conditions = {
            "outcome = ?": outcome,
            "app = ?": app,
            "operation = ?": operation,
            '"end" >= ?': since_ns,
            '"end" < ?': until_ns,
            "id < ?": before,
        }
        given = {condition: value for condition, value in conditions.items() if value is not None}
        where = f"WHERE {' AND '.join(given)}" if given else ""
        with self._reading() as db:
            rows = db.execute(
                f"SELECT id, {columns(TaskRow)} FROM task {where} ORDER BY id DESC LIMIT ?",  # noqa: S608 - our own names
                (*given.values(), limit + 1),
            ).fetchall()
        is_last = len(rows) <= limit
        shown = rows[:limit]
        return TaskPage(
            [TaskRow._make(row[1:]) for row in shown], None if is_last or not shown else shown[-1][0]
        )

    def task(self, context: bytes) -> TaskRow | None:
        """Return the ended task whose span has this context, None when the history has none."""
        with self._reading() as db:
            row = db.execute(
                f"SELECT {columns(TaskRow)} FROM task WHERE context = ?",  # noqa: S608 - our own names
                (context,),
            ).fetchone()
        return TaskRow._make(row) if row else None

    def request(self, ordinal: int) -> RequestRow | None:
        """Return the request with this ordinal, None when the history has none."""
        found = self.requests_between(ordinal, ordinal, 1)
        return found[0] if found else None

    def requests_between(self, first_ordinal: int, last_ordinal: int, limit: int) -> list[RequestRow]:
        """Return at most `limit` requests with `first_ordinal <= ordinal <= last_ordinal`, in file order."""
        with self._reading() as db:
            rows = db.execute(
                f"SELECT {columns(RequestRow)} FROM request WHERE ordinal BETWEEN ? AND ? ORDER BY ordinal LIMIT ?",  # noqa: S608 - our own names
                (first_ordinal, last_ordinal, limit),
            ).fetchall()
        return [RequestRow._make(row) for row in rows]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._turn:
            try:
                self._db.execute("BEGIN")
                try:
                    yield self._db
                finally:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise explain(self._path, error) from error


def columns(row_type: type[tuple[Any, ...]]) -> str:
    """Return the columns of a table that keeps rows of a NamedTuple, in its fields' order."""
    fields: tuple[str, ...] = getattr(row_type, "_fields")  # noqa: B009 - no type says "a NamedTuple class"
    return ", ".join(f'"{field}"' for field in fields)


def series_of(text: str) -> Series:
    """Return the series that a stored key stands for."""
    return tuple(json.loads(text))


def _running(db: sqlite3.Connection) -> list[OpenTask]:
    rows = db.execute(f"SELECT {columns(OpenTask)} FROM open_task ORDER BY rowid")  # noqa: S608 - our own names
    return [OpenTask._make(row) for row in rows]
