"""The journal: rows leave in order, once, from each signal's own cursor, and never more than its bound stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from exporter.otlp_encoding import sized
from exporter.records import NANOS, SIGNALS, JournalRow, Signal
from exporter.store.journal import (
    DAMAGED_KEPT,
    ROW_BYTES_MAX,
    JournalEntry,
    JournalStatus,
    append,
    divided,
    set_aside,
)
from exporter.store.writer import Store
from tests.store_made import commit, journal_row

LOST_FULL = ("wok_exporter_lost_records_total", "journal_full")
LOST_OFF = ("wok_exporter_lost_records_total", "switched_off")


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state", journal_rows_max=10, journal_bytes_max=1000)
    store.set_signals(frozenset(SIGNALS))
    yield store
    store.close()


def counted(store: Store) -> dict[tuple[str, ...], float]:
    """The counters of a store."""
    reader = store.reader()
    try:
        return reader.snapshot().counters
    finally:
        reader.close()


def payloads(store: Store, signal: Signal) -> list[int]:
    """The numbers of a signal's rows that are still to be sent."""
    return [entry.payload[0] for entry in store.journal_read(signal, 10**6, 10**9)]


@pytest.mark.parametrize(
    ("items_max", "bytes_max", "rows"),
    [(1, 1, 1), (6, 10**6, 2), (8, 10**6, 2), (9, 10**6, 3), (10**6, 29, 2), (10**6, 30, 3)],
)
def test_read_keeps_its_limits(store: Store, items_max: int, bytes_max: int, rows: int) -> None:
    """A read returns whole rows within both limits, and at least one."""
    store.commit(commit(journal=[journal_row("logs", n, items=3) for n in range(1, 5)]), 1.0)

    expected = [JournalEntry(n, 0, b"", 3, bytes([n]) * 10) for n in range(1, rows + 1)]
    assert expected == store.journal_read("logs", items_max, bytes_max)


def test_cursor_stands_inside_a_row(store: Store) -> None:
    """A row that is half done is read again with the number of items to skip, also after later rows came."""
    store.commit(commit(journal=[journal_row("logs", n, items=5) for n in (1, 2)]), 1.0)
    store.journal_advance("logs", 1, 3, {("sent",): 3})
    store.commit(commit(journal=[journal_row("logs", 3, items=5)]), 1.0)

    assert [(e.row, e.skip) for e in store.journal_read("logs", 99, 9999)] == [(1, 3), (2, 0), (3, 0)]
    assert JournalStatus(12, 30, 1 * NANOS) == store.journal_status("logs")

    store.journal_advance("logs", 2, 4, {("sent",): 6})

    assert [(e.row, e.skip) for e in store.journal_read("logs", 99, 9999)] == [(2, 4), (3, 0)]
    assert JournalStatus(6, 20, 2 * NANOS) == store.journal_status("logs")

    store.journal_advance("logs", 3, 5, {("sent",): 6})

    assert store.journal_read("logs", 99, 9999) == []
    assert JournalStatus(0, 0, None) == store.journal_status("logs")
    assert counted(store) == {("sent",): 15}


def test_signals_do_not_hold_each_other_up(store: Store) -> None:
    """A signal whose backend is down keeps its rows while the other's flow on."""
    for number in range(1, 5):
        store.commit(commit(journal=[journal_row("traces", number), journal_row("logs", number)]), 1.0)
        store.journal_advance("traces", store.journal_read("traces", 1, 1)[0].row, 1, {})

    assert payloads(store, "traces") == []
    assert payloads(store, "logs") == [1, 2, 3, 4]


@pytest.mark.parametrize(("size", "kept"), [(10, 10), (300, 3), (1001, 0)])
def test_full_journal_gives_up_the_oldest(store: Store, size: int, kept: int) -> None:
    """Over either bound the oldest rows go, of whichever signal, and their items are counted as lost."""
    signals: list[Signal] = ["logs" if n % 3 else "traces" for n in range(20)]
    for number, signal in enumerate(signals):
        store.commit(commit(journal=[journal_row(signal, number, items=2, size=size)]), 1.0)

    left = range(20 - kept, 20)
    assert {signal: [n for n in left if signals[n] == signal] for signal in SIGNALS} == {
        signal: payloads(store, signal) for signal in SIGNALS
    }
    assert {LOST_FULL: 2 * (20 - kept)} == counted(store)


def test_given_up_items_are_only_those_not_sent(store: Store) -> None:
    """Of a row that was half sent when it was given up, only the other half is counted as lost."""
    store.commit(commit(journal=[journal_row("logs", 1, items=9)]), 1.0)
    store.journal_advance("logs", 1, 7, {})
    store.commit(commit(journal=[journal_row("logs", 2, size=1000)]), 1.0)

    assert counted(store) == {LOST_FULL: 2}
    assert JournalStatus(1, 1000, 2 * NANOS) == store.journal_status("logs")


