"""The state file: made privately, locked, checked at the start, migrated, and set aside when it is broken."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from exporter.records import SIGNALS, Histogram
from exporter.store.database import (
    BROKEN_FILES_KEPT,
    PAGE_BYTES,
    StoreError,
    columns,
    open_writer,
    transaction,
)
from exporter.store.history import REQUESTS, TASKS, recount
from exporter.store.journal import JournalStatus
from exporter.store.migrations import APPLICATION_ID, MIGRATIONS
from exporter.store.reader import Reader
from exporter.store.search import Sought
from exporter.store.task_view import Running, of_ended, of_running
from exporter.store.writer import Loaded, Store
from tests.store_made import commit, journal_row, loaded, open_task, request_row, task_row

DAMAGES = 60
COUNT = ("wok_requests_total", "kimchi", "POST", "202")


def committed(directory: Path, batches: int = 1) -> Path:
    """Make a closed state with some batches in it; return its file."""
    store = Store(directory)
    store.set_signals(frozenset({"logs"}))
    write(store, batches)
    store.close()
    return directory / "state.db"


def write(store: Store, batches: int) -> None:
    """Commit batches of a request each, whose ordinals and counter go on from what is there."""
    first = int(store.load().positions.get("log", "0")) + 1
    for ordinal in range(first, first + batches):
        store.commit(
            commit(
                positions={"log": str(ordinal)},
                counters={COUNT: 1},
                requests=[request_row(ordinal)],
                journal=[journal_row("logs", ordinal)],
            ),
            1.0,
        )


def batches_in(directory: Path) -> int:
    """The number of batches in a state, after a look whether all its parts agree on it."""
    store = Store(directory)
    reader = store.reader()
    try:
        position = int(store.load().positions.get("log", "0"))
        snapshot = reader.snapshot()
        ordinals = [request.ordinal for request in reader.requests_between(1, 2**31, 2**31)]
    finally:
        reader.close()
        store.close()
    journalled = snapshot.journal["logs"].records if snapshot.journal else 0

    assert list(range(1, position + 1)) == ordinals
    assert {position} == {int(snapshot.counters.get(COUNT, 0)), journalled}
    return position


def test_files_are_private(tmp_path: Path) -> None:
    """Whatever the umask is, the directory is 0700 and every file in it 0600, the -wal included."""
    old_mask = os.umask(0)
    try:
        store = Store(tmp_path / "a" / "state")
        write(store, 1)
    finally:
        os.umask(old_mask)
    directory = tmp_path / "a" / "state"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.iterdir())}
    store.close()

    assert modes == {
        "state": 0o700,
        "state.db": 0o600,
        "state.db-wal": 0o600,
        "state.db-shm": 0o600,
        "state.lock": 0o600,
    }


def test_lax_mode_is_tightened(tmp_path: Path) -> None:
    """A state file that others could read is made private at the start."""
    file = committed(tmp_path)
    file.chmod(0o644)
    Store(tmp_path).close()

    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_second_daemon_is_refused(tmp_path: Path) -> None:
    """One daemon per state, also in another process; when the first has ended, the state is free."""
    first = Store(tmp_path)
    program = "import sys; from pathlib import Path; from exporter.store.writer import Store; Store(Path(sys.argv[1]))"
    other = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False
    )
    with pytest.raises(StoreError, match="is in use by another wok-exporter; stop that one"):
        Store(tmp_path)
    first.close()

    assert f"{tmp_path} is in use by another" in other.stderr
    assert other.returncode == 1

    Store(tmp_path).close()


def test_failed_start_releases_the_lock(tmp_path: Path) -> None:
    """A start that fails leaves no lock behind: the next one sees the same trouble, not itself."""
    (tmp_path / "state.db").write_bytes(b"\0" * 4096)
    for _ in range(2):
        with pytest.raises(StoreError, match="is broken"):
            Store(tmp_path)


def _truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _scribbled(file: Path) -> None:
    size = file.stat().st_size
    with file.open("r+b") as opened:
        for offset in range(4096, size, 4096):
            opened.seek(offset)
            opened.write(b"\xa5" * 200)


BREAKAGES: dict[str, Callable[[Path], object]] = {
    "NULs": lambda file: file.write_bytes(b"\0" * file.stat().st_size),
    "garbage": lambda file: file.write_bytes(b"not a database\n" * 1000),
    "a few bytes": lambda file: file.write_bytes(b"SQLite format 3\0"),
    "truncated": _truncated,
    "scribbled": _scribbled,
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_broken_state(tmp_path: Path, breakage: str) -> None:
    """A broken file is refused with the remedy; on request it is set aside as it is, and a new one begun."""
    file = committed(tmp_path, batches=20)
    BREAKAGES[breakage](file)
    content = file.read_bytes()
    with pytest.raises(StoreError, match=r"state\.db is broken .*on_broken_state"):
        Store(tmp_path)

    assert content == file.read_bytes()

    store = Store(tmp_path, on_broken="restart")
    try:
        assert loaded(store) == Loaded({}, "", [], [], set())
        assert content == (tmp_path / "state.db.broken-1").read_bytes()

        store.set_signals(frozenset({"logs"}))
        write(store, 3)
    finally:
        store.close()

    assert batches_in(tmp_path) == 3


@pytest.mark.parametrize("loss", ["missing", "empty"])
def test_lost_state(tmp_path: Path, loss: str) -> None:
    """A file that is missing or empty is a new state, even beside an old -wal."""
    store = Store(tmp_path)
    write(store, 2)
    shutil.copy(tmp_path / "state.db-wal", tmp_path / "kept")
    store.close()
    (tmp_path / "kept").rename(tmp_path / "state.db-wal")
    if loss == "missing":
        (tmp_path / "state.db").unlink()
    else:
        os.truncate(tmp_path / "state.db", 0)

    assert batches_in(tmp_path) == 0


def test_broken_state_keeps_its_wal(tmp_path: Path) -> None:
    """A damaged file and its -wal are kept as they are; what the -wal holds is in the new state."""
    committed(tmp_path / "state", batches=200)
    store = Store(tmp_path / "state")
    write(store, 1)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("state.db", "state.db-wal"):
        shutil.copy(tmp_path / "state" / name, copy / name)
    store.close()
    _scribbled(copy / "state.db")
    content = (copy / "state.db").read_bytes()
    wal = (copy / "state.db-wal").read_bytes()
    store = Store(copy)
    try:
        assert store.load().positions == {"log": "201"}
    finally:
        store.close()

    assert content == (copy / "state.db.broken-1").read_bytes()
    assert wal == (copy / "state.db.broken-1-wal").read_bytes()


def whole(directory: Path) -> Path:
    """Make a closed state of many pages, with all that a state can hold; return its file."""
    store = Store(directory)
    store.set_signals(frozenset({"logs", "traces"}))
    for first in range(1, 401, 50):
        numbers = range(first, first + 50)
        store.commit(
            commit(
                positions={"log": json.dumps({"offset": first}), "restarts": "{}"},
                state=json.dumps({"batch": first, "filler": "x" * 3000}),
                opened=[open_task(n, data=json.dumps({"filler": "y" * 500})) for n in numbers],
                counters={COUNT: 50, **{("c", str(n)): 1 for n in numbers}},
                gauges={("g", str(n)): n for n in numbers},
                histograms={("h", str(n)): Histogram([1, 2], 3.0, [(0, 1.0, "a", 2.0)]) for n in numbers},
                requests=[request_row(n, message="m" * 300) for n in numbers],
                tasks=[task_row(n, message="m" * 300) for n in numbers],
                journal=[journal_row(s, n, size=400) for n in numbers for s in ("logs", "traces")],
            ),
            1.0,
        )
    store.close()
    return directory / "state.db"


def used(directory: Path) -> int:
    """Do all that a daemon does with a state; return how many journal rows were sent."""
    store = Store(directory)
    try:
        store.set_signals(frozenset({"logs", "traces"}))
        found = loaded(store)
        assert isinstance(json.loads(found.positions["log"])["offset"], int)
        assert isinstance(json.loads(found.state)["batch"], int)
        assert all(json.loads(task.data)["filler"] == "y" * 500 for task in found.open_tasks)
        sent = 0
        for signal in SIGNALS:
            while entries := store.journal_read(signal, 10, 10**6):
                assert all(set(entry.payload) == {entry.payload[0]} for entry in entries)
                sent += len(entries)
                store.journal_advance(signal, entries[-1].row, entries[-1].items, {})
            assert store.journal_status(signal) == JournalStatus(0, 0, None)
        later = range(1001, 1011)
        store.commit(
            commit(
                positions={"log": '{"offset": 1001}'},
                state='{"batch": 1001}',
                opened=[open_task(n) for n in later],
                closed=[open_task(n).key for n in range(1, 401)],
                counters={COUNT: 10},
                histograms={("h", str(n)): Histogram([1, 2], 3.0, []) for n in range(1, 401)},
                requests=[request_row(n) for n in later],
                tasks=[task_row(n) for n in later],
                journal=[journal_row("logs", n) for n in later],
            ),
            2.0,
        )
        with closing(store.reader()) as reader:
            reader.snapshot()
            reader.overview()
            reader.running()
            place = None
            while True:
                page = reader.find_tasks(Sought(text="web"), running=True, ended=True, place=place, limit=100)
                for task in page.tasks:
                    if isinstance(task, Running):
                        of_running(task.row, now=1, requests=1)
                    else:
                        of_ended(task.row)
                if page.next is None:
                    break
                place = page.next
            assert reader.find_requests(Sought(text="guest"), before=None, limit=2000).requests
            reader.story(task_row(1005).context, meanwhile_max=10, durations_max=10)
        return sent
    finally:
        store.close()


def test_five_random_bytes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever some bytes are changed, a start goes on with all that is not damaged, and tells of it."""
    file = whole(tmp_path / "sound")
    content = file.read_bytes()
    shutil.copytree(tmp_path / "sound", tmp_path / "undamaged")
    assert used(tmp_path / "undamaged") == 800
    sent = []
    for seed in range(DAMAGES):
        draw = random.Random(seed)
        # The numbers that say whose file this is, and of which release, are believed.
        first = PAGE_BYTES if seed % 4 else draw.choice([0, 76, 100])
        last = len(content) if seed % 4 else PAGE_BYTES
        if first == 0:
            last = 60
        at = draw.randrange(first, last - 5)
        damaged = bytearray(content)
        for place in range(at, at + 5) if seed % 2 else draw.sample(range(first, last), 5):
            damaged[place] = draw.randrange(256)
        directory = tmp_path / str(seed)
        directory.mkdir()
        (directory / "state.db").write_bytes(damaged)
        caplog.clear()
        sent.append(used(directory))
        assert sent[-1] == 800 or "damaged" in caplog.text
        shutil.rmtree(directory)

    # A page of the journal has some thirty rows, and a page is seldom hit.
    assert min(sent) > 500
    assert sum(sent) > 0.95 * 800 * len(sent)


