"""The values of the correlator's state: how sure a match is, the phases of a task, and how the store keeps them."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest

from exporter.correlate.certainty import Certainty
from exporter.correlate.correlator import Correlator
from exporter.correlate.stored import row_of, task_of
from exporter.correlate.task_state import TRANSITIONS, Phase, Step, Task
from exporter.records import OpenTask, Record

from .records_made import EPOCH, Log
from .test_correlate import EXPIRY, MIGRATE, NAMING, SWAP, ends, told

FORMER_STATE = Path(__file__).with_name("former_state.json")
"""What version 1 of the state has stored of the first records of `former_log`."""


@pytest.mark.parametrize(
    ("certainty", "grade"),
    [
        (Certainty(), "none"),
        (Certainty(named=True, beside=True, contested=True), "none"),
        (Certainty(joined=True), "likely"),
        (Certainty(joined=True, named=True), "exact"),
        (Certainty(joined=True, beside=True), "exact"),
        (Certainty(joined=True, beside=True, crowded=True), "likely"),
        (Certainty(joined=True, named=True, crowded=True), "exact"),
        (Certainty(joined=True, named=True, doubtful=True), "likely"),
        (Certainty(joined=True, beside=True, doubtful=True), "likely"),
        (Certainty(joined=True, named=True, contested=True), "ambiguous"),
    ],
)
def test_grades(certainty: Certainty, grade: str) -> None:
    """The grade follows from what speaks for a match and against it."""
    assert certainty.grade == grade


def test_a_doubt_never_raises_a_grade() -> None:
    """Whatever is known of a match, a further doubt makes it no surer."""
    order = ["none", "ambiguous", "likely", "exact"]
    for flags in itertools.product([False, True], repeat=6):
        certainty = Certainty(*flags)
        before = order.index(certainty.grade)
        for doubt in ("crowded", "contested", "doubtful"):
            doubted = Certainty(*flags)
            setattr(doubted, doubt, True)

            assert order.index(doubted.grade) <= before


def test_a_task_goes_only_where_the_table_says() -> None:
    """Every step that the table does not have raises, and no phase leads out of the last."""
    for phase, step in itertools.product(Phase, Step):
        task = Task(b"", 1, "kimchi", 0, since=0, by_start=True, phase=phase)
        if (phase, step) in TRANSITIONS:
            task.take(step)
            assert task.phase is TRANSITIONS[phase, step]
        else:
            with pytest.raises(KeyError):
                task.take(step)

    assert not [phase for phase, _ in TRANSITIONS if phase is Phase.OVER]


def test_a_task_is_stored_whole() -> None:
    """What the store keeps of a task makes the same task again, whatever its fields are."""
    task = Task(
        key=b"k" * 24,
        seq=7,
        app="kimchi",
        start=5,
        since=3,
        by_start=True,
        context=b"c" * 24,
        parent=b"p" * 24,
        operation="vms.migrate",
        target_uri=MIGRATE,
        task_id="9",
        request_id="r",
        request=4,
        phase=Phase.JOINED,
        certainty=Certainty(joined=True, crowded=True),
        counted=False,
        candidates=(b"a" * 24, b"b" * 24),
        rivals=(b"d" * 24,),
        links=(b"e" * 24,),
    )
    again = task_of(row_of(task))

    names = [field.name for field in dataclasses.fields(Task)]
    assert {name: getattr(again, name) for name in names} == {name: getattr(task, name) for name in names}


def former_log() -> tuple[list[Record], int]:
    """A log in both dialects, and a place in it where tasks run, wait, seek, are contested and have been claimed."""
    log = Log("json")
    records = [log.request(at, "GINSP0001L", {"file_loc": f"/swap-{at}"}, app="ginger") for at in (0, 1)]
    records += [log.request(2, "KCHVM0010L", {"ident": name}) for name in ("web", "db")]
    records += [log.finished(3, SWAP, app="ginger")]
    log.dialect = "rfc"
    records += [log.started(9, "/plugins/kimchi/vms/old/migrate", "1")]
    records += [log.request(9, "KCHVM0010L", {"ident": "old"})]
    records += [log.started(19, "/plugins/kimchi/vms/a/hostdevs/", number) for number in "23"]
    records += [log.request(19, "KCHVMHDEV0001L", {"vmid": "a", "name": "x"})]
    records += [log.request(20, "KCHVM0009L", {"ident": "db"})]
    log.dialect = "json"
    records += [log.finished(20, MIGRATE)]
    cut = len(records)
    records += [log.finished(20, MIGRATE, failed=True, error_code="KCHVM0058E")]
    log.dialect = "rfc"
    records += [log.request(20, "KCHVMHDEV0001L", {"vmid": "a", "name": "y"})]
    records += [log.started(21, f"/plugins/kimchi/vms/db-clone-{(EPOCH + 20) * 10**6}/clone", "4")]
    records += [log.finished(51, "/plugins/kimchi/vms/old/migrate", "1")]
    records += [log.finished(50 + int(number), "/plugins/kimchi/vms/a/hostdevs/", number) for number in "23"]
    log.dialect = "json"
    records += [log.finished(60, SWAP, app="ginger")]
    return records, cut


def test_the_state_of_the_previous_version_is_read() -> None:
    """After an upgrade all that ran or waited ends as it would have, with its start, its grade and its request."""
    kept = json.loads(FORMER_STATE.read_text("utf-8"))
    rows = [
        OpenTask(bytes.fromhex(key), bytes.fromhex(context), *rest)
        for key, context, *rest in kept["open_tasks"]
    ]
    records, cut = former_log()
    correlator = Correlator(NAMING, expiry=EXPIRY, state=kept["state"], open_tasks=rows)
    events = [event for record in records[cut:] for event in correlator.feed(record)]
    events += correlator.finish()

    assert told(events) == [
        ("vms.migrate", 2, 20, "failure", "exact", True),
        ("vms.migrate", 9, 51, "success", "exact", True),
        ("vms.hostdevs.attach", 19, 52, "success", "ambiguous", True),
        ("vms.hostdevs.attach", 19, 53, "success", "ambiguous", True),
        ("swaps.create", 0, 60, "success", "ambiguous", True),
    ]
    assert [len(end.candidates) for end in ends(events)] == [0, 0, 1, 1, 0]