def test_late_receipt_moves_nothing(store: Store) -> None:
    """The receipt of a row that was given up meanwhile is counted, and moves no later row."""
    store.commit(commit(journal=[journal_row("logs", 1)]), 1.0)
    in_flight = store.journal_read("logs", 1, 1)[0]
    store.commit(commit(journal=[journal_row("logs", 2, size=1000)]), 1.0)
    store.journal_advance("logs", in_flight.row, 1, {("sent",): 1})

    assert payloads(store, "logs") == [2]
    assert counted(store) == {LOST_FULL: 1, ("sent",): 1}


def test_row_numbers_are_never_used_twice(tmp_path: Path) -> None:
    """After everything was sent and the store was opened again, new rows have new numbers."""
    rows = []
    for number in range(3):
        store = Store(tmp_path)
        store.set_signals(frozenset({"logs"}))
        store.commit(commit(journal=[journal_row("logs", number)]), 1.0)
        rows += [entry.row for entry in store.journal_read("logs", 9, 999)]
        store.journal_advance("logs", rows[-1], 1, {})
        store.close()

    assert rows == [1, 2, 3]


def test_replay_is_told_to_wait(tmp_path: Path) -> None:
    """A store that must not give up keeps all rows, and says when there is room again."""
    store = Store(tmp_path, journal_rows_max=2, gives_up_when_full=False)
    store.set_signals(frozenset({"logs"}))
    try:
        assert store.journal_has_room()

        store.commit(commit(journal=[journal_row("logs", n) for n in range(1, 5)]), 1.0)

        assert not store.journal_has_room()
        assert payloads(store, "logs") == [1, 2, 3, 4]

        store.journal_advance("logs", 3, 1, {})

        assert store.journal_has_room()
    finally:
        store.close()


def test_switching_signals(tmp_path: Path) -> None:
    """A signal that is off keeps nothing; switched off, its rows are counted as lost; on, it begins anew."""
    store = Store(tmp_path)
    try:
        store.commit(commit(journal=[journal_row("logs", 1)]), 1.0)
        store.set_signals(frozenset({"logs"}))
        store.commit(commit(journal=[journal_row("logs", 2, items=4), journal_row("traces", 2)]), 1.0)

        assert (payloads(store, "traces"), payloads(store, "logs")) == ([], [2])

        store.set_signals(frozenset({"traces"}))
        store.commit(commit(journal=[journal_row("logs", 3), journal_row("traces", 3)]), 1.0)

        assert (payloads(store, "traces"), payloads(store, "logs")) == ([3], [])
        assert counted(store) == {LOST_OFF: 4}

        store.set_signals(frozenset(SIGNALS))

        assert (payloads(store, "traces"), payloads(store, "logs")) == ([3], [])
    finally:
        store.close()


class JournalModel(RuleBasedStateMachine):
    """A journal beside plain lists of what it should hold."""

    directory: Path
    run = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).run += 1
        self.store = Store(self.directory / str(self.run), journal_rows_max=6, journal_bytes_max=100)
        self.store.set_signals(frozenset(SIGNALS))
        self.rows: list[tuple[Signal, int, int, int]] = []  # signal, number, items left, bytes
        self.number = self.appended = self.sent = 0

    def teardown(self) -> None:
        self.store.close()

    @rule(
        rows=st.lists(st.tuples(st.sampled_from(SIGNALS), st.integers(1, 4), st.integers(1, 40)), max_size=4)
    )
    def append(self, rows: list[tuple[Signal, int, int]]) -> None:
        made = []
        for signal, items, size in rows:
            self.number += 1
            self.appended += items
            made.append(journal_row(signal, self.number, items=items, size=size))
            self.rows.append((signal, self.number, items, size))
        self.store.commit(commit(journal=made), 1.0)
        while len(self.rows) > 6 or sum(size for *_, size in self.rows) > 100:
            self.rows.pop(0)

    @rule(signal=st.sampled_from(SIGNALS), wanted=st.integers(1, 6), leave=st.integers(0, 3))
    def send(self, signal: Signal, wanted: int, leave: int) -> None:
        entries = self.store.journal_read(signal, wanted, 10**6)
        if not entries:
            return
        last = entries[-1]
        item = max(last.skip, last.items - leave)
        sent = sum(entry.items - entry.skip for entry in entries[:-1]) + item - last.skip
        self.store.journal_advance(signal, last.row, item, {("sent",): sent})
        self.sent += sent
        done = [row for row in self.rows if row[0] == signal][: len(entries)]
        left = last.items - item
        self.rows = [
            (row[0], row[1], left, row[3]) if row == done[-1] else row
            for row in self.rows
            if row not in done or (left and row == done[-1])
        ]

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = Store(self.directory / str(self.run), journal_rows_max=6, journal_bytes_max=100)

    @invariant()
    def holds_what_the_lists_hold(self) -> None:
        for signal in SIGNALS:
            own = [row for row in self.rows if row[0] == signal]
            entries = self.store.journal_read(signal, 10**6, 10**9)

            assert [(n % 256, left) for _, n, left, _ in own] == [
                (entry.payload[0], entry.items - entry.skip) for entry in entries
            ]
            oldest = own[0][1] * NANOS if own else None
            assert JournalStatus(
                sum(left for _, _, left, _ in own), sum(size for *_, size in own), oldest
            ) == self.store.journal_status(signal)
        counters = counted(self.store)
        waiting = sum(left for _, _, left, _ in self.rows)
        assert self.appended == self.sent + waiting + counters.get(LOST_FULL, 0)
        assert self.sent == counters.get(("sent",), 0)


