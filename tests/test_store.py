"""The store: a batch is one transaction, and what was committed is what a start continues from."""

from __future__ import annotations

import resource
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.records import NANOS, Commit, Histogram, OpenTask, RequestRow, Series, TaskRow
from exporter.store import history
from exporter.store import writer as store_module
from exporter.store.journal import JournalStatus
from exporter.store.reader import InProgress, Snapshot, TaskPage
from exporter.store.writer import Loaded, Store, StoreError
from tests.store_made import commit, context, journal_row, loaded, open_task, request_row, task_row

FULL = Commit(
    positions={"log": '{"offset": 10}', "restarts": '{"offset": 2}'},
    state='{"settling": []}',
    opened=[open_task(1), open_task(2)],
    closed=(),
    counters={("wok_requests_total", "kimchi", "POST", "202"): 2.0},
    gauges={("wok_exporter_last_record_timestamp_seconds",): 7.0},
    histograms={
        ("wok_task_duration_seconds", "kimchi", "vms.clone", "success"): Histogram(
            [1, 0, 2], 5.5, [(2, 2.5, "ab" * 16, 100.0)]
        )
    },
    journal=[journal_row("traces", 1, items=3), journal_row("logs", 1, items=4, size=20)],
    requests=[request_row(1), request_row(2)],
    tasks=[task_row(1)],
)


