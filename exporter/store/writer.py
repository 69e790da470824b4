"""The store: the whole state of the program on disk. One batch of lines is one transaction.

`Store` is the only writer. The pipeline's thread commits batches. Delivery threads read the journal
and move its cursors. They share one connection and take turns: a turn is a few milliseconds, and a
lock of our own is fairer than SQLite's, which polls. Scrapes and the page use a `reader.Reader`
instead.

When a crash can happen, and why nothing is lost:

* before COMMIT: the batch is read and processed again, into the same bytes and the same counts;
* after COMMIT, before the -wal reaches the disk, with a power cut: as above;
* after the backend accepted a request, before the cursor moved: the same bytes are sent again.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from exporter.records import Commit, Histogram, JournalRow, OpenTask, Series, Signal, TaskRow
from exporter.store import history, journal, older
from exporter.store.database import (
    STATE_FILE,
    OnBroken,
    StoreError,
    columns,
    explain,
    lock,
    open_writer,
    transaction,
)
from exporter.store.journal import JournalEntry, JournalStatus
from exporter.store.reader import QUERY_SECONDS, Reader, series_of
from exporter.store.repair import checksum, keep_spares, repair

__all__ = ["JournalEntry", "JournalStatus", "Loaded", "Store", "StoreError"]

JOURNAL_ROWS_MAX = 1_000_000
"""On a quiet host a row is one record of under a kilobyte: the bytes bound is
then reached first.
"""

JOURNAL_BYTES_MAX = 512 * 1024 * 1024
"""Weeks of a busy host's records, and not much of a hypervisor's disk."""

REQUESTS_KEPT = 100_000
TASKS_KEPT = 100_000
"""Months of a busy host, for `tasks` and the page: some tens of megabytes each."""

HISTORY_BYTES_MAX = 256 * 1024 * 1024
"""Of requests and tasks together, half each: a flood of long texts leaves fewer rows, not a larger
file.
"""

ENDED_TASKS_REMEMBERED = 10_000
"""Ended tasks that the correlator recognises when a further final record of one comes."""

LOADED_AT_ONCE = 500
"""Rows that are in memory while a start reads them."""

LOST = "wok_exporter_lost_records_total"
DAMAGED = "wok_exporter_state_damages_total"

_INTEGER_MAX = 2**63 - 1
_INTEGER_MIN = -(2**63)

Rows = Iterable[Sequence[Any]]

_log = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """What a start continues from.

    `open_tasks`, and `ended`, the newest tasks that ended with success or failure, oldest first,
    are read from the store while they are iterated over, once: a hundred thousand of them need not
    be in memory twice.
    """

    positions: dict[str, str]
    state: str
    open_tasks: Iterable[OpenTask]
    ended: Iterable[TaskRow]
    series: set[Series]


class Store:
    """Keeps the state in `directory` and holds its lock; all methods may be called from any thread.

    `journal_rows_max` and `journal_bytes_max` bound the journal, `requests_kept`, `tasks_kept` (at
    least 1) and `history_bytes_max` the histories. With `gives_up_when_full=False` the journal may
    exceed its bound and the caller stops committing while `journal_has_room()` is False. Every
    method raises StoreError when the file fails it; nothing has then changed, and a later call may
    work again. With `is_temporary` the file need not survive the process, and is written once
    instead of twice.
    """

    def __init__(
        self,
        directory: Path,
        *,
        journal_rows_max: int = JOURNAL_ROWS_MAX,
        journal_bytes_max: int = JOURNAL_BYTES_MAX,
        requests_kept: int = REQUESTS_KEPT,
        tasks_kept: int = TASKS_KEPT,
        history_bytes_max: int = HISTORY_BYTES_MAX,
        gives_up_when_full: bool = True,
        on_broken: OnBroken = "fail",
        is_temporary: bool = False,
    ) -> None:
        self.directory = directory
        self._path = directory / STATE_FILE
        self._journal_rows_max = journal_rows_max
        self._journal_bytes_max = journal_bytes_max
        self._requests_kept = max(1, requests_kept)
        self._tasks_kept = max(1, tasks_kept)
        self._history_bytes_max = history_bytes_max
        self._gives_up_when_full = gives_up_when_full
        self._turn = threading.Lock()
        self._lock_descriptor = lock(directory)
        try:
            self._db = open_writer(self._path, on_broken=on_broken, mend=self._mend, salvaged=self._salvaged)
            if is_temporary:
                self._db.execute("PRAGMA journal_mode = MEMORY")
                self._db.execute("PRAGMA synchronous = OFF")
        except BaseException:
            os.close(self._lock_descriptor)
            raise

    def _mend(self, db: sqlite3.Connection) -> None:
        damages, lost = repair(db)
        counters: dict[Series, float] = {(DAMAGED, part): count for part, count in damages.items()}
        if lost:
            counters[LOST, "damaged"] = lost
        if counters:
            _count(db, counters)
            found = ", ".join(f"{part} {count}" for part, count in sorted(damages.items()))
            _log.error(
                "%s is damaged (%s; %d unsent items lost); everything else goes on. Check the disk",
                self._path,
                found or "journal",
                lost,
            )

    def _salvaged(self, db: sqlite3.Connection) -> None:
        for each in (history.REQUESTS, history.TASKS):
            history.recount(db, each)
        _count(db, {(DAMAGED, "file"): 1})
        _log.error(
            "%s is damaged; all readable rows are copied into a new one, the old one is kept. Check the disk",
            self._path,
        )

    def close(self) -> None:
        """Close the file, with its -wal written back, and release the lock; further calls do
        nothing.
        """
        with self._turn:
            if self._lock_descriptor >= 0:
                self._db.close()
                os.close(self._lock_descriptor)
                self._lock_descriptor = -1

    def reader(self, *, query_seconds: float = QUERY_SECONDS) -> Reader:
        """Return a new read-only view, for scrapes and pages; the caller closes it."""
        return Reader(self.directory, query_seconds=query_seconds)

    def load(self) -> Loaded:
        """Return the state that the pipeline continues from."""
        with self._reading() as db:
            state = db.execute("SELECT value FROM meta WHERE key = 'state'").fetchone()
            return Loaded(
                positions=dict(db.execute("SELECT role, value FROM position")),
                state=state[0] if state else "",
                open_tasks=self._open_tasks(),
                ended=self._ended(),
                series={
                    series_of(text)
                    for (text,) in db.execute(
                        "SELECT series FROM counter UNION ALL SELECT series FROM gauge"
                        " UNION ALL SELECT series FROM histogram"
                    )
                },
            )

    def _open_tasks(self) -> Iterator[OpenTask]:
        last = 0
        while True:
            with self._reading() as db:
                rows = db.execute(
                    f"SELECT rowid, {columns(OpenTask)} FROM open_task WHERE rowid > ? ORDER BY rowid LIMIT ?",  # noqa: S608 - our own names
                    (last, LOADED_AT_ONCE),
                ).fetchall()
            yield from (OpenTask._make(row[1:]) for row in rows)
            if len(rows) < LOADED_AT_ONCE:
                return
            last = rows[-1][0]

    def _ended(self) -> Iterator[TaskRow]:
        with self._reading() as db:
            found = db.execute(
                "SELECT id FROM task WHERE outcome IN ('success', 'failure') ORDER BY id DESC LIMIT ?",
                (ENDED_TASKS_REMEMBERED,),
            )
            ids = [row[0] for row in found][::-1]
        for at in range(0, len(ids), LOADED_AT_ONCE):
            some = ids[at : at + LOADED_AT_ONCE]
            with self._reading() as db:
                rows = db.execute(
                    f"SELECT {columns(TaskRow)} FROM task"  # noqa: S608 - our own names
                    " WHERE id BETWEEN ? AND ? AND outcome IN ('success', 'failure') ORDER BY id",
                    (some[0], some[-1]),
                ).fetchall()
            yield from map(TaskRow._make, rows)

    def commit(self, commit: Commit, now_seconds: float) -> None:
        """Write the changes of one batch of lines, all or nothing.

        Tasks are opened before others are closed. Journal rows of a signal that is off are left
        out. `now_seconds` (epoch) is kept as the time of the last commit, for people.
        """
        try:
            self._write(commit, now_seconds, _unchanged)
        except (UnicodeEncodeError, OverflowError):
            # Text with half a surrogate pair, or an integer over 64 bits, got past the parser: rare
            # enough to look at every value only now.
            self._write(commit, now_seconds, _storable)

    def _write(self, commit: Commit, now_seconds: float, checked: Callable[[Rows], Rows]) -> None:
        with self._writing() as db:
            db.executemany(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                checked((("state", commit.state), ("committed_seconds", now_seconds))),
            )
            db.executemany(
                "INSERT INTO position VALUES (?, ?) ON CONFLICT (role) DO UPDATE SET value = excluded.value",
                checked(commit.positions.items()),
            )
            keep_spares(db, commit.positions, commit.state)
            if commit.opened:
                # No REPLACE: a task that is written again keeps its place in the order of opening.
                db.executemany(_UPSERT_OPEN_TASK, ((*row, checksum(row)) for row in checked(commit.opened)))
            if commit.closed:
                db.executemany("DELETE FROM open_task WHERE key = ?", ((key,) for key in commit.closed))
            _count(db, commit.counters, checked)
            db.executemany(
                "INSERT INTO gauge VALUES (?, ?) ON CONFLICT (series) DO UPDATE SET value = excluded.value",
                checked(_by_text(commit.gauges)),
            )
            for text, histogram in checked(_by_text(commit.histograms)):
                _observe(db, text, histogram)
            half = self._history_bytes_max // 2
            if commit.requests:
                rows = [tuple(row) for row in checked(commit.requests)]
                history.add(db, history.REQUESTS, rows, self._requests_kept, half)
            if commit.tasks:
                rows = [tuple(row) for row in checked(commit.tasks)]
                history.add(db, history.TASKS, rows, self._tasks_kept, half)
            journalled = (JournalRow._make(row) for row in checked(commit.journal))
            if journal.append(db, journalled) and self._gives_up_when_full:
                lost = journal.give_up(db, self._journal_rows_max, self._journal_bytes_max)
                if lost:
                    _count(db, {(LOST, "journal_full"): lost})

    def add_older(
        self,
        again: older.Again,
        state: str,
        started: Callable[[Sequence[OpenTask]], Mapping[Series, float]],
    ) -> older.Added:
        """Add older rows to the histories and older tasks to the running ones, all or nothing.

        `state` replaces the state of the pipeline. `started` counts the starts of running tasks,
        whose ends will be counted.
        """
        with self._writing() as db:
            added = older.add_older(
                db,
                again,
                requests_max=self._requests_kept,
                tasks_max=self._tasks_kept,
                bytes_max=self._history_bytes_max // 2,
            )
            if added.running:
                db.executemany(_UPSERT_OPEN_TASK, ((*row, checksum(row)) for row in added.running))
                _count(db, started(added.running))
            if added.is_found:
                db.execute("UPDATE meta SET value = ? WHERE key = 'state'", (state,))
                keep_spares(db, {}, state)
            return added

    def journal_has_room(self) -> bool:
        """Return whether the journal is below its bound, so that a batch can be committed without
        dropping rows.
        """
        with self._reading() as db:
            rows, size_bytes = journal.size(db)
        return rows < self._journal_rows_max and size_bytes < self._journal_bytes_max

    def journal_read(self, signal: Signal, items_max: int, bytes_max: int) -> list[JournalEntry]:
        """Return the next rows to send: whole rows within both limits, but at least one if there is
        any.

        Damaged rows are set aside and counted.
        """
        while True:
            try:
                with self._reading() as db:
                    return journal.read(db, signal, items_max, bytes_max)
            except journal.DamagedRowError as damaged:
                self._set_aside(signal, damaged.row)

    def _set_aside(self, signal: Signal, row: int) -> None:
        with self._writing() as db:
            lost = journal.set_aside(db, row, time.time())
            _count(db, {(LOST, "damaged"): lost, (DAMAGED, "journal"): 1})
        _log.error(
            "%s: a row of the journal of %s is damaged; %d items are lost, the others are sent. Check the disk",
            self._path,
            signal,
            lost,
        )

    def journal_advance(self, signal: Signal, row: int, item: int, counters: Mapping[Series, float]) -> None:
        """Move the cursor past the first `item` items of `row` and all rows before it, and count,
        in one.

        A row that has been given up meanwhile moves nothing; the counters are added all the same.
        """
        with self._writing() as db:
            _count(db, counters)
            journal.advance(db, signal, row, item)

    def journal_status(self, signal: Signal) -> JournalStatus:
        """Return the queued items of a signal, without scanning the journal."""
        with self._reading() as db:
            return journal.status(db).get(signal, JournalStatus(0, 0, None))

    def count(self, counters: Mapping[Series, float]) -> None:
        """Add to counters outside a batch, for delivery."""
        with self._writing() as db:
            _count(db, counters)

    def set_signals(self, signals: frozenset[Signal]) -> None:
        """Set the signals that are delivered; call it at the start, after `load`.

        A signal that is switched off loses its cursor and its rows, which are counted as lost
        (reason `switched_off`); one that is switched on begins with the next commit.
        """
        with self._writing() as db:
            known = journal.signals(db)
            for signal in known:
                if signal not in signals:
                    _count(db, {(LOST, "switched_off"): journal.switch_off(db, signal)})
            for signal in sorted(signals.difference(known)):
                journal.switch_on(db, signal)

    @property
    def is_ready(self) -> bool:
        """True once the first backlog has been read. From then on, the `wok_*`
        metrics are shown.
        """
        with self._reading() as db:
            return db.execute("SELECT 1 FROM meta WHERE key = 'ready'").fetchone() is not None

    def mark_ready(self) -> None:
        """Note permanently that the first backlog has been read."""
        with self._writing() as db:
            db.execute("INSERT INTO meta VALUES ('ready', 1) ON CONFLICT (key) DO NOTHING")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db, transaction(db):
            yield db

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._turn:
            try:
                yield self._db
            except sqlite3.Error as error:
                raise explain(self._path, error) from error


_OPEN_TASK_COLUMNS = [*columns(OpenTask).split(", "), "checksum"]
_UPSERT_OPEN_TASK = (
    f"INSERT INTO open_task ({', '.join(_OPEN_TASK_COLUMNS)})"  # noqa: S608 - our own names
    f" VALUES ({', '.join('?' for _ in _OPEN_TASK_COLUMNS)}) ON CONFLICT (key) DO UPDATE SET "
    + ", ".join(f"{column} = excluded.{column}" for column in _OPEN_TASK_COLUMNS)
)


def _by_text(values: Mapping[Series, Any]) -> Iterator[tuple[str, Any]]:
    return ((json.dumps(series, ensure_ascii=False), value) for series, value in values.items())


def _unchanged(rows: Rows) -> Rows:
    return rows


def _storable(rows: Rows) -> Rows:
    return ([_storable_value(value) for value in row] for row in rows)


def _storable_value(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, int):
        return min(max(value, _INTEGER_MIN), _INTEGER_MAX)
    return value


def _count(
    db: sqlite3.Connection, counters: Mapping[Series, float], checked: Callable[[Rows], Rows] = _unchanged
) -> None:
    db.executemany(
        "INSERT INTO counter VALUES (?, ?) ON CONFLICT (series) DO UPDATE SET value = value + excluded.value",
        checked(_by_text(counters)),
    )


def _observe(db: sqlite3.Connection, text: str, added: Histogram) -> None:
    buckets, total = list(added.buckets), added.sum
    newest = {exemplar[0]: exemplar for exemplar in added.exemplars}
    stored = db.execute("SELECT buckets, sum, exemplars FROM histogram WHERE series = ?", (text,)).fetchone()
    if stored:
        buckets = [a + b for a, b in zip(json.loads(stored[0]), buckets, strict=True)]
        total += stored[1]
        newest = {exemplar[0]: exemplar for exemplar in json.loads(stored[2])} | newest
    db.execute(
        "INSERT INTO histogram VALUES (?1, ?2, ?3, ?4) ON CONFLICT (series)"
        " DO UPDATE SET buckets = ?2, sum = ?3, exemplars = ?4",
        # Rounded and sorted: the same sums and exemplars, however the tasks were cut into batches.
        (text, json.dumps(buckets), round(total, 6), json.dumps([newest[at] for at in sorted(newest)])),
    )