def test_journal_is_what_a_list_would_be(tmp_path: Path) -> None:
    """Over any sequence of commits, deliveries and restarts: in order, once, bounded, and every item accounted."""

    class Model(JournalModel):
        directory = tmp_path

    run_state_machine_as_test(
        Model, settings=settings(max_examples=30, stateful_step_count=20, deadline=None)
    )


def items(sizes: list[int]) -> bytes:
    """Items as they stand in a payload: tag, length, content."""
    return b"".join(b"\x12" + sized(bytes([n % 251]) * size) for n, size in enumerate(sizes))


@pytest.mark.parametrize(
    "sizes",
    [
        [10] * 200_000,
        [600_000] * 5,
        [3_000_000, 10, 3_000_000],
        [ROW_BYTES_MAX - 4] * 3,
        [0] * 2_000_000,
        [5],
    ],
    ids=["small", "two do not fit", "too large", "just", "empty", "one"],
)
def test_large_rows_are_divided(sizes: list[int]) -> None:
    """A row of many items becomes rows of bounded size, or of one item, with all items in order."""
    row = JournalRow("traces", b"resource", len(sizes), items(sizes), 1, 2)
    parts = divided(row)

    assert b"".join(part.payload for part in parts) == row.payload
    assert sum(part.items for part in parts) == row.items
    assert all(len(part.payload) <= ROW_BYTES_MAX or part.items == 1 for part in parts)
    assert [items(sizes[:n]) for n in (parts[0].items,)] == [parts[0].payload]
    assert {(part.signal, part.resource, part.first, part.last) for part in parts} == {
        ("traces", b"resource", 1, 2)
    }


DAMAGES = {
    "payload": "UPDATE journal SET payload = CAST(replace(payload, x'02', x'42') AS BLOB) WHERE \"row\" = 2",
    "payload's type": "UPDATE journal SET payload = 'text' WHERE \"row\" = 2",
    "resource": "UPDATE journal SET resource = x'00' WHERE \"row\" = 2",
    "items": 'UPDATE journal SET items = 7 WHERE "row" = 2',
    "items' type": "UPDATE journal SET items = 'many' WHERE \"row\" = 2",
    "checksum": 'UPDATE journal SET checksum = 5 WHERE "row" = 2',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_rows_are_set_aside(store: Store, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """A row that is not as it was written is kept aside, counted and told; the rows around it are sent."""
    store.commit(commit(journal=[journal_row("logs", n, items=3) for n in range(1, 5)]), 1.0)
    store.journal_advance("logs", 1, 2, {})
    store._db.execute(DAMAGES[damage])

    assert payloads(store, "logs") == [1, 3, 4]
    assert store.journal_read("logs", 1, 1)[0].skip == 2
    found = counted(store)
    assert found["wok_exporter_lost_records_total", "damaged"] >= 1
    assert found["wok_exporter_state_damages_total", "journal"] == 1
    assert store.journal_status("logs") == JournalStatus(7, 30, NANOS)
    assert "a row of the journal of logs is damaged" in caplog.text
    assert store._db.execute("SELECT count(*) FROM damaged").fetchone() == (1,)


def test_damaged_rows_that_are_kept_are_bounded(store: Store) -> None:
    """Of many damaged rows the newest are kept."""
    with store._writing() as db:
        for number in range(DAMAGED_KEPT + 20):
            append(db, [journal_row("logs", number)])
            (row,) = db.execute('SELECT max("row") FROM journal').fetchone()
            set_aside(db, row, number)

        assert db.execute("SELECT count(*), min(at) FROM damaged").fetchone() == (DAMAGED_KEPT, 20)
