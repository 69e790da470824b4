"""Rows and commits for the tests of the store and of what reads it: short to write, whole to compare."""

from __future__ import annotations

from typing import Any

from exporter.records import NANOS, Commit, JournalRow, OpenTask, RequestRow, Signal, TaskRow
from exporter.store.writer import Loaded, Store

NOTHING = Commit(
    positions={},
    state="{}",
    opened=(),
    closed=(),
    counters={},
    gauges={},
    histograms={},
    journal=(),
    requests=(),
    tasks=(),
)


def commit(**changed: Any) -> Commit:
    """A commit that changes only what is given."""
    return NOTHING._replace(**changed)


def loaded(store: Store) -> Loaded:
    """What a start continues from, with all that is read on the way."""
    found = store.load()
    return found._replace(open_tasks=list(found.open_tasks), ended=list(found.ended))


def context(number: int) -> bytes:
    """A context of 24 bytes, another one for every number."""
    return number.to_bytes(24, "big")


def open_task(number: int, **changed: Any) -> OpenTask:
    """An open task that started `number` seconds after the epoch."""
    task = OpenTask(
        key=context(number)[-8:],
        context=context(number),
        app="kimchi",
        operation="vms.clone",
        target_uri=f"/plugins/kimchi/vms/web-{number}/clone",
        task_id=str(number),
        start=number * NANOS,
        request=number,
        data='{"candidates": []}',
        since=number,
    )
    return task._replace(**changed)


def request_row(ordinal: int, **changed: Any) -> RequestRow:
    """A request at `ordinal` seconds after the epoch."""
    row = RequestRow(
        ordinal=ordinal,
        time=ordinal * NANOS,
        context=context(ordinal),
        app="kimchi",
        method="POST",
        operation="vms.clone",
        status=202,
        user="ada",
        address="192.0.2.7",
        record_id="",
        message=f"clones guest {ordinal}",
    )
    return row._replace(**changed)


def task_row(number: int, **changed: Any) -> TaskRow:
    """A task that ended with success `number` seconds after the epoch."""
    row = TaskRow(
        context=context(number),
        parent=context(number + 1_000_000),
        app="kimchi",
        operation="vms.clone",
        target_uri=f"/plugins/kimchi/vms/web-{number}/clone",
        task_id=str(number),
        start=(number - 1) * NANOS,
        end=number * NANOS,
        outcome="success",
        correlation="exact",
        request=number,
        concurrent=0,
        error_code="",
        message="",
        since=number,
        until=number + 3,
    )
    return row._replace(**changed)


def journal_row(signal: Signal, number: int, *, items: int = 1, size: int = 10) -> JournalRow:
    """A journal row of `items` items in `size` bytes that all say `number`; its resource has no bytes."""
    payload = bytes([number % 256]) * size
    return JournalRow(signal, b"", items, payload, number * NANOS, (number + 1) * NANOS)