@pytest.fixture(name="directory")
def _directory(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(name="store")
def _store(directory: Path) -> Iterator[Store]:
    store = Store(directory)
    store.set_signals(frozenset({"traces", "logs"}))
    yield store
    store.close()


def seen(store: Store) -> tuple[Loaded, Snapshot, TaskPage, list[RequestRow], list[list[object]]]:
    """All that can be seen of a store."""
    reader = store.reader()
    try:
        return (
            loaded(store),
            reader.snapshot(),
            reader.tasks(limit=1000),
            reader.requests_between(0, 10**9, 1000),
            [list(store.journal_read(signal, 10**6, 10**9)) for signal in ("traces", "logs")],
        )
    finally:
        reader.close()


def counters(store: Store) -> dict[Series, float]:
    """The counters of a store."""
    return seen(store)[1].counters


def test_new_state_is_empty(store: Store) -> None:
    """A state that was just made holds nothing."""
    assert Loaded({}, "", [], [], set()) == loaded(store)


def test_commit_survives_reopening(directory: Path) -> None:
    """Everything of a commit is read back after the store was closed and opened again."""
    store = Store(directory)
    store.set_signals(frozenset({"traces", "logs"}))
    store.commit(FULL, 12.5)
    store.close()
    reopened = Store(directory)
    try:
        found, snapshot, page, requests, journal = seen(reopened)
    finally:
        reopened.close()

    assert (
        Loaded(
            positions=dict(FULL.positions),
            state=FULL.state,
            open_tasks=list(FULL.opened),
            ended=list(FULL.tasks),
            series={*FULL.counters, *FULL.gauges, *FULL.histograms},
        )
        == found
    )
    assert (
        Snapshot(
            counters=dict(FULL.counters),
            gauges=dict(FULL.gauges),
            histograms=dict(FULL.histograms),
            in_progress={("kimchi", "vms.clone"): InProgress(2, FULL.opened[0].start)},
            journal={
                "traces": JournalStatus(3, 10, 1_000_000_000),
                "logs": JournalStatus(4, 20, 1_000_000_000),
            },
            is_ready=False,
            committed_seconds=12.5,
            state_bytes=snapshot.state_bytes,
        )
        == snapshot
    )
    assert TaskPage(list(FULL.tasks), None) == page
    assert list(FULL.requests) == requests
    assert journal == [[(1, 0, b"", 3, b"\1" * 10)], [(2, 0, b"", 4, b"\1" * 20)]]


@pytest.mark.parametrize("field", Commit._fields)
def test_failing_commit_changes_nothing(store: Store, field: str) -> None:
    """Whatever part of a commit fails, nothing of it is written, and the next commit works."""
    store.commit(FULL, 1.0)
    before = seen(store)
    something: Any = object()
    broken: dict[str, Any] = {
        "positions": {"log": something},
        "state": something,
        "opened": [open_task(9), open_task(10)._replace(data=something)],
        "closed": [context(1)[-8:], something],
        "counters": {("a",): 1.0, ("b",): something},
        "gauges": {("a",): 1.0, ("b",): something},
        "histograms": {("a",): Histogram([1], 1.0, []), ("b",): Histogram([1], something, [])},
        "journal": [journal_row("traces", 9), journal_row("traces", 9)._replace(payload=something)],
        "requests": [request_row(9), request_row(10)._replace(user=something)],
        "tasks": [task_row(9), task_row(9)._replace(app=something)],
    }
    half = FULL._replace(**{"requests": [], field: broken[field]})

    with pytest.raises((StoreError, TypeError)):
        store.commit(half, 2.0)

    assert before == seen(store)

    store.commit(commit(counters={("later",): 1.0}), 3.0)

    assert counters(store)["later",] == 1.0


def test_interrupted_commit_changes_nothing(store: Store) -> None:
    """A KeyboardInterrupt in the middle of a commit rolls it back like any error."""

    class Interrupting(dict[Series, float]):
        def items(self) -> Iterator[tuple[Series, float]]:  # type: ignore[override]
            yield ("a",), 1.0
            raise KeyboardInterrupt

    before = seen(store)

    with pytest.raises(KeyboardInterrupt):
        store.commit(commit(gauges=Interrupting()), 1.0)

    assert before == seen(store)


@given(
    batches=st.lists(
        st.dictionaries(st.tuples(st.sampled_from("abc"), st.text()), st.integers(0, 9)), max_size=6
    )
)
@settings(max_examples=25, deadline=None)
def test_counters_are_sums(
    tmp_path_factory: pytest.TempPathFactory, batches: list[Mapping[Series, float]]
) -> None:
    """However increments are cut into batches, counters are their sums, and gauges the last of each."""
    store = Store(tmp_path_factory.mktemp("state"))
    try:
        for batch in batches:
            store.commit(commit(counters=batch, gauges=batch), 1.0)
        snapshot = seen(store)[1]
    finally:
        store.close()
    sums: Counter[Series] = Counter()
    last: dict[Series, float] = {}
    for batch in batches:
        for series, value in batch.items():
            sums[series] += int(value)
            last[series] = value

    assert dict(sums) == snapshot.counters
    assert last == snapshot.gauges


def test_histograms_are_merged(store: Store) -> None:
    """Buckets and sums add up, and of each bucket the newest exemplar stays."""
    series = ("wok_task_duration_seconds", "kimchi", "vms.clone", "success")
    for histogram in (
        Histogram([1, 0, 0], 0.5, [(0, 0.5, "a", 1.0)]),
        Histogram([0, 2, 1], 9.5, [(1, 2.0, "b", 2.0), (1, 2.5, "c", 3.0)]),
        Histogram([1, 0, 0], 1.0, [(0, 1.0, "d", 4.0)]),
    ):
        store.commit(commit(histograms={series: histogram}), 1.0)

    expected = Histogram([2, 2, 1], 11.0, [(0, 1.0, "d", 4.0), (1, 2.5, "c", 3.0)])
    assert {series: expected} == seen(store)[1].histograms


def test_open_tasks_keep_their_order(store: Store) -> None:
    """Open tasks come back in the order of opening, also after one was written again; closed ones are gone."""
    store.commit(commit(opened=[open_task(3), open_task(1), open_task(2)]), 1.0)
    rewritten = open_task(3, data="{}")
    store.commit(commit(opened=[rewritten, open_task(4)], closed=[open_task(1).key, open_task(4).key]), 1.0)

    assert [rewritten, open_task(2)] == loaded(store).open_tasks


def test_hostile_values_are_stored(store: Store) -> None:
    """Half surrogate pairs, NULs and integers of any size are made storable, and no count gets lost."""
    half, other_half = "\ud800", "\udfff"
    store.commit(
        commit(
            opened=[open_task(1, target_uri=half, start=2**80)],
            requests=[request_row(1, user=f"a\0{half}", status=10**30)],
            tasks=[task_row(1, message=other_half, end=-(2**80))],
            counters={("a", half): 1.0, ("a", other_half): 2.0},
            gauges={("g", half): 1.0},
            journal=[journal_row("logs", 2**70)],
        ),
        1.0,
    )
    loaded, snapshot, page, requests, _ = seen(store)

    assert [open_task(1, target_uri="\ufffd", start=2**63 - 1)] == loaded.open_tasks
    assert [request_row(1, user="a\0\ufffd", status=2**63 - 1)] == requests
    assert [task_row(1, message="\ufffd", end=-(2**63))] == page.tasks
    assert snapshot.counters == {("a", "\ufffd"): 3.0}
    assert snapshot.gauges == {("g", "\ufffd"): 1.0}


def test_ended_tasks_remembered_are_the_newest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest tasks that succeeded or failed are loaded, oldest first; lost and unknown ones are not."""
    monkeypatch.setattr(store_module, "ENDED_TASKS_REMEMBERED", 3)
    rows = [task_row(n, outcome=("success", "failure", "lost", "unknown")[n % 4]) for n in range(10)]
    store.commit(commit(tasks=rows), 1.0)

    assert [rows[5], rows[8], rows[9]] == loaded(store).ended


def test_histories_are_bounded(directory: Path) -> None:
    """Histories keep at least what was asked for, at most a tenth more, and always the newest."""
    store = Store(directory, requests_kept=100, tasks_kept=50)
    try:
        for first in range(1, 500, 7):
            numbers = range(first, first + 7)
            store.commit(
                commit(requests=[request_row(n) for n in numbers], tasks=[task_row(n) for n in numbers]), 1.0
            )
            _, _, page, requests, _ = seen(store)
            last = numbers[-1]

            assert min(last, 100) <= len(requests) < 110
            assert [request_row(n) for n in range(last - len(requests) + 1, last + 1)] == requests
            assert min(last, 50) <= len(page.tasks) < 55
            assert [task_row(n) for n in range(last, last - len(page.tasks), -1)] == page.tasks
    finally:
        store.close()


def test_row_types_fit_the_schema(store: Store) -> None:
    """The tables have exactly the columns of the rows they keep, so that a new field is not forgotten."""
    for table, row_type, own in (
        ("open_task", OpenTask, {"checksum"}),
        ("request", RequestRow, set()),
        ("task", TaskRow, {"id"}),
    ):
        stored = {column[1] for column in store._db.execute(f"PRAGMA table_info({table})")}

        assert set(row_type._fields) == stored - own


def test_ready_is_for_good(directory: Path, store: Store) -> None:
    """A store is not ready until it is told so, and then stays ready over restarts."""
    assert not store.is_ready

    store.mark_ready()
    store.mark_ready()
    store.close()
    reopened = Store(directory)
    try:
        assert reopened.is_ready
        assert seen(reopened)[1].is_ready
    finally:
        reopened.close()


def _fill_with_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages + 4}")
    yield
    store._db.execute("PRAGMA max_page_count = 1073741823")


def _fill_with_file_size(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("fill", [_fill_with_pages, _fill_with_file_size])
def test_full_disk(store: Store, monkeypatch: pytest.MonkeyPatch, fill: object) -> None:
    """On a full disk a commit says so and changes nothing; when there is space again, it works."""
    assert callable(fill)
    store.commit(FULL, 1.0)
    before = seen(store)
    big = commit(
        journal=[journal_row("logs", 5, size=1_000_000)], counters={("c",): 1.0}, positions={"log": "{}"}
    )
    full_disk = fill(store, monkeypatch)
    next(full_disk)
    for _ in range(3):
        with pytest.raises(StoreError, match=r"state\.db: .*; (free space|check the disk).*reading goes on"):
            store.commit(big, 2.0)
    assert next(full_disk, None) is None

    assert before == seen(store)

    store.commit(big, 3.0)

    assert store.load().positions == {"log": "{}", "restarts": '{"offset": 2}'}


def test_threads_take_turns(store: Store) -> None:
    """Commits, deliveries and counts from several threads at once lose and repeat nothing."""
    batches = 150
    sent: list[bytes] = []

    def deliver() -> None:
        while len(sent) < batches:
            for entry in store.journal_read("logs", 3, 10**6):
                store.journal_advance("logs", entry.row, entry.items, {("sent",): entry.items})
                sent.append(entry.payload)

    delivery = threading.Thread(target=deliver)
    delivery.start()
    for number in range(batches):
        store.commit(commit(journal=[journal_row("logs", number)], counters={("read",): 1}), 1.0)
        store.count({("told",): 1})
    delivery.join(timeout=20)

    assert [bytes([n % 256]) * 10 for n in range(batches)] == sent
    assert {("read",): batches, ("told",): batches, ("sent",): batches} == counters(store)
    assert JournalStatus(0, 0, None) == store.journal_status("logs")


def test_closed_store_refuses(store: Store) -> None:
    """A closed store raises its own error, and closing again does nothing."""
    store.close()
    store.close()

    with pytest.raises(StoreError, match=r"state\.db"):
        store.commit(FULL, 1.0)


def test_commit_works_while_somebody_reads(directory: Path, store: Store) -> None:
    """A read transaction that stays open, as of a slow backup, does not hold up commits."""
    store.commit(FULL, 1.0)
    other = sqlite3.connect(directory / "state.db", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM request").fetchone()
    store.commit(commit(counters={("later",): 1.0}), 2.0)

    assert counters(store)["later",] == 1.0
    assert other.execute("SELECT count(*) FROM counter").fetchone() == (1,)

    other.close()


def test_texts_of_a_history_are_bounded(store: Store) -> None:
    """However long a name is, a row of the history has a bounded size; a cut text says so at its end."""
    long = "\U0001f600" * 4000
    store.commit(
        commit(
            requests=[request_row(1, user=long, message=long, record_id=long)],
            tasks=[task_row(1, target_uri=long, message=long, error_code="E" * 5000)],
        ),
        1.0,
    )
    _, _, page, (request,), _ = seen(store)

    for text, bound in (
        (request.user, 256),
        (request.message, 2048),
        (request.record_id, 256),
        (page.tasks[0].target_uri, 4096),
        (page.tasks[0].error_code, 256),
    ):
        assert bound - 8 < len(text.encode()) <= bound
        assert text.endswith("\u2026")


def test_a_history_is_bounded_in_bytes(directory: Path) -> None:
    """Rows with long texts make room earlier than short ones: the newest are kept, within the bound."""
    store = Store(directory, history_bytes_max=200_000)
    try:
        for first in range(1, 1001, 50):
            rows = [request_row(n, message="x" * 2000) for n in range(first, first + 50)]
            tasks = [task_row(n, message="x" * 2000) for n in range(first, first + 50)]
            store.commit(commit(requests=rows, tasks=tasks), 1.0)
        _, _, page, requests, _ = seen(store)
        counted = dict(store._db.execute("SELECT name, bytes FROM history"))
    finally:
        store.close()

    for kept in ([row.ordinal for row in requests], [int(row.task_id) for row in page.tasks][::-1]):
        assert kept == list(range(1001 - len(kept), 1001))
        assert 40 < len(kept) < 60
    assert all(80_000 < size <= 110_000 for size in counted.values())


def test_the_bytes_of_a_history_are_counted_right(store: Store) -> None:
    """What is counted row by row is what a scan counts, after rows of all kinds have come and gone."""
    store._requests_kept = 20
    for first in range(1, 101, 10):
        rows = [request_row(n, user="\u00e9" * n, message="x\ud800") for n in range(first, first + 10)]
        store.commit(commit(requests=rows), 1.0)
    counted = store._db.execute("SELECT bytes FROM history WHERE name = 'request'").fetchone()
    history.recount(store._db, history.REQUESTS)

    assert counted == store._db.execute("SELECT bytes FROM history WHERE name = 'request'").fetchone()


def test_open_tasks_are_counted_without_reading_them(store: Store) -> None:
    """A scrape sees how many tasks of an operation run and since when, whatever else is kept of them."""
    store.commit(
        commit(
            opened=[
                *(open_task(n, data="x" * 1000) for n in range(5, 1005)),
                *(open_task(n, operation="vms.migrate") for n in (2000, 1999)),
            ]
        ),
        1.0,
    )
    plan = store._db.execute(
        "EXPLAIN QUERY PLAN SELECT app, operation, count(*), min(start) FROM open_task GROUP BY app, operation"
    ).fetchall()

    assert seen(store)[1].in_progress == {
        ("kimchi", "vms.clone"): InProgress(1000, 5 * NANOS),
        ("kimchi", "vms.migrate"): InProgress(2, 1999 * NANOS),
    }
    assert "COVERING INDEX" in plan[0][3]
