"""What wok-error.log does to tasks: live as in a replay, over restarts, and whatever somebody forges."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.config.config import load
from exporter.correlate.correlator import Correlator
from exporter.correlate.error_evidence import ErrorEvidence
from exporter.parse.timezone import Zones
from exporter.pipeline.batch_processor import BatchProcessor, ProcessingConfig
from exporter.pipeline.commit_builder import CommitBuilder
from exporter.pipeline.from_config import messages_of, processing_config_of, telemetry_of
from exporter.pipeline.pipeline import Pipeline
from exporter.pipeline.reader import InProcessReader
from exporter.records import NANOS, Chunk, Event, Line, OpenTask, Record, TaskEnded
from exporter.store.writer import Loaded, Store
from exporter.wok.error_log import Item, Mark
from exporter.wok.forgery import forged_by
from exporter.wok.operations import Operations
from exporter.wok.task_functions import TaskFunctions

from .error_log_made import BOOT, SWAPS_CREATE, block, header, parsed, task_id
from .error_score import CORPUS, SETS
from .records_made import EPOCH, Log
from .test_pipeline import Pieces, Seen, seen

NAMING = Operations.load()
FUNCTIONS = TaskFunctions.load()
EXPIRY = 24 * 3600 * NANOS
SWAP = "/swaps/file_loc/"
CODED = "wok.exception.OperationFailed: GINSP00005E: {}: no"

Moment = tuple[float, Record | Sequence[str | bytes]]
"""When something is written, and what: a record of the request log, or lines of wok-error.log."""


def swap(log: Log, at: int, name: str) -> Record:
    return log.request(at, "GINSP0001L", {"file_loc": name}, app="ginger")


def ended(log: Log, at: int, *, error: str = "", failed: bool = True) -> Record:
    """The final record of a swap; `error` is the value of a WokException."""
    record = log.finished(at, SWAP, app="ginger", failed=failed, error_code="GINSP00005E" if error else "")
    return record._replace(error_params={"file": error}) if error else record


def quiet(log: Log, at: int) -> Record:
    """A request that has nothing to do with anything."""
    return log.request(at, "KCHVM0002L", status=204)


def made() -> tuple[ErrorEvidence, Correlator]:
    errors = ErrorEvidence(NAMING, FUNCTIONS, expiry=EXPIRY)
    return errors, Correlator(NAMING, expiry=EXPIRY, errors=errors)


def items_of(moments: Iterable[Moment]) -> list[tuple[float, Item]]:
    """What wok-error.log says, with when it was written."""
    lines = [(at, line) for at, what in moments if not isinstance(what, Record) for line in what]
    found: list[tuple[float, Item]] = []
    known = 0
    for number, (at, _) in enumerate(lines, 1):
        items = parsed([line for _, line in lines[:number]])
        found += [(at, item) for item in items[known:]]
        known = len(items)
    return found


def told(moments: Sequence[Moment], *, live: bool, restarts: bool = False) -> list[Event]:
    """What comes out; live, wok-error.log is read as it is written."""
    errors, correlator = made()
    coming = items_of(moments)
    if not live:
        errors.offer([item for _, item in coming])
    open_tasks: dict[bytes, OpenTask] = {}
    events: list[Event] = []
    for at, what in moments:
        if not isinstance(what, Record):
            continue
        if live:
            errors.offer([item for written, item in coming if written <= at])
        events += correlator.feed(what)
        if restarts:
            changes = correlator.changes()
            open_tasks |= {task.key: task for task in changes.opened}
            for key in changes.closed:
                del open_tasks[key]
            errors = ErrorEvidence(NAMING, FUNCTIONS, expiry=EXPIRY, state=errors.state)
            errors.offer([item for written, item in coming if not live or written <= at])
            correlator = Correlator(
                NAMING,
                expiry=EXPIRY,
                state=changes.state,
                open_tasks=list(open_tasks.values()),
                errors=errors,
            )
    return events + correlator.finish()


def failures(events: Iterable[Event]) -> list[TaskEnded]:
    return [event for event in events if isinstance(event, TaskEnded) and event.outcome == "failure"]


@pytest.mark.parametrize("is_coded", [False, True])
@pytest.mark.parametrize("first", ["silent", "raising"])
def test_an_exception_that_comes_later_is_not_taken_for_an_earlier_failure(
    first: str, is_coded: bool
) -> None:
    """A failure without an exception gets none of a like task that raises long after it, also where that was read."""
    log = Log("json")
    said = CODED.format("/b") if is_coded else "ValueError: no room"
    requests = [swap(log, 0, "/a"), swap(log, 1, "/b")]
    raises = 1.2 if first == "silent" else 0.2
    silent = ended(log, 10, error="/a" if is_coded else "")
    moments: list[Moment] = [
        (0, requests[0]),
        (1, requests[1]),
        (10, silent),
        (14, quiet(log, 14)),
        (20, block(task_id(raises), SWAPS_CREATE, said)),
        (20, ended(log, 20, error="/b" if is_coded else "")),
        (30, quiet(log, 30)),
    ]
    live = told(moments, live=True)

    assert live == told(moments, live=False)
    assert live == told(moments, live=True, restarts=True)
    assert live == told(moments, live=False, restarts=True)
    assert failures(live)[0].exception == ""


def test_the_only_task_gets_its_exception() -> None:
    """Class, text and stack, the start to the microsecond, Wok's id, and the one request of that second."""
    log = Log("json")
    moments: list[Moment] = [
        (0, swap(log, 0, "/a")),
        (5, swap(log, 5, "/b")),
        (9, ended(log, 9, failed=False)),
        (9, block(task_id(0.25), SWAPS_CREATE)),
        (9, ended(log, 9)),
        (30, quiet(log, 30)),
    ]
    events = told(moments, live=True)
    (failed,) = failures(events)

    assert (failed.exception, failed.exception_text, failed.found_id) == (
        "ValueError",
        "no room",
        task_id(0.25),
    )
    assert failed.stack.startswith("Traceback")
    assert events == told(moments, live=False)