ODD_VALUES: list[Any] = [
    None,
    -1,
    2**63 - 1,
    -(2**63),
    float("inf"),
    -1.5,
    "",
    b"\xff",
    "{}",
    "[1e999]",
    "null",
    "x" * 99,
]


def test_damaged_values(tmp_path: Path) -> None:
    """Whatever single values a sound file has, in any column, a start goes on or refuses the state, and
    nothing is counted that was never there.
    """
    whole(tmp_path / "sound")
    with closing(sqlite3.connect(tmp_path / "sound" / "state.db")) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        places = [
            (table, row[1])
            for table in tables
            if db.execute(f"SELECT 1 FROM {table}").fetchone()
            for row in db.execute(f"PRAGMA table_info({table})")
        ]
    for number, (table, column) in enumerate(places):
        for odd in random.Random(number).sample(ODD_VALUES, 2):
            directory = tmp_path / "damaged"
            shutil.copytree(tmp_path / "sound", directory)
            with closing(sqlite3.connect(directory / "state.db")) as db, suppress(sqlite3.IntegrityError), db:
                (value,) = db.execute(f'SELECT "{column}" FROM {table} LIMIT 1').fetchone()
                db.execute(f'UPDATE {table} SET "{column}" = ? WHERE "{column}" IS ?', (odd, value))
            try:
                assert used(directory) <= 800, (table, column, odd)
            except StoreError as error:
                assert "is broken" in str(error), (table, column, odd)  # noqa: PT017
            shutil.rmtree(directory)


