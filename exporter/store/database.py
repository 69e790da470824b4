"""The state file: how it is made, locked, checked, brought up to date and, when it is broken, set aside.

The state is one SQLite database, `state.db`, in a directory of its own, with SQLite's `-wal` and `-shm`
files beside it while it is open. In WAL mode readers never wait for the writer, nor it for them, and
`synchronous=NORMAL` never corrupts it: what a power cut takes is the last few whole transactions, and these
are read again from the log. What can be wrong with the file when the program starts:

* missing or empty: a new state is begun; there is nothing to lose any more;
* a `-wal` that was cut off anywhere: SQLite opens the last whole transaction;
* not a database, a shorter one than it says, pages that do not fit together: *broken*. Nothing is done
  without the administrator's word; with it the file is renamed, never overwritten;
* made by a later release, or by another program: always refused, for nothing here understands it.

A lock on `state.lock` keeps a second daemon away. It is held on a file of its own, because SQLite's own locks
on `state.db` are lost when any other descriptor of that file is closed.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

STATE_FILE = "state.db"
LOCK_FILE = "state.lock"

APPLICATION_ID = 0x574F4B45
"""Marks the file as ours in SQLite's header ("WOKE")."""

BUSY_TIMEOUT_SECONDS = 10.0
"""Only a person with a SQLite shell ever competes with the daemon; their transaction may take a moment."""

PAGE_BYTES = 16384
"""The journal's rows are blobs of up to a megabyte: larger pages halve the work of writing and deleting them."""

WAL_PAGES_BEFORE_CHECKPOINT = 1024
"""16 MiB: a burst is then synced a few times a second rather than ten times."""

WAL_BYTES_KEPT = 64 * 1024 * 1024
"""A WAL that a long reader let grow is cut back to this size afterwards."""

BROKEN_FILES_KEPT = 3
"""A disk that breaks one state after another must not be filled with them."""

OnBroken = Literal["fail", "restart"]
Migration = Callable[[sqlite3.Connection], None]


class StoreError(Exception):
    """The state cannot be used now; the message names the file, what is wrong with it, and the remedy."""


class _BrokenError(Exception):
    """The file is no sound database."""


REMEDIES = {
    sqlite3.SQLITE_FULL: "free space on its file system; nothing is lost, reading goes on afterwards",
    sqlite3.SQLITE_IOERR: "check the disk, its space and quotas; nothing is lost, reading goes on afterwards",
    sqlite3.SQLITE_READONLY: "make the file and its directory writable for the user that runs this program",
    sqlite3.SQLITE_CANTOPEN: "make the file and its directory accessible for the user that runs this program",
    sqlite3.SQLITE_BUSY: "end the other program that holds a transaction open on it",
    sqlite3.SQLITE_CORRUPT: "start again; a broken state can be set aside with `on_broken_state`",
    sqlite3.SQLITE_NOTADB: "start again; a broken state can be set aside with `on_broken_state`",
}


def explain(path: Path, error: sqlite3.Error) -> StoreError:
    """Return what SQLite says about `path` as an error with a remedy."""
    remedy = REMEDIES.get(_primary_code(error), "see what the message names")
    return StoreError(f"{path}: {error}; {remedy}")


def was_interrupted(error: sqlite3.Error) -> bool:
    """Return whether a query was stopped by the connection's progress handler."""
    return _primary_code(error) == sqlite3.SQLITE_INTERRUPT


def size_on_disk(path: Path) -> int:
    """Return the bytes of a state file and its -wal, 0 for one that is not there."""
    size_bytes = 0
    for each in (path, path.with_name(f"{path.name}-wal")):
        with suppress(OSError):
            size_bytes += each.stat().st_size
    return size_bytes


def _primary_code(error: sqlite3.Error) -> int:
    # Errors of the Python module itself (a closed connection) carry no code of SQLite.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    """Open an existing database file in autocommit mode; transactions are written out by the callers.

    The connection may be used by any thread, one at a time. Raises `sqlite3.Error`.
    """
    mode = "rw" if writable else "ro"
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )


def columns(row_type: type[tuple[Any, ...]], table: str = "") -> str:
    """Return the columns of a table that keeps rows of a NamedTuple, in its fields' order."""
    fields: tuple[str, ...] = getattr(row_type, "_fields")  # noqa: B009 - no type says "a NamedTuple class"
    return ", ".join(f'{table}."{field}"' if table else f'"{field}"' for field in fields)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Make the block one write transaction; whatever leaves the block early takes it back."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # A full disk may already have ended the transaction.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


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
        # `rows`, `records` and `bytes` are sums over what is still to be sent, so that nobody has to scan.
        """CREATE TABLE journal_cursor (
            signal TEXT PRIMARY KEY, item INTEGER NOT NULL, "rows" INTEGER NOT NULL,
            records INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE request (
            ordinal INTEGER PRIMARY KEY, time INTEGER NOT NULL, context BLOB NOT NULL, app TEXT NOT NULL,
            method TEXT NOT NULL, operation TEXT NOT NULL, status INTEGER, user TEXT NOT NULL,
            address TEXT NOT NULL, record_id TEXT NOT NULL, message TEXT NOT NULL)""",
        # What views filter by stands first: SQLite decodes a row only as far as it must.
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
        # A second copy of what a start cannot do without, on another page of the file.
        "CREATE TABLE spare (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID",
        # Rows of the journal that were found damaged, for whoever wants to look.
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


