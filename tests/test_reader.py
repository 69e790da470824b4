"""The reader: what views and scrapes ask for, beside a running daemon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from exporter.records import TaskRow
from exporter.store.reader import Reader
from exporter.store.search import Sought
from exporter.store.writer import Store, StoreError
from tests.store_made import commit, context, open_task, request_row, task_row

TASKS = [
    task_row(1),
    task_row(2, outcome="failure", app="ginger", operation="backup.create"),
    task_row(3, outcome="failure"),
    task_row(4, operation="vms.migrate"),
    task_row(5, outcome="unknown"),
    task_row(6),
]


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "a % state?")
    store.commit(
        commit(
            tasks=TASKS,
            requests=[request_row(n) for n in range(1, 10)],
            opened=[open_task(8), open_task(7), open_task(9)],
        ),
        1.0,
    )
    yield store
    store.close()


@pytest.fixture(name="reader")
def _reader(store: Store) -> Iterator[Reader]:
    reader = store.reader()
    yield reader
    reader.close()


def test_pages_join(store: Store, reader: Reader) -> None:
    """Pages of any size give every task once, though new ones arrive in between."""
    for limit in (1, 2, 3, 5, 6, 7):
        page = reader.tasks(limit=limit)
        found: list[TaskRow] = list(page.tasks)
        while page.before is not None:
            store.commit(commit(tasks=[task_row(99, outcome="lost", end=0)]), 1.0)
            page = reader.tasks(limit=limit, before=page.before)
            found += page.tasks

        assert TASKS[::-1] == [task for task in found if task.outcome != "lost"]


def test_running_tasks_are_oldest_first(reader: Reader) -> None:
    """Running tasks come in the order of their starts, not of their opening."""
    assert [open_task(7), open_task(8), open_task(9)] == reader.running()


def test_single_rows(reader: Reader) -> None:
    """A task is found by its context and a request by its ordinal; None when the history has none."""
    assert (TASKS[2], None) == (reader.task(context(3)), reader.task(context(77)))
    assert (request_row(3), None) == (reader.request(3), reader.request(77))


def test_requests_between(reader: Reader) -> None:
    """Both ends are included, the order is that of the file, and the limit cuts at the end."""
    assert [request_row(3), request_row(4), request_row(5)] == reader.requests_between(3, 5, 9)
    assert [request_row(3), request_row(4)] == reader.requests_between(3, 5, 2)


def test_reader_sees_commits_but_cannot_make_any(store: Store, reader: Reader) -> None:
    """A reader sees each commit at once; its own connection cannot write."""
    store.commit(commit(counters={("a",): 1.0}), 2.0)

    assert reader.snapshot().counters == {("a",): 1.0}
    with pytest.raises(StoreError, match="readonly"), reader._reading() as db:
        db.execute("DELETE FROM counter")


def test_reader_without_a_daemon(store: Store) -> None:
    """A state whose daemon has ended can be read as well."""
    store.close()
    reader = Reader(store.directory)
    try:
        assert len(reader.tasks(limit=9).tasks) == len(TASKS)
    finally:
        reader.close()


def test_reader_needs_a_state(tmp_path: Path) -> None:
    """Without a state the reader says so, and makes no file."""
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(StoreError, match="does not exist; name the directory"):
            Reader(directory)

    assert list(tmp_path.iterdir()) == []


def test_broken_state_is_an_error_of_the_reader(tmp_path: Path) -> None:
    """A file that is no database raises the reader's own error."""
    (tmp_path / "state.db").write_bytes(b"broken" * 1000)
    with pytest.raises(StoreError, match="file is not a database"):
        Reader(tmp_path)


def slow(reader: Reader) -> Iterator[int]:
    """A query that would take minutes."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000)"
    with reader._reading() as db:
        yield db.execute(f"{numbers} SELECT count(*) FROM n").fetchone()[0]


def test_a_query_has_a_deadline(store: Store) -> None:
    """A query that takes too long is given up with a sentence, and the reader goes on."""
    reader = store.reader(query_seconds=0.2)
    begin = time.monotonic()
    with closing(reader):
        with pytest.raises(StoreError, match="takes too long; ask for less"):
            list(slow(reader))

        assert time.monotonic() - begin < 2
        assert len(reader.running()) == 3


def test_waiting_for_a_turn_counts(store: Store) -> None:
    """Of many slow queries at once each ends in its time: they do not queue up behind one another."""
    reader = store.reader(query_seconds=0.3)
    begin = time.monotonic()
    with closing(reader), ThreadPoolExecutor(8) as pool:
        errors = [each.exception() for each in [pool.submit(list, slow(reader)) for _ in range(8)]]

        assert {type(error) for error in errors} == {StoreError}
        assert time.monotonic() - begin < 2


def test_closing_interrupts_a_query(store: Store) -> None:
    """The end of the daemon does not wait for a query."""
    reader = store.reader(query_seconds=60)
    with ThreadPoolExecutor(1) as pool:
        query = pool.submit(list, slow(reader))
        time.sleep(0.2)
        begin = time.monotonic()
        reader.close()

        assert isinstance(query.exception(), StoreError)
        assert time.monotonic() - begin < 1


def test_a_search_for_a_text_that_nearly_matches(store: Store) -> None:
    """A text of the worst kind is looked for in 20,000 rows within the deadline."""
    near = "\u00e9" * 1000
    store.commit(commit(requests=[request_row(n, user=near, message=near) for n in range(10, 20_010)]), 1.0)
    with closing(store.reader()) as reader:
        sought = Sought(text="\u00e9" * 299 + "b")
        begin = time.monotonic()

        assert reader.find_requests(sought, before=None, limit=1).requests == []
        assert time.monotonic() - begin < 3