def test_both_copies_of_the_position_are_damaged(tmp_path: Path) -> None:
    """Without a position that can be trusted nothing goes on by itself; on request a new state is begun."""
    file = whole(tmp_path)
    damaged = file.read_bytes().replace(b'{"offset": 351}', b'{"offset": 951}')
    file.write_bytes(damaged.replace(b'{"offset": 951}', b'{"offset": 451}', 1))
    with pytest.raises(StoreError, match=r"both copies of position:log are damaged.*on_broken_state"):
        Store(tmp_path)

    store = Store(tmp_path, on_broken="restart")
    try:
        assert store.load().positions == {}
    finally:
        store.close()


@pytest.mark.parametrize("name", ["state.db", "state.db-wal", "state.lock"])
def test_pipes_are_refused(tmp_path: Path, name: str) -> None:
    """A FIFO in the place of a file of the state is refused at once; nothing waits for somebody to write to it."""
    committed(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(StoreError, match="not a regular file"):
        Store(tmp_path)


def test_the_state_of_the_first_version(tmp_path: Path) -> None:
    """A state of version 1, whose rows have no checksums and whose texts no bound, is used like any other."""
    db = open_writer(tmp_path / "state.db", on_broken="fail", migrations=MIGRATIONS[:1])
    long = "\u00e9" * 100_000
    with transaction(db):
        db.execute("INSERT INTO meta VALUES ('state', '{\"batch\": 7}')")
        db.execute("INSERT INTO position VALUES ('log', '{\"offset\": 7}')")
        for signal in SIGNALS:
            db.execute("INSERT INTO journal_cursor VALUES (?, 0, 1, 1, 10)", (signal,))
            db.execute(
                "INSERT INTO journal (signal, resource, items, payload, first, last) VALUES (?, ?, ?, ?, ?, ?)",
                journal_row(signal, 1),
            )
        rows: list[tuple[str, tuple[Any, ...]]] = [
            ("request", request_row(1, user=long, message=long)),
            ("open_task", open_task(5, data=json.dumps({"filler": "y" * 500}))),
            ("task", task_row(1, target_uri=long, message=long)),
        ]
        for table, row in rows:
            later = ('"candidates"', '"found_id"', '"exception"', '"stack"', '"resource"')
            fields = [name for name in columns(type(row)).split(", ") if name not in later]
            marks = ", ".join("?" for _ in fields)
            db.execute(
                f"INSERT INTO {table} ({', '.join(fields)}) VALUES ({marks})",
                row[: len(fields)],
            )
    db.close()

    assert used(tmp_path) == 2
    store = Store(tmp_path)
    try:
        counted_bytes = store._db.execute("SELECT name, bytes FROM history ORDER BY name").fetchall()
        for history in (REQUESTS, TASKS):
            recount(store._db, history)
        assert counted_bytes == store._db.execute("SELECT name, bytes FROM history ORDER BY name").fetchall()
        assert sum(size for _, size in counted_bytes) < 20_000
    finally:
        store.close()


def test_gaps_counted_by_the_previous_version(tmp_path: Path) -> None:
    """Gaps in the log that were counted among the lost records go on under the metric of their own."""
    db = open_writer(tmp_path / "state.db", on_broken="fail", migrations=MIGRATIONS[:3])
    lost = "wok_exporter_lost_records_total"
    with transaction(db):
        for series, value in (((lost, "gap"), 3.0), ((lost, "journal_full"), 5.0)):
            db.execute("INSERT INTO counter VALUES (?, ?)", (json.dumps(series), value))
    db.close()
    store = Store(tmp_path)
    try:
        gap = ("wok_exporter_log_gaps_total",)
        store.count({gap: 1.0})
        with closing(store.reader()) as reader:
            assert reader.snapshot().counters == {gap: 4.0, (lost, "journal_full"): 5.0}
    finally:
        store.close()


def test_broken_files_do_not_pile_up(tmp_path: Path) -> None:
    """However often a state breaks, only the newest broken files are kept, under numbers that rise."""
    for number in range(1, 7):
        (tmp_path / "state.db").write_bytes(b"broken" * 100 + bytes([number]))
        (tmp_path / "state.db-wal").write_bytes(bytes([number]))
        Store(tmp_path, on_broken="restart").close()

    kept = sorted(path.name for path in tmp_path.iterdir() if "broken" in path.name)
    assert [f"state.db.broken-{n}{part}" for n in (4, 5, 6) for part in ("", "-wal")] == kept
    assert len(kept) == 2 * BROKEN_FILES_KEPT
    assert (tmp_path / "state.db.broken-6-wal").read_bytes() == b"\6"


def test_wal_cut_at_any_byte(tmp_path: Path) -> None:
    """A -wal that ends anywhere gives the state after some whole batch, never half of one, never an error."""
    store = Store(tmp_path / "state")
    store.set_signals(frozenset({"logs"}))
    write(store, 2)
    reader = sqlite3.connect(tmp_path / "state" / "state.db")
    reader.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    reader.close()
    write(store, 3)
    database, wal = ((tmp_path / "state" / name).read_bytes() for name in ("state.db", "state.db-wal"))
    store.close()
    # A frame is a page and 24 bytes, after a header of 32: around each border, and some cuts elsewhere.
    borders = range(32, len(wal) + 1, PAGE_BYTES + 24)
    cuts = {border + step for border in borders for step in (-1, 0, 1)} | set(range(0, len(wal), 1777))
    found = {}
    for cut in sorted(cut for cut in cuts if cut <= len(wal)):
        directory = tmp_path / str(cut)
        directory.mkdir()
        (directory / "state.db").write_bytes(database)
        (directory / "state.db-wal").write_bytes(wal[:cut])
        found[cut] = batches_in(directory)
        shutil.rmtree(directory)

    assert sorted(set(found.values())) == [2, 3, 4, 5]
    assert sorted(found.values()) == list(found.values())
    assert found[len(wal)] == 5


def test_killed_between_any_two_commits(tmp_path: Path) -> None:
    """A copy of the files taken while the store is open opens as the state of the last commit."""
    store = Store(tmp_path / "state")
    store.set_signals(frozenset({"logs"}))
    try:
        for number in range(1, 6):
            write(store, 1)
            copy = tmp_path / f"copy-{number}"
            copy.mkdir()
            for name in ("state.db", "state.db-wal"):
                shutil.copy(tmp_path / "state" / name, copy / name)

            assert batches_in(copy) == number
    finally:
        store.close()


HALF_WRITTEN = """
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("CREATE TABLE made (x)")
db.execute("DROP TABLE made")
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN IMMEDIATE")
db.execute("CREATE TABLE half (x)")
db.executemany("INSERT INTO half VALUES (?)", [(bytes(4096),)] * 100)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_while_the_file_is_created(tmp_path: Path) -> None:
    """A file that was not in WAL mode yet, with half a transaction, is rolled back and used."""
    (tmp_path / "state").mkdir()
    file = tmp_path / "state" / "state.db"
    subprocess.run([sys.executable, "-c", HALF_WRITTEN, file], check=False)
    assert file.with_name("state.db-journal").stat().st_size
    with (
        closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db,
        pytest.raises(sqlite3.OperationalError),
    ):
        db.execute("SELECT * FROM sqlite_master")

    assert batches_in(committed(file.parent).parent) == 1
    assert not file.with_name("state.db-journal").exists()


def _add_column(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE request ADD COLUMN note TEXT NOT NULL DEFAULT ''")


def _fail(db: sqlite3.Connection) -> None:
    _add_column(db)
    raise KeyboardInterrupt


def test_older_state_is_migrated(tmp_path: Path) -> None:
    """A state of an earlier version is brought up to date, once, and keeps what it holds."""
    file = committed(tmp_path)
    for _ in range(2):
        db = open_writer(file, on_broken="fail", migrations=(*MIGRATIONS, _add_column))
        try:
            assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
            assert db.execute("SELECT ordinal, note FROM request").fetchall() == [(1, "")]
        finally:
            db.close()


def test_failing_migration_changes_nothing(tmp_path: Path) -> None:
    """A migration that is interrupted leaves the state of the earlier version, which still opens."""
    file = committed(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        open_writer(file, on_broken="fail", migrations=(*MIGRATIONS, _fail))

    assert batches_in(tmp_path) == 1


def test_newer_state_is_refused(tmp_path: Path) -> None:
    """A state of a later release is refused by daemon and reader, also with leave to restart, and not touched."""
    file = committed(tmp_path)
    open_writer(file, on_broken="fail", migrations=(*MIGRATIONS, _add_column)).close()
    content = file.read_bytes()
    for opened in (lambda: Store(tmp_path, on_broken="restart"), lambda: Reader(tmp_path)):
        with pytest.raises(StoreError, match=r"written by a later release \(version 6, this one knows 5\)"):
            opened()

    assert content == file.read_bytes()
    assert [file.name, "state.lock"] == sorted(
        path.name for path in tmp_path.iterdir() if "-" not in path.name
    )


def test_reader_wants_the_current_version(tmp_path: Path) -> None:
    """A reader does not guess at the state of an earlier release."""
    sqlite3.connect(tmp_path / "state.db").close()
    db = sqlite3.connect(tmp_path / "state.db")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.close()

    with pytest.raises(StoreError, match="start the daemon once"):
        Reader(tmp_path)


def test_foreign_database_is_refused(tmp_path: Path) -> None:
    """A database of another program is never renamed, migrated or written to."""
    db = sqlite3.connect(tmp_path / "state.db")
    db.execute("CREATE TABLE theirs (a)")
    db.close()
    content = (tmp_path / "state.db").read_bytes()
    with pytest.raises(StoreError, match="belongs to another program"):
        Store(tmp_path, on_broken="restart")

    assert content == (tmp_path / "state.db").read_bytes()


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Be somebody whom file modes bind, also when the tests are run by root."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_unusable_places(tmp_path: Path) -> None:
    """A file in the directory's place, a directory in the file's, a link in the lock's: each named, with a remedy."""
    (tmp_path / "file").touch()
    (tmp_path / "one" / "state.db").mkdir(parents=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "state.lock").symlink_to(tmp_path / "file")
    for place, message in (
        ("file", "file is not a directory"),
        ("file/below", r"cannot use .*file/below: Not a directory"),
        ("one", r"cannot use .*state\.db: Is a directory"),
        ("two", r"cannot use .*two: Too many levels of symbolic links"),
    ):
        with pytest.raises(StoreError, match=message):
            Store(tmp_path / place)


@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_unwritable_directory(tmp_path: Path, mode: int) -> None:
    """A directory that the user may not write to is refused with a sentence, not a traceback."""
    directory = tmp_path / "state"
    committed(directory)
    directory.chmod(mode)
    try:
        with ordinary_user(), pytest.raises(StoreError, match="Permission denied; it must belong to"):
            Store(directory)
    finally:
        directory.chmod(0o700)


def test_error_names_file_and_remedy(tmp_path: Path) -> None:
    """What SQLite says during a commit reaches the caller with the file's name and what to do."""
    store = Store(tmp_path)
    try:
        write(store, 1)
        store._db.execute("PRAGMA query_only = 1")
        with pytest.raises(
            StoreError, match=rf"^{tmp_path}/state\.db: attempt to write a readonly .*writable"
        ):
            write(store, 1)
        store._db.execute("PRAGMA query_only = 0")
        write(store, 1)
    finally:
        store.close()
