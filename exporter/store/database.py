"""The state file: how it is created, locked, checked, migrated and, when it is damaged, recovered.

The state is one SQLite database, `state.db`, in a directory of its own, with SQLite's `-wal` and
`-shm` files beside it while it is open. In WAL mode readers never wait for the writer, nor the
writer for them, and `synchronous=NORMAL` never corrupts the file: a power cut loses the last few
whole transactions, and these are read again from the log. What can be wrong with the file when the
program starts:

* missing or empty: a new state is created; there is nothing left to lose;
* a `-wal` that is cut off anywhere: SQLite opens the last whole transaction;
* a `-journal`: the program was killed while it created the file; SQLite rolls that back;
* damaged pages: all readable rows are copied into a new file, and the damaged one is kept beside
  it;
* not a database, or without the positions in the log: *broken*. Nothing is done unless the
  administrator says so; then the file is renamed, never overwritten;
* written by a later release, or by another program: always rejected, because this release cannot
  know it.

A lock on `state.lock` keeps a second daemon away. It is on a file of its own, because SQLite's own
locks on `state.db` are lost when any other descriptor of that file is closed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from exporter.store.migrations import APPLICATION_ID, MIGRATIONS, Migration
from exporter.store.salvage import copy_tables

STATE_FILE = "state.db"
LOCK_FILE = "state.lock"

BUSY_TIMEOUT_SECONDS = 10.0
"""Only a person with a SQLite shell competes with the daemon; their transaction
may take a moment.
"""

PAGE_BYTES = 16384
"""The journal's rows are blobs of up to a megabyte: larger pages halve the work of writing and
deleting them.
"""

WAL_PAGES_BEFORE_CHECKPOINT = 1024
"""16 MiB: a burst is then synced a few times a second rather than ten times."""

WAL_BYTES_KEPT = 64 * 1024 * 1024
"""A WAL that a long reader let grow is cut back to this size afterwards."""

BROKEN_FILES_KEPT = 3
"""A disk that damages one state after another must not be filled with them."""

OnBroken = Literal["fail", "restart"]


class StoreError(Exception):
    """The state cannot be used now; the message names the file, what is wrong, and what to do."""


class LockedError(StoreError):
    """Another process uses the state."""


class BrokenError(Exception):
    """The file is damaged; the message says how."""


def _nothing(_: sqlite3.Connection) -> None:
    """Mend nothing."""


REMEDIES = {
    sqlite3.SQLITE_FULL: "free space on its file system; nothing is lost, and reading goes on afterwards",
    sqlite3.SQLITE_IOERR: "check the disk, its space and quotas; nothing is lost, and reading goes on afterwards",
    sqlite3.SQLITE_READONLY: "make the file and its directory writable for the user that runs this program",
    sqlite3.SQLITE_CANTOPEN: "make the file and its directory accessible for the user that runs this program",
    sqlite3.SQLITE_BUSY: "stop the other program that has a transaction open on it",
    sqlite3.SQLITE_CORRUPT: "restart the exporter: it recovers what can be read of a damaged state",
    sqlite3.SQLITE_NOTADB: "restart the exporter: it recovers what can be read of a damaged state",
}


def explain(path: Path, error: sqlite3.Error) -> StoreError:
    """Return an error of SQLite about `path`, with what to do."""
    remedy = REMEDIES.get(_primary_code(error), "restart the exporter, and report this if it stays")
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
    """Open an existing database file in autocommit mode; callers begin and commit transactions.

    The connection may be used by any thread, one at a time. Raises `sqlite3.Error`.
    """
    mode = "rw" if writable else "ro"
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    # A damaged byte in a text must not make its row unreadable.
    db.text_factory = _tolerant
    return db


def _tolerant(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def columns(row_type: type[tuple[Any, ...]], table: str = "") -> str:
    """Return the columns of a table whose rows are a NamedTuple, in the order of its fields."""
    fields: tuple[str, ...] = getattr(row_type, "_fields")  # noqa: B009 - no type says "a NamedTuple class"
    return ", ".join(f'{table}."{field}"' if table else f'"{field}"' for field in fields)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Make the block one write transaction, which any exception rolls back."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # A full disk may already have ended the transaction.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def lock(directory: Path) -> int:
    """Make `directory` where it is missing, and return a descriptor that holds its lock until it is
    closed.

    A new directory has mode 0700. An existing one keeps its mode, because the state file is 0600.
    Raises StoreError when it is not a directory, not writable, or locked by another daemon.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_file(directory / LOCK_FILE)
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
            raise LockedError(
                f"{directory} is in use by another wok-exporter; stop that one, or give this one another state directory"
            ) from None
        raise _not_ours(directory, error) from error
    return descriptor


