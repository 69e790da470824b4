"""Reads of the store for scrapes, the page and commands, on a connection of their own.

A reader works beside the running daemon, in its process or in another one, and never delays it.
Every method is one read transaction, so that everything it returns belongs to one moment between
two batches. A query has a deadline, waits for its turn included, and `close` interrupts it.
`search.py` searches the histories.
"""

from __future__ import annotations

import json
import math
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from exporter.records import Histogram, OpenTask, RequestRow, Series, TaskRow
from exporter.store import journal, search
from exporter.store.database import (
    STATE_FILE,
    StoreError,
    columns,
    connect,
    explain,
    known_version,
    size_on_disk,
    was_interrupted,
)
from exporter.store.journal import JournalStatus
from exporter.store.migrations import MIGRATIONS
from exporter.store.search import Place, RequestsFound, Sought, Story, TasksFound, TracesFound
from exporter.store.task_view import Usual, usual

QUERY_SECONDS = 3.0
"""More than any query takes on a full state of a slow disk, and less than people and Prometheus
wait.
"""

USUAL_OF_TASKS = 10_000
USUAL_SECONDS = 5.0
"""A few more tasks hardly change the median of so many."""

CHECK_STEPS = 200
"""SQLite looks at the clock after so many of its steps: some ten rows of a search for a text."""

_LAST_RECORD = "wok_exporter_last_record_timestamp_seconds"
_OF_OPERATIONS = ("wok_tasks_started_total", "wok_tasks_finished_total")


class InProgress(NamedTuple):
    """The open tasks of an operation: how many, and the earliest start in nanoseconds."""

    tasks: int
    oldest: int


class Snapshot(NamedTuple):
    """Everything that a scrape shows, as of one moment.

    `in_progress` is by application and operation. `journal` has an entry for every signal that is
    on. `committed_seconds` (epoch) is the time of the last commit, 0.0 before the first.
    `state_bytes` is the size of the state on disk.
    """

    counters: dict[Series, float]
    gauges: dict[Series, float]
    histograms: dict[Series, Histogram]
    in_progress: dict[tuple[str, str], InProgress]
    journal: dict[str, JournalStatus]
    is_ready: bool
    committed_seconds: float
    state_bytes: int


class Overview(NamedTuple):
    """The state as a whole, without its single tasks, as of one moment.

    `revision` changes with every commit, and differs between readers. `last_record_seconds` (epoch)
    is None before the first record. `operations` are the (application, operation) of all tasks that
    have ever started, `apps` all applications, both sorted.
    """

    revision: str
    counters: dict[Series, float]
    last_record_seconds: float | None
    running: int
    journal: dict[str, JournalStatus]
    is_ready: bool
    apps: list[str]
    operations: list[tuple[str, str]]


class TaskPage(NamedTuple):
    """Ended tasks, newest first; `before` asks for the next page, None when there is none."""

    tasks: list[TaskRow]
    before: int | None