FORGED_MARK = "[01/Aug/2016:00:00:20] ENGINE Bus STARTED"


@pytest.mark.parametrize(
    "lines",
    [
        [*BOOT[:-1], BOOT[-1], FORGED_MARK.encode()],
        [*BOOT, *(line.replace(b"00:00:0", b"00:00:2") for line in BOOT)],
    ],
)
def test_a_forged_restart_changes_nothing(lines: list[bytes]) -> None:
    """A mark without its chain is none; one that the request log shows behind a line break is not believed."""
    log = Log("json")
    request = log.request(10, "KCHVM0010L", {"ident": "web"})
    final = log.finished(50, "/plugins/kimchi/vms/web/migrate")
    records = [request, quiet(log, 30), quiet(log, 40), final, quiet(log, 60)]

    def run(given: Sequence[bytes]) -> list[Event]:
        errors, correlator = made()
        errors.offer([_moved(item) for item in parsed(given)])
        errors.discredit(forged_by(rb'{"username": "x\n[01/Aug/2016:00:00:22] ENGINE Bus STARTED"}'))
        return [event for record in records for event in correlator.feed(record)] + correlator.finish()

    assert run(lines) == run([])


def _moved(item: Item) -> Item:
    """A mark of the made boot, moved to the day of the records."""
    if isinstance(item, Mark):
        return item._replace(time=item.time % (60 * NANOS) + EPOCH * NANOS)
    return item