def _open_private(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _require_file(path: Path) -> None:
    """Reject a FIFO or a device, which SQLite would wait for. A missing file is fine."""
    if path.exists() and not path.is_file():
        raise StoreError(f"{path} is not a regular file; remove it, or name another directory for the state")


def _not_ours(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot use {path}: {error.strerror}; it must belong to, and be writable for, the user that runs this program"
    )


Mend = Callable[[sqlite3.Connection], None]
"""Checks the contents of a state in a transaction, and may raise BrokenError."""


def open_writer(
    path: Path,
    *,
    on_broken: OnBroken,
    migrations: Sequence[Migration] = MIGRATIONS,
    mend: Mend = _nothing,
    salvaged: Mend = _nothing,
) -> sqlite3.Connection:
    """Return the one connection that writes, to a file that exists, is sound and of the newest
    version.

    `mend` is called with every state that is opened, and `salvaged` with one whose readable rows
    were copied from a damaged file, which is renamed to `<name>.broken-<n>`. With
    `on_broken="restart"` a file that cannot be recovered is renamed in the same way, and a new one
    is created. Raises StoreError otherwise, and always for a file of a later release or of another
    program.
    """
    try:
        try:
            return _open_checked(path, migrations, mend)
        except BrokenError as broken:
            if _salvage(path, migrations, mend, salvaged):
                return _open_checked(path, migrations, mend)
            if on_broken == "fail":
                raise StoreError(
                    f"{path} is broken ({broken}); restore it, or start once with `on_broken_state` set to"
                    " `restart`: the file is then renamed, and counting starts again"
                ) from broken
            _set_aside(path)
            return _open_checked(path, migrations, mend)
    except sqlite3.Error as error:
        raise explain(path, error) from error
    except OSError as error:
        raise _not_ours(path, error) from error


def _salvage(path: Path, migrations: Sequence[Migration], mend: Mend, salvaged: Mend) -> bool:
    """Copy the readable rows of a damaged file into a new one in its place; return whether that is
    a state.
    """
    copy, mended = (path.with_name(f"{path.name}.{name}") for name in ("new", "mended"))
    try:
        if not (
            _copy_rows(path, copy, migrations, mend, salvaged)
            or (
                _mend_first_page(path, mended, migrations)
                and _copy_rows(mended, copy, migrations, mend, salvaged)
            )
        ):
            return False
        _set_aside(path)
        copy.rename(path)
    finally:
        _remove(copy)
        _remove(mended)
    return True


def _mend_first_page(path: Path, mended: Path, migrations: Sequence[Migration]) -> bool:
    """Copy the files of a state, with the first page that a new state has; return whether that
    makes sense.

    The first page holds what is the same in every state: what kind of file it is, and where the
    tables begin.
    """
    size = path.stat().st_size
    if size < 2 * PAGE_BYTES:
        return False
    _create(mended)
    with closing(connect(mended, writable=True)) as db:
        _prepare(db, mended, 0, migrations)
    with mended.open("rb") as file:
        page = bytearray(file.read(PAGE_BYTES))
    pages = size // PAGE_BYTES
    page[28:32] = pages.to_bytes(4, "big")
    page[32:40] = bytes(8)  # no list of free pages
    shutil.copyfile(path, mended)
    wal = path.with_name(f"{path.name}-wal")
    if wal.exists():
        shutil.copyfile(wal, mended.with_name(f"{mended.name}-wal"))
    with mended.open("r+b") as file:
        file.write(page)
        file.truncate(pages * PAGE_BYTES)
    return True


def _create(path: Path) -> None:
    _remove(path)
    os.close(_open_private(path))


def _remove(path: Path) -> None:
    for name in ("", "-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)


def _copy_rows(path: Path, copy: Path, migrations: Sequence[Migration], mend: Mend, salvaged: Mend) -> bool:
    _create(copy)
    try:
        with closing(connect(path, writable=False)) as old, closing(connect(copy, writable=True)) as new:
            version = known_version(old, path, migrations)
            _require_schema(old, migrations[:version])
            _prepare(new, copy, 0, migrations[:version])
            with transaction(new):
                copy_tables(old, new)
            for number, migrate in enumerate(migrations[version:], start=version + 1):
                with transaction(new):
                    migrate(new)
                    new.execute(f"PRAGMA user_version = {number}")
            with transaction(new):
                mend(new)
                _require_positions(new)
                salvaged(new)
    except (sqlite3.DatabaseError, UnicodeError, BrokenError):
        return False
    return True


def _require_schema(db: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """Raise BrokenError unless all tables and indexes are those that the migrations make."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as new:
        for migrate in migrations:
            migrate(new)
        expected = new.execute(_SCHEMA).fetchall()
    if not set(expected).issubset(db.execute(_SCHEMA).fetchall()):
        raise BrokenError("its schema is damaged")


_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master"


def _require_positions(db: sqlite3.Connection) -> None:
    for table in ("position", "meta WHERE key = 'state'"):
        if db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is None:  # noqa: S608 - our own names
            raise BrokenError("the positions in the log are lost")


def _open_checked(path: Path, migrations: Sequence[Migration], mend: Mend) -> sqlite3.Connection:
    # Made by hand: SQLite gives a new file, and later its -wal, the mode that the umask leaves.
    for name in ("-wal", "-shm", "-journal"):
        _require_file(path.with_name(path.name + name))
    descriptor = _open_private(path)
    try:
        _require_file(path)
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    _roll_back(path)
    # Looked at through a connection that cannot write: closing another one would write the -wal of
    # a broken file back into it, and with that destroy what a repair might start from.
    with closing(connect(path, writable=False)) as db:
        with _telling_damage():
            version = known_version(db, path, migrations)
            # A page torn long ago would otherwise stop a commit at any later time, again and again.
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            _require_schema(db, migrations[:version])
        if verdict != "ok":
            raise BrokenError(" ".join(verdict.split()))
    db = connect(path, writable=True)
    try:
        with _telling_damage():
            _prepare(db, path, version, migrations)
            with transaction(db):
                # The check above does not look whether the indexes fit their tables.
                db.execute("REINDEX")
                mend(db)
    except BaseException:
        db.close()
        raise
    return db


def _roll_back(path: Path) -> None:
    """Undo the half of a transaction that was written before the file was in WAL mode. A connection
    that cannot write fails on such a file.
    """
    if path.with_name(f"{path.name}-journal").exists():
        with closing(connect(path, writable=True)) as db, _telling_damage():
            db.execute("PRAGMA schema_version").fetchone()


DAMAGE = {
    sqlite3.SQLITE_ERROR,  # the schema is another one than was written
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CONSTRAINT,
}


@contextmanager
def _telling_damage() -> Iterator[None]:
    """Raise BrokenError for what SQLite says of a damaged file."""
    try:
        yield
    except UnicodeError as error:
        # From a damaged schema SQLite makes messages that Python cannot decode.
        raise BrokenError("its schema cannot be read") from error
    except sqlite3.Error as error:
        if _primary_code(error) in DAMAGE:
            raise BrokenError(str(error)) from error
        raise


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
    """Return the schema version of a state, 0 for an empty file; raises StoreError for an unknown
    one.
    """
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    owner = int(db.execute("PRAGMA application_id").fetchone()[0])
    is_empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if owner != APPLICATION_ID and not (is_empty and owner == 0):
        raise StoreError(f"{path} belongs to another program; name another directory for the state")
    if version > len(migrations):
        raise StoreError(
            f"{path} was written by a later release (version {version}, this one knows {len(migrations)});"
            " install that release again, or give this one another state directory"
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