MIGRATIONS: tuple[Migration, ...] = (_version_1, _version_2)
"""Migration n, counted from 1, brings a state from version n - 1 to n; a released one is never changed."""


def lock(directory: Path) -> int:
    """Make `directory` where it is missing, and return a descriptor that holds its lock until it is closed.

    A directory that is made is 0700; one that exists keeps its mode, as the state file is 0600 by itself.
    Raises StoreError when it is no directory, not writable, or locked by another daemon.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = _open_private(directory / LOCK_FILE)
    except FileExistsError:
        raise StoreError(f"{directory} is not a directory; name another one for the state") from None
    except OSError as error:
        raise _not_ours(directory, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise StoreError(
                f"{directory} is in use by another wok-exporter; stop that one, or give this one a state of its own"
            ) from None
        raise _not_ours(directory, error) from error
    return descriptor


def _open_private(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _not_ours(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} cannot be used: {error.strerror}; it must belong to, and be writable for, the user that runs this program"
    )


def open_writer(
    path: Path, *, on_broken: OnBroken, migrations: Sequence[Migration] = MIGRATIONS
) -> sqlite3.Connection:
    """Return the one connection that writes, to a file that exists, is sound and of the newest version.

    With `on_broken="restart"` a broken file is renamed to `<name>.broken-<n>` and a new one is made. Raises
    StoreError otherwise, and always for a file of a later release or of another program.
    """
    try:
        try:
            return _open_checked(path, migrations)
        except _BrokenError as broken:
            if on_broken == "fail":
                raise StoreError(
                    f"{path} is broken ({broken}); restore it, or start once with `on_broken_state` set to"
                    " `restart`: it is then renamed, and counting begins anew"
                ) from broken
            _set_aside(path)
            return _open_checked(path, migrations)
    except sqlite3.Error as error:
        raise explain(path, error) from error
    except OSError as error:
        raise _not_ours(path, error) from error


def _open_checked(path: Path, migrations: Sequence[Migration]) -> sqlite3.Connection:
    # Made by hand: SQLite gives a new file, and later its -wal, the mode that the umask leaves.
    descriptor = _open_private(path)
    try:
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    # Looked at through a connection that cannot write: closing another one would write the -wal of a broken
    # file back into it, and with that destroy what a repair might start from.
    with closing(connect(path, writable=False)) as db:
        try:
            version = known_version(db, path, migrations)
            # A page torn long ago would otherwise stop a commit at any later time, again and again.
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.Error as error:
            if _primary_code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
                raise _BrokenError(str(error)) from error
            raise
        if verdict != "ok":
            raise _BrokenError(" ".join(verdict.split()))
    db = connect(path, writable=True)
    try:
        _prepare(db, path, version, migrations)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path, version: int, migrations: Sequence[Migration]) -> None:
    db.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a new file; an old one keeps its own
    if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise StoreError(f"{path}: its file system does not allow a WAL; put the state on a local one")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_BEFORE_CHECKPOINT}")
    db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
    for number, migrate in enumerate(migrations[version:], start=version + 1):
        with transaction(db):
            migrate(db)
            db.execute(f"PRAGMA user_version = {number}")


def known_version(db: sqlite3.Connection, path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Return the schema version of a state, 0 for an empty file; raises StoreError for one it cannot know."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    owner = int(db.execute("PRAGMA application_id").fetchone()[0])
    is_empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if owner != APPLICATION_ID and not (is_empty and owner == 0):
        raise StoreError(f"{path} belongs to another program; name another directory for the state")
    if version > len(migrations):
        raise StoreError(
            f"{path} was written by a later release (version {version}, this one knows {len(migrations)});"
            " install that release again, or give this one a state of its own"
        )
    return version


def _set_aside(path: Path) -> None:
    numbered = sorted(
        (int(number), old)
        for old in path.parent.glob(f"{path.name}.broken-*")
        if (number := old.name.rpartition("-")[2]).isdecimal()
    )
    for _, old in numbered[: len(numbered) + 1 - BROKEN_FILES_KEPT]:
        old.unlink()
        old.with_name(f"{old.name}-wal").unlink(missing_ok=True)
    kept = path.with_name(f"{path.name}.broken-{numbered[-1][0] + 1 if numbered else 1}")
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    # The -wal first: should the program die in between, the next start finds the file still broken,
    # and never a new file beside an old -wal.
    wal = path.with_name(f"{path.name}-wal")
    if wal.exists():
        wal.rename(kept.with_name(f"{kept.name}-wal"))
    path.rename(kept)
