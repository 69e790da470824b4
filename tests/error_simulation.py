"""Simulates a Wok with many equal tasks and writes both logs, with the truth: `story_of`. `python -m tests.error_simulation
[FIRST] [LAST]` runs many of them and counts what was wrong.

Tasks of the same target overlap. They fail with and without an exception, report once or twice, or never; tracebacks and
records are lost; two blocks are mixed up; uuidd runs or not; blocks and marks are forged.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from exporter.correlate.correlator import Correlator
from exporter.correlate.error_evidence import ErrorEvidence
from exporter.parse.timezone import Zones
from exporter.records import NANOS, Event, OpenTask, Record, TaskEnded
from exporter.wok.error_log import ErrorLog, Item
from exporter.wok.forgery import Forged
from exporter.wok.operations import Operations
from exporter.wok.task_functions import TaskFunctions

from .error_log_made import header, task_id, traceback
from .records_made import Log

NAMING = Operations.load()
FUNCTIONS = TaskFunctions.load()
EXPIRY = 24 * 3600 * NANOS
NAMES = ("web", "db-1", "web-2")


class Kind(NamedTuple):
    """An operation: how it is requested, and what its task is called. `{}` stands for the name."""

    app: str
    code: str
    param: str
    target_uri: str
    function: tuple[str, str, str] | None
    error: str
    reports_twice: bool = False


KINDS = (
    Kind(
        "ginger",
        "GINSP0001L",
        "file_loc",
        "/swaps/file_loc/",
        ("ginger", "model/swaps.py", "_create_task"),
        "GINSP00005E",
        reports_twice=True,
    ),
    Kind(
        "kimchi",
        "KCHVM0010L",
        "ident",
        "/plugins/kimchi/vms/{}/migrate",
        ("kimchi", "model/vms.py", "_migrate_task"),
        "KCHVM0058E",
        reports_twice=True,
    ),
    Kind(
        "kimchi",
        "KCHVMHDEV0001L",
        "vmid",
        "/plugins/kimchi/vms/{}/hostdevs/",
        None,
        "KCHVMHDEV0005E",
        reports_twice=True,
    ),
    Kind(
        "kimchi",
        "KCHVM0001L",
        "name",
        "/plugins/kimchi/vms/{}",
        ("kimchi", "model/vms.py", "_create_task"),
        "KCHVM0007E",
    ),
)


class Written(NamedTuple):
    """Something that is written: a record, lines of wok-error.log, or ids that the log shows to be forged."""

    at: float
    what: Record | Sequence[str] | Forged


class Story(NamedTuple):
    """Both logs in the order of writing, and what is true.

    owners    Id of the task by offset of its final records, and context of its request, if it was logged.
    texts     Text of its exception by id of the task.
    """

    moments: Sequence[Written]
    owners: dict[int, tuple[str, bytes]]
    texts: dict[str, str]


class _Planned(NamedTuple):
    at: float
    step: int
    what: str
    task: int


class _Task(NamedTuple):
    kind: Kind
    name: str
    start: float
    made: str
    outcome: str
    text: str
    is_logged: bool


def story_of(seed: int, *, unlogged: float = 0.0) -> Story:
    """Make one story; `unlogged` is the share of tasks whose request has no line."""
    chance, quoting = random.Random(seed), random.Random(seed)
    has_uuidd = chance.random() < 0.2
    kinds = chance.sample(KINDS, chance.randint(1, 3))
    span = chance.choice((0.05, 1.0, 5.0, 20.0))
    outcomes = chance.choices(
        ("raises", "coded", "silent", "success", "never", "lost record", "lost traceback", "twice"),
        [chance.random() for _ in range(8)],
        k=chance.randint(2, 24),
    )
    tasks: list[_Task] = []
    plan: list[_Planned] = []
    for number, drawn in enumerate(outcomes):
        kind = chance.choice(kinds)
        start = 10 + chance.random() * span
        clock = 7 if has_uuidd else chance.randint(1, 6)
        early = chance.random() * 1.8 if has_uuidd else 0
        outcome = "coded" if drawn == "twice" and not kind.reports_twice else drawn
        text = chance.choice(("x", "y", f"number {number}"))
        made = task_id(start - early + number * 1e-7, clock)
        is_logged = chance.random() >= unlogged
        tasks.append(_Task(kind, chance.choice(NAMES), start, made, outcome, text, is_logged))
        slow = 0.4 if chance.random() < 0.02 else 0.003
        plan.append(_Planned(start + chance.random() * slow, 0, "request", number))
        if outcome == "never":
            continue
        end = start + chance.choice((0.002, 0.1, 1.0, 8.0)) * chance.random()
        traced = end + 0.0002
        if outcome == "twice":
            plan.append(_Planned(max(start, end - chance.random() * 0.002), 1, "first report", number))
        if outcome in ("raises", "coded", "twice", "lost record", "lost traceback"):
            plan.append(_Planned(end, 2, "header", number))
            late = chance.choice((0.0, 0.0, 0.0, 0.0005))
            traced = end + late
            if outcome != "lost traceback":
                plan.append(_Planned(traced, 3, "traceback", number))
        if outcome != "lost record":
            delay = 0.007 if chance.random() < 0.05 else 0.0008
            plan.append(_Planned(traced + chance.random() * delay, 4, "record", number))
    plan.sort()
    if chance.random() < 0.2:
        _forge(chance, tasks, plan)
    if quoting.random() < 0.1:
        _quote(quoting, tasks, plan)
    return _write(chance, tasks, plan)


def _forge(chance: random.Random, tasks: list[_Task], plan: list[_Planned]) -> None:
    """Add a block of the attacker, whose id is that of a task that could be."""
    victim = chance.choice(tasks)
    start = victim.start + (chance.random() - 0.5) * 0.01
    forged = victim._replace(made=task_id(start, 9), text="forged", outcome="forged")
    tasks.append(forged)
    at = chance.choice(plan).at + chance.random() * 0.01
    plan += [
        _Planned(at, 2, "header", len(tasks) - 1),
        _Planned(at, 3, "traceback", len(tasks) - 1),
        _Planned(at + 0.001, 5, "proof", len(tasks) - 1),
    ]
    plan.sort()


def _quote(chance: random.Random, tasks: list[_Task], plan: list[_Planned]) -> None:
    """Quote the id of a task as if its block were forged, any time after it."""
    number = chance.randrange(len(tasks))
    at = tasks[number].start + chance.random() * 20
    plan.append(_Planned(at, 5, "proof", number))
    plan.sort()


def _write(chance: random.Random, tasks: Sequence[_Task], plan: Sequence[_Planned]) -> Story:
    log = Log("json")
    moments: list[Written] = []
    owners: dict[int, tuple[str, bytes]] = {}
    ends: list[tuple[int, str, int]] = []
    contexts: dict[int, bytes] = {}
    texts: dict[str, str] = {}
    for planned in plan:
        task = tasks[planned.task]
        kind = task.kind
        at = planned.at
        logged = int(at - chance.random() * 0.004)  # the log's clock is coarse
        target_uri = kind.target_uri.format(task.name)
        error = {"name": task.name, "err": task.text}
        is_coded = task.outcome in ("coded", "twice")
        if planned.what == "request":
            record = log.request(logged, kind.code, {kind.param: task.name}, app=kind.app)
            if task.is_logged:
                moments.append(Written(at, record))
                contexts[planned.task] = record.trace_id
        elif planned.what == "header":
            moments.append(Written(at, [header(task.made)]))
        elif planned.what == "traceback":
            said = "ValueError: " + task.text
            if kind.function is None:
                said = "TypeError: 'str' object is not callable"
            if is_coded:
                said = f"wok.exception.OperationFailed: {kind.error}: {task.name}: {task.text}"
            texts[task.made] = said.partition(": ")[2]
            moments.append(Written(at, traceback(kind.function, said)))
        elif planned.what == "proof":
            moments.append(Written(at, Forged((task.made,), ())))
        else:
            is_first = planned.what == "first report"
            record = log.finished(
                logged,
                target_uri,
                app=kind.app,
                failed=task.outcome != "success",
                error_code=kind.error if is_coded and not is_first else "",
            )
            if is_coded and not is_first:
                record = record._replace(error_params=error)
            moments.append(Written(at, record))
            ends.append((record.offset, task.made, planned.task))
    for offset, made, number in ends:
        owners[offset] = (made, contexts.get(number, b""))
    last = max([moment.at for moment in moments], default=10.0)
    moments.append(Written(last + 60, log.request(int(last + 60), "KCHVM0002L", status=204)))
    return Story(moments, owners, texts)


def told(story: Story, *, live: bool, restarts: bool = False) -> list[Event]:
    """Return all events; live, both logs are read as they are written, otherwise they are complete from the start.

    With `restarts`, everything is made again from its state behind each record.
    """
    quoted = {id_ for moment in story.moments if isinstance(moment.what, Forged) for id_ in moment.what.ids}

    def made(state: str) -> ErrorEvidence:
        is_quoted = None if live else lambda task_id, _: task_id in quoted
        return ErrorEvidence(NAMING, FUNCTIONS, expiry=EXPIRY, is_quoted=is_quoted, state=state)

    errors = made("")
    correlator = Correlator(NAMING, expiry=EXPIRY, errors=errors)
    coming = list(_items(story.moments))
    open_tasks: dict[bytes, OpenTask] = {}
    events: list[Event] = []
    for at, what in story.moments:
        if isinstance(what, Forged):
            errors.discredit(what)
        elif isinstance(what, Record):
            errors.offer([item for written, item in coming if not live or written <= at])
            events += correlator.feed(what)
            if restarts:
                changes = correlator.changes()
                open_tasks |= {task.key: task for task in changes.opened}
                open_tasks = {key: task for key, task in open_tasks.items() if key not in changes.closed}
                errors = made(errors.state)
                kept = list(open_tasks.values())
                correlator = Correlator(
                    NAMING, expiry=EXPIRY, state=changes.state, open_tasks=kept, errors=errors
                )
    return events + correlator.finish()


def _items(moments: Iterable[Written]) -> Iterable[tuple[float, Item]]:
    reader = ErrorLog(Zones("UTC"))
    for at, what in moments:
        if not isinstance(what, (Record, Forged)):
            for line in what:
                for item in reader.feed(line.encode()):
                    yield at, item


def score(story: Story, events: Iterable[Event]) -> Counter[str]:
    """Count joins and exact matches, right and wrong."""
    found: Counter[str] = Counter()
    for event in events:
        if not isinstance(event, TaskEnded) or event.record is None or event.outcome != "failure":
            continue
        made, context = story.owners[event.record.offset]
        found["failures"] += 1
        if event.found_id:
            found["joined" if event.found_id == made else "joined, wrong"] += 1
        elif event.exception:
            found["same" if event.exception_text == story.texts.get(made) else "text, wrong"] += 1
        if event.correlation == "exact":
            found["exact" if event.parent[:16] == context else "exact, wrong"] += 1
    return found


if __name__ == "__main__":
    first, last = (int(text) for text in (sys.argv[1:3] or ("0", "2000")))
    share = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    total: Counter[str] = Counter()
    for number in range(first, last):
        made = story_of(number, unlogged=share)
        live, replay = told(made, live=True), told(made, live=False)
        counted = score(made, live)
        counted.update({f"replay: {key}": count for key, count in score(made, replay).items()})
        counted["stories"] = 1
        counted["live unlike replay"] = live != replay
        total += counted
        if any(key.endswith("wrong") for key in counted) or live != replay:
            print(number, dict(counted))
    print(dict(total))