def test_a_true_restart_loses_what_ran_and_nothing_newer() -> None:
    """What was asked for before the mark is lost; what came after it goes on, although it was read before."""
    log = Log("json")
    target = "/plugins/kimchi/vms/{}/migrate"
    records = [
        log.request(0, "KCHVM0010L", {"ident": "old"}),
        log.request(21, "KCHVM0010L", {"ident": "new"}),
        quiet(log, 22),
        log.finished(40, target.format("new")),
        quiet(log, 60),
    ]
    errors, correlator = made()
    errors.offer([Mark(1, (EPOCH + 20) * NANOS, is_chained=True, text="x")])
    events = [event for record in records for event in correlator.feed(record)] + correlator.finish()
    ends = [event for event in events if isinstance(event, TaskEnded)]

    assert [(end.outcome, end.end // NANOS - EPOCH) for end in ends] == [("lost", 20), ("success", 40)]
    assert errors.restarts == 1


def test_a_restart_that_a_task_has_survived_is_none() -> None:
    """A clone whose target_uri tells a start before the mark, and that ends after it, refutes the mark."""
    log = Log("json")
    target = f"/plugins/kimchi/vms/web-clone-{EPOCH * 1_000_000}/clone"
    records = [
        log.request(0, "KCHVM0009L", {"ident": "web"}),
        log.request(0, "KCHVM0010L", {"ident": "db"}),
        log.finished(40, target),
        quiet(log, 60),
        log.finished(70, "/plugins/kimchi/vms/db/migrate"),
        quiet(log, 90),
    ]
    errors, correlator = made()
    errors.offer([Mark(1, (EPOCH + 20) * NANOS, is_chained=True, text="x")])
    events = [event for record in records for event in correlator.feed(record)] + correlator.finish()

    assert [event.outcome for event in events if isinstance(event, TaskEnded)] == ["success", "success"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_batches_and_restarts_over_both_files_change_nothing(data: st.DataObject) -> None:
    """However both logs are cut into batches, and wherever the exporter is made again from its state, the events are
    the same, if wok-error.log is read as far as the request log.
    """
    log = Log("json")
    moments: list[Moment] = []
    at = 0
    running: list[int] = []
    for number in range(data.draw(st.integers(3, 14))):
        at += data.draw(st.integers(0, 3))
        is_end = data.draw(st.booleans())
        if running and is_end:
            start = running.pop(data.draw(st.integers(0, len(running) - 1)))
            kind = data.draw(st.sampled_from(("raises", "silent", "success", "forged")))
            if kind == "raises":
                moments.append(
                    (at, block(task_id(start + 0.3, number), SWAPS_CREATE, f"ValueError: {number % 2}"))
                )
            if kind == "forged":
                moments.append(
                    (
                        at,
                        [
                            header(task_id(start + 0.3, number)),
                            *block(task_id(start + 0.3, number), SWAPS_CREATE),
                        ],
                    )
                )
            moments.append((at, ended(log, at, failed=kind != "success")))
        else:
            running.append(at)
            moments.append((at, swap(log, at, f"/{number}")))
    moments.append((at + 30, quiet(log, at + 30)))
    live = told(moments, live=True)

    assert told(moments, live=True, restarts=True) == live
    assert told(moments, live=False, restarts=True) == told(moments, live=False)
    if not any(not isinstance(what, Record) and len(what) > 8 for _, what in moments):
        assert told(moments, live=False) == live


def test_a_state_of_the_version_before_keeps_its_marks() -> None:
    """Restarts that were found, and not yet told, by a version that kept them as times, are told."""
    processing_config = ProcessingConfig("test", Zones("UTC"), NAMING, EXPIRY, functions=FUNCTIONS)
    empty = Loaded(positions={}, state="", open_tasks=[], ended=[], series=set())
    state = json.loads(BatchProcessor(processing_config, empty).advance(Chunk([], "p")).state)
    del state["errors"], state["errors_read"]
    state["marks"] = [EPOCH * NANOS]
    processor = BatchProcessor(processing_config, empty._replace(state=json.dumps(state)))

    assert processor.is_due((EPOCH + 10) * NANOS)
    processor.advance(Chunk([], "p", caught_up=True), now=(EPOCH + 10) * NANOS)
    assert not processor.is_due((EPOCH + 10) * NANOS)


def test_a_line_that_forges_is_known_before_the_next_record() -> None:
    """What a parameter has brought into wok-error.log counts from its line on, wherever the batch ends."""
    processing_config = ProcessingConfig("test", Zones("UTC"), NAMING, EXPIRY, functions=FUNCTIONS)
    empty = Loaded(positions={}, state="", open_tasks=[], ended=[], series=set())
    processor = BatchProcessor(processing_config, empty)
    line = Line(b"f" * 16, 0, b'{"x": "a\\nError in async_task ' + task_id(1).encode() + b'"}', 80)
    processor.advance(Chunk([line], "p"))

    assert task_id(1) in json.loads(json.loads(processor.advance(Chunk([], "q")).state)["errors"])["reasons"]


@pytest.mark.parametrize("name", SETS)
def test_real_logs_in_pieces_give_the_same_state(name: str, tmp_path: Path) -> None:
    """Both logs of a real Wok, cut anywhere, with the pipeline made again from the store all the time, give what one
    reading gives: bytes for the backends, counters, histories.
    """
    folder = CORPUS / name
    if not folder.is_dir():
        pytest.skip("no corpus beside the checkout")
    zone = SETS[name]
    flags = {"timezone": zone, "instance": "test", "messages": "off"}
    config = load(flags | {"wok_error_log": str(folder / "wok-error.log")}, {}, "replay")
    messages = messages_of(config)
    processing_config = processing_config_of(config, messages)
    telemetry = telemetry_of(config, messages, "user-requests.data")
    commit_builder = CommitBuilder(telemetry, signals=frozenset(("traces", "logs")))

    def run(state: Path, sizes: Callable[[], int], restarts: int) -> Seen:
        store = Store(state)
        try:
            pipeline = Pipeline(
                store,
                commit_builder,
                lambda loaded: InProcessReader(
                    processing_config,
                    loaded,
                    log=lambda position: Pieces(folder / "user-requests.data", position, sizes),
                    errors=lambda position: Pieces(folder / "wok-error.log", position, sizes),
                    wall=None,
                ),
                now=lambda: 0.0,
            )
            steps = 0
            while not pipeline.step().caught_up:
                steps += 1
                if restarts and steps % restarts == 0:
                    pipeline.restart()
            pipeline.close()
            return seen(store)
        finally:
            store.close()

    numbers = random.Random(7)
    whole = run(tmp_path / "whole", lambda: 1 << 30, 0)

    assert run(tmp_path / "pieces", lambda: numbers.randint(30, 400), 3) == whole
