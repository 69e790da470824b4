"""The objects of a batch are freed by their reference counts, and the collector of cycles has next to nothing to do."""

from __future__ import annotations

import gc
from datetime import UTC, datetime

from exporter.correlate.correlator import Correlator
from exporter.correlate.task_state import PendingEnd, PendingRequest, Task
from exporter.parse.parser import Parser
from exporter.parse.timezone import Zones
from exporter.pipeline.cycles import OBJECTS_NEW, collect_seldom
from exporter.records import NANOS, Line, Record, TaskEnded
from exporter.simulate.busy import busy
from exporter.wok.operations import Operations


def test_ended_tasks_leave_no_cycles() -> None:
    """References to a task that has ended lead nowhere back, so that it is freed at once and not by a collection."""
    kinds = (Task, PendingRequest, PendingEnd)
    lines = [
        line.data
        for line in busy("json", start=datetime(2026, 11, 1, tzinfo=UTC), requests=300, per_second=5.0)
    ]
    parser, correlator = Parser("test", Zones("UTC")), Correlator(Operations.load(), expiry=24 * 3600 * NANOS)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        ended = 0
        for offset, data in enumerate(lines):
            for item in parser.feed(Line(bytes(16), offset * 1000, data, len(data))):
                assert isinstance(item, Record)
                ended += sum(isinstance(event, TaskEnded) for event in correlator.feed(item))
        gc.collect()
        left = [type(found).__name__ for found in gc.garbage if isinstance(found, kinds)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()

    assert (ended > 50, left) == (True, [])


def test_objects_of_the_start_are_left_out() -> None:
    """After a start, its objects are not looked at again, and those of the start before a reload are given back."""
    threshold = gc.get_threshold()
    try:
        collect_seldom()
        first = gc.get_freeze_count()
        collect_seldom()

        assert gc.get_threshold()[0] == OBJECTS_NEW
        assert 0 < gc.get_freeze_count() < 2 * first
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)