class Reader:
    """Reads the state in `directory`; any thread may call it, one at a time is served.

    Raises StoreError, here and in every method, when there is no state, when its version is not
    this release's, when it cannot be read, and when a query takes longer than `query_seconds`.
    """

    def __init__(self, directory: Path, *, query_seconds: float = QUERY_SECONDS) -> None:
        self._path = directory / STATE_FILE
        self._query_seconds = query_seconds
        self._turn = threading.Lock()
        self._deadline = math.inf
        self._is_closed = False
        self._name = secrets.token_hex(4)
        self._usual: Mapping[tuple[str, str], Usual] = {}
        self._usual_of: int | None = None
        self._usual_at = -math.inf
        try:
            is_there = self._path.is_file()
        except PermissionError as error:
            raise StoreError(
                f"cannot read {directory}: permission denied; run the command as root, or as the daemon's user"
            ) from error
        except OSError as error:
            raise StoreError(
                f"cannot read {self._path}: {error.strerror}; set --state to the daemon's directory"
            ) from error
        if not is_there:
            raise StoreError(f"{self._path} does not exist; name the directory of a daemon's state")
        try:
            self._db = connect(self._path, writable=False)
            self._db.set_progress_handler(self._is_over, CHECK_STEPS)
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
            raise StoreError(
                f"{self._path} was written by an earlier release; start the daemon once to update it"
            )

    def _is_over(self) -> bool:
        return self._is_closed or time.monotonic() >= self._deadline

    def close(self) -> None:
        """Interrupt the query that runs, if any, and close the connection."""
        self._is_closed = True
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
                in_progress={
                    (app, operation): InProgress(tasks, oldest)
                    for app, operation, tasks, oldest in db.execute(
                        "SELECT app, operation, count(*), min(start) FROM open_task GROUP BY app, operation"
                    )
                },
                journal=journal.status(db),
                is_ready="ready" in meta,
                committed_seconds=meta.get("committed_seconds", 0.0),
                state_bytes=size_on_disk(self._path),
            )

    def overview(self) -> Overview:
        """Return what a status shows; cheap, whatever the state holds."""
        with self._reading() as db:
            # SQLite's number for what other connections have committed; it begins anew with each
            # connection.
            number = db.execute("PRAGMA data_version").fetchone()[0]
            counters = {series_of(text): value for text, value in db.execute("SELECT * FROM counter")}
            last = db.execute("SELECT value FROM gauge WHERE series = ?", (json.dumps([_LAST_RECORD]),))
            last_record = last.fetchone()
            operations = {(series[1], series[2]) for series in counters if series[0] in _OF_OPERATIONS}
            requested = {series[1] for series in counters if series[0] == "wok_requests_total"}
            return Overview(
                revision=f"{self._name}-{number}",
                counters=counters,
                last_record_seconds=last_record[0] if last_record else None,
                running=db.execute("SELECT count(*) FROM open_task").fetchone()[0],
                journal=journal.status(db),
                is_ready=db.execute("SELECT 1 FROM meta WHERE key = 'ready'").fetchone() is not None,
                apps=sorted(requested.union(app for app, _ in operations)),
                operations=sorted(operations),
            )

    def find_tasks(
        self, sought: Sought, *, running: bool, ended: bool, place: Place | None, limit: int
    ) -> TasksFound:
        """Return a page of tasks that run, have ended, or both; `place` is the `next` of the page
        before.
        """
        with self._reading() as db:
            return search.tasks(db, sought, running=running, ended=ended, place=place, limit=limit)

    def find_requests(self, sought: Sought, *, before: int | None, limit: int) -> RequestsFound:
        """Return a page of requests, newest first; `before` is that of the page before."""
        with self._reading() as db:
            return search.requests(db, sought, before=before, limit=limit)

    def usual(self) -> Mapping[tuple[str, str], Usual]:
        """Return the usual durations by application and operation; they may be some seconds old."""
        with self._reading() as db:
            newest, now = search.last_id(db), time.monotonic()
            if newest != self._usual_of and now >= self._usual_at + USUAL_SECONDS:
                found = search.durations_by_operation(db, USUAL_OF_TASKS)
                self._usual = {key: of_all for key, each in found.items() if (of_all := usual(each))}
                self._usual_of, self._usual_at = newest, now
            return self._usual

    def story(self, context: bytes, *, meanwhile_max: int, durations_max: int) -> Story | None:
        """Return a task with its surroundings, None when the history has none with this context."""
        with self._reading() as db:
            return search.story(db, context, meanwhile_max=meanwhile_max, durations_max=durations_max)

    def traces(
        self, *, context: bytes = b"", record_id: str = "", target_uri: str = "", limit: int, tasks_max: int
    ) -> TracesFound:
        """Return the newest requests with their tasks, by a trace id or context, a record id or a
        target_uri.
        """
        with self._reading() as db:
            return search.traces(
                db,
                context=context,
                record_id=record_id,
                target_uri=target_uri,
                limit=limit,
                tasks_max=tasks_max,
            )

    def matching(self, word: str, *, limit: int, tasks_max: int) -> TracesFound:
        """Return the newest traces that a word may mean: part of an id, or a resource."""
        with self._reading() as db:
            return search.matching(db, word, limit=limit, tasks_max=tasks_max)

    def running(self) -> list[OpenTask]:
        """Return the open tasks, oldest start first."""
        with self._reading() as db:
            return sorted(_running(db), key=lambda task: task.start)

    def tasks(self, *, limit: int, before: int | None = None) -> TaskPage:
        """Return at most `limit` ended tasks, in the reverse order of their ends in the log.

        `before` is that of the page before.
        """
        where, values = ("", ()) if before is None else ("WHERE id < ?", (before,))
        with self._reading() as db:
            rows = db.execute(
                f"SELECT id, {columns(TaskRow)} FROM task {where} ORDER BY id DESC LIMIT ?",  # noqa: S608 - our own names
                (*values, limit + 1),
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
        """Return at most `limit` requests with `first_ordinal <= ordinal <= last_ordinal`, in file
        order.
        """
        with self._reading() as db:
            rows = db.execute(
                f"SELECT {columns(RequestRow)} FROM request WHERE ordinal BETWEEN ? AND ? ORDER BY ordinal LIMIT ?",  # noqa: S608 - our own names
                (first_ordinal, last_ordinal, limit),
            ).fetchall()
        return [RequestRow._make(row) for row in rows]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        deadline = time.monotonic() + self._query_seconds
        if not self._turn.acquire(timeout=self._query_seconds):
            raise StoreError(_TOO_SLOW)
        try:
            self._deadline = deadline
            self._db.execute("BEGIN")
            try:
                yield self._db
            finally:
                self._deadline = math.inf
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        except sqlite3.Error as error:
            if was_interrupted(error):
                raise StoreError("the exporter is stopping" if self._is_closed else _TOO_SLOW) from error
            raise explain(self._path, error) from error
        finally:
            self._turn.release()


_TOO_SLOW = "the query takes too long; ask for less: a shorter time, fewer rows, another text"


def series_of(text: str) -> Series:
    """Return the series of a stored key."""
    return tuple(json.loads(text))


def _running(db: sqlite3.Connection) -> list[OpenTask]:
    rows = db.execute(f"SELECT {columns(OpenTask)} FROM open_task ORDER BY rowid")  # noqa: S608 - our own names
    return [OpenTask._make(row) for row in rows]
