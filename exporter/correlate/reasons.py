r"""Why a task failed: which exception of wok-error.log belongs to which final record of the request log.

Nothing says so. A block of wok-error.log has the task's id, whose uuid1 is the time of the task's start, the function
that raised, and a text; it has no time of its own. A TASK record has a target_uri, a time, and Wok's error code
where the exception was Wok's. So a block *fits* a failure when all of this holds:

1. the function is one of the operation that the target_uri names (`task_functions.tsv`), in the same application;
2. a WokException has the record's code, and the values of the record's error stand in its text; any other exception
   has a record without a code;
3. a request that can have this target_uri was logged in the second of the task's start, or in the next; a time
   inside the target_uri is that of the start;
4. blocks and records stand in the same order: a block that stands before one that is known to be a record's is no
   later than that record.

A block is *joined* to a record when it is the only one that fits, and fits no other record within two seconds. Else
the record goes without: a wrong reason is as bad as a wrong parent. The decision falls when the record's settling
window closes. A block is on disk before its record, so it has been read by then.

Anybody can write into wok-error.log. What may be forged can cast doubt on others, and do nothing else: an id that
stands twice, that stands inside the text of another block, or that a parameter of the request log has brought there
behind a line break is discredited, and its blocks are never joined.

Where uuidd runs, it gives out ids up to two seconds early, and all of one clock sequence. Without it each thread has
its own. So the fraction of a second counts only after two joined blocks of a boot had different ones.
"""

from __future__ import annotations

import json
import re
from collections import deque
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from exporter.correlate.evidence import is_requestless, targets_of
from exporter.parse.redact import REDACTED
from exporter.records import NANOS, Record
from exporter.wok.error_log import (
    Block,
    Doubt,
    Dropped,
    Frame,
    Header,
    Mark,
    clock_sequence_of,
    is_builtin,
    start_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from exporter.correlate.operations import Operations
    from exporter.wok.error_log import Item

NEAR_NANOS = 2 * NANOS
"""Records that are less than this apart compete for a block: the settling window."""
RECORD_NANOS = NANOS
"""A block stands milliseconds before its record, whose time is a whole second: this is as far as they may differ."""
COARSE_NANOS = 10_000_000
"""The log's seconds are those of the kernel's coarse clock, up to 4 ms behind; a start this early may be of the
second before."""
EARLY_NANOS = 2 * NANOS
"""How early a uuid1 may be where uuidd runs."""
EPOCH_NANOS = 500_000_000
"""How far a time inside a target_uri may be from the start of its task."""
LATE_FRACTION = 500_000_000
"""A request that is logged in the second after its task's start was seldom given half a second for that."""
VALUE_CHARS_MAX = 200
WAITING_MAX = 4096
IDS_MAX = 8192
"""Ids that are remembered to see whether they come again."""
BOOTS_MAX = 4
WRAPPERS = frozenset({"tasklog"})
"""Plug-ins that run the functions of others: their frames say nothing about the operation."""

_NOT_PLAIN = re.compile(r"[^\x20-\x7e]+|" + re.escape(REDACTED))
_QUOTED = re.compile(rb"Error in async_task ([0-9a-f]{8}-[0-9a-f]{4}-1[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})")
_QUOTED_MARK = re.compile(rb"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d\] ENGINE Bus STARTED")

# The classes of wok/exception.py: Python 2 prints them without their module.
_WOK_CLASSES = frozenset(
    {
        "WokException",
        "NotFoundError",
        "OperationFailed",
        "MissingParameter",
        "InvalidParameter",
        "InvalidOperation",
        "IsoFormatError",
        "ImageFormatError",
        "TimeoutExpired",
        "UnauthorizedError",
    }
)

Result = Literal["joined", "unsure", "none"]


class Decision(NamedTuple):
    """What wok-error.log says about a failed record: its block where that is sure (`joined`).

    `start` is the task's start in nanoseconds, 0 where it is not to be trusted. `requests` are the contexts of the
    requests that can have started this task, by the second of its start: one is exact.
    """

    result: Result
    block: Block | None = None
    start: int = 0
    requests: tuple[bytes, ...] = ()


NOTHING = Decision("none")


class TaskFunctions:
    """Which operations a function of a plug-in's file serves: `task_functions.tsv`, read once at the start."""

    def __init__(self, rows: Iterable[tuple[str, str, str, str]]) -> None:
        self._operations: dict[tuple[str, str, str], frozenset[str]] = {}
        for app, file, function, operation in rows:
            known = self._operations.get((app, file, function), frozenset())
            self._operations[app, file, function] = known | {operation}

    @classmethod
    def load(cls) -> TaskFunctions:
        """Read the table from the package; raises ValueError for one that is damaged."""
        text = resources.files("exporter.wok").joinpath("task_functions.tsv").read_text("utf-8")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        rows = []
        for line in lines[1:]:
            app, file, function, operation = line.split("\t")
            rows.append((app, file, function, operation))
        return cls(rows)

    def of_block(self, block: Block) -> tuple[str, frozenset[str]]:
        """Return the application and the operations that a block can be of; none for a function nobody knows."""
        frames = [frame for frame in block.frames if frame.plugin not in WRAPPERS]
        if frames:
            plugin, file, function = frames[0]
            return plugin, self._operations.get((plugin, file, function), frozenset())
        if block.exception == "TypeError" and block.text.startswith("'str' object"):
            # Kimchi 2.5 and later give the task the name of a function: calling it fails in Wok's own frame.
            return "kimchi", frozenset({"vms.hostdevs.attach"})
        return "", frozenset()


def quoted_ids(data: bytes) -> tuple[str, ...]:
    """Return the task ids that a line of the request log could have put into wok-error.log as headers.

    A line break in a parameter is escaped there; lines without one are told by the first test.
    """
    if rb"\n" not in data or b"async_task" not in data:
        return ()
    return tuple(found.decode() for found in _QUOTED.findall(data))


def quoted_marks(data: bytes) -> tuple[str, ...]:
    """Return the marks of a start that a line of the request log could have put into wok-error.log."""
    if rb"\n" not in data or b"ENGINE" not in data:
        return ()
    return tuple(found.decode() for found in _QUOTED_MARK.findall(data))


class _Waiting:
    """A block that waits for its record, which is not later than `latest` (0: not known yet)."""

    __slots__ = ("app", "block", "boot", "latest", "operations", "starts")

    def __init__(self, block: Block, app: str, operations: frozenset[str], boot: int, latest: int = 0) -> None:
        self.block = block
        self.app = app
        self.operations = operations
        self.boot = boot
        self.latest = latest
        self.starts = tuple(map(start_of, block.ids))

    def limit(self, latest: int) -> None:
        """Say that its record is not later than `latest`."""
        self.latest = min(self.latest, latest) if self.latest else latest


class _Request(NamedTuple):
    time: int
    context: bytes


class Reasons:
    """What is known of both logs, and what follows for each failure.

    `offer` takes what wok-error.log says, `request` and `failed` the records of the request log in its order,
    `decide` closes the window of a failure.
    """

    def __init__(self, naming: Operations, functions: TaskFunctions, *, expiry: int, state: str = "") -> None:
        self._naming = naming
        self._functions = functions
        self._expiry = expiry
        self._waiting: dict[int, _Waiting] = {}
        self._headers: dict[str, int] = {}
        self._discredited: dict[str, None] = {}
        self._boot = 0
        self._sequences: dict[int, list[str]] = {}
        self._failures: deque[Record] = deque()
        self._requests: dict[tuple[str, str], list[_Request]] = {}

    # wok-error.log

    def offer(self, item: Item) -> None:
        """Take what the error log says next."""
        if isinstance(item, Header):
            seen = self._headers.pop(item.task_id, 0) + 1
            self._headers[item.task_id] = seen
            _bound(self._headers, IDS_MAX)
            if item.is_quoted or seen > 1:
                self.discredit([item.task_id])
        elif isinstance(item, Block):
            app, operations = self._functions.of_block(item)
            self._waiting[item.number] = _Waiting(item, app, operations, self._boot)
            _bound(self._waiting, WAITING_MAX)
        elif isinstance(item, Doubt):
            self.discredit(item.ids)
        elif isinstance(item, Mark) and item.is_chained:
            self._boot += 1

    def discredit(self, ids: Iterable[str]) -> None:
        """Never join a block of these ids."""
        for task_id in ids:
            self._discredited[task_id] = None
        _bound(self._discredited, IDS_MAX)

    # The request log

    def request(self, record: Record, forms: Iterable[str], context: bytes) -> None:
        """Take a request that may have started a task whose target_uri has one of these forms."""
        for form in forms:
            self._requests.setdefault((record.app, form), []).append(_Request(record.time, context))

    def failed(self, record: Record) -> None:
        """Take a final record of a failure."""
        while self._failures and abs(record.time - self._failures[0].time) >= 2 * NEAR_NANOS:
            self._failures.popleft()
        self._failures.append(record)
        for number in [
            number
            for number, waiting in self._waiting.items()
            if waiting.latest and waiting.latest + NEAR_NANOS < record.time
        ]:
            del self._waiting[number]

    def decide(self, record: Record) -> Decision:
        """Say why the task of this record failed; to be asked when its settling window closes."""
        fitting = self._fitting(record, are_values_asked=True)
        are_values_asked = bool(fitting)
        if not fitting:
            # Some of Wok's messages do not say the values that they are given.
            fitting = self._fitting(record, are_values_asked=False)
        for waiting in fitting:
            waiting.limit(record.time + RECORD_NANOS)
        if not fitting:
            return NOTHING
        found = fitting[0]
        if (
            len(fitting) > 1
            or self._is_doubtful(found.block)
            or self._has_rival(found, record, are_values_asked=are_values_asked)
        ):
            return Decision("unsure")
        number = found.block.number
        del self._waiting[number]
        self._failures.remove(record)
        for waiting in self._waiting.values():
            if waiting.block.number < number:
                waiting.limit(record.time + RECORD_NANOS)
        start = found.starts[0]
        is_fine = self._is_fine(found.boot)
        requests = self._started_by(record, start, is_fine)
        sequences = self._sequences.setdefault(found.boot, [])
        sequence = clock_sequence_of(found.block.ids[0])
        if sequence not in sequences:
            sequences.append(sequence)
        _bound(self._sequences, BOOTS_MAX)
        return Decision(
            "joined", found.block, start if is_fine else 0, tuple(request.context for request in requests)
        )

    def _fitting(self, record: Record, *, are_values_asked: bool) -> list[_Waiting]:
        return [
            waiting
            for waiting in self._waiting.values()
            if self._fits(waiting, record, are_values_asked=are_values_asked)
        ]

    def _has_rival(self, waiting: _Waiting, record: Record, *, are_values_asked: bool) -> bool:
        return any(
            self._fits(waiting, other, are_values_asked=are_values_asked)
            for other in self._failures
            if other is not record
            and abs(other.time - record.time) < NEAR_NANOS
            and not self._is_same_end(record, other)
        )

    def _is_same_end(self, record: Record, other: Record) -> bool:
        """Tell whether two records must be of one task, which has told its end twice."""
        if record.app != other.app or record.target_uri != other.target_uri:
            return False
        for target in targets_of(self._naming, record.app, record.target_uri):
            requests = self._requests.get((record.app, target.text))
            if requests:
                return len(requests) == 1
        return False

    def _is_doubtful(self, block: Block) -> bool:
        return len(block.ids) != 1 or block.is_odd or block.ids[0] in self._discredited

    def _is_fine(self, boot: int) -> bool:
        return len(self._sequences.get(boot, ())) > 1

    def _fits(self, waiting: _Waiting, record: Record, *, are_values_asked: bool) -> bool:
        block = waiting.block
        if block.is_odd and any(task_id in self._discredited for task_id in block.ids):
            return False  # forged for certain: it casts no doubt either
        if waiting.app != record.app or (waiting.latest and record.time > waiting.latest):
            return False
        if self._naming.of_target(record.app, record.target_uri) not in waiting.operations:
            return False
        if not says(block, record, are_values_asked=are_values_asked):
            return False
        is_fine = self._is_fine(waiting.boot)
        return any(
            start < record.time + NANOS
            and (is_requestless(record.target_uri) or self._started_by(record, start, is_fine))
            for start in waiting.starts
        )

    def _started_by(self, record: Record, start: int, is_fine: bool) -> Sequence[_Request]:
        """Return the requests that can have started the task of this record at `start`."""
        for target in targets_of(self._naming, record.app, record.target_uri):
            if target.epoch:
                slack = EPOCH_NANOS + target.epoch_unit + (0 if is_fine else EARLY_NANOS)
                if abs(start - target.epoch) > slack:
                    continue
            requests = self._requests.get((record.app, target.text), ())
            found = [
                request
                for request in requests
                if request.time < record.time + NEAR_NANOS and logged_at(request.time, start, is_fine)
            ]
            if found:
                second = start // NANOS * NANOS
                if is_fine and start - second < LATE_FRACTION:
                    return [request for request in found if request.time <= second] or found
                return found
        return ()


def logged_at(time: int, start: int, is_fine: bool) -> bool:
    """Tell whether the request of a task that was started at `start` can have been logged in the second `time`."""
    second = start // NANOS * NANOS
    first = second - NANOS if start - second < COARSE_NANOS else second
    return first <= time <= second + NANOS + (0 if is_fine else EARLY_NANOS)


def says(block: Block, record: Record, *, are_values_asked: bool = True) -> bool:
    """Tell whether the exception of a block can have been reported by this record."""
    if not block.code:
        return not record.error_code
    if record.error_code != block.code:
        # Of a class that is not Wok's, the text may look like a code without being one.
        return not record.error_code and not is_wok(block.exception)
    return not are_values_asked or all(
        piece in block.text for value in record.error_params.values() for piece in _plain_pieces(value)
    )


def _plain_pieces(value: Any) -> list[str]:
    """Return what of an error's value must stand in the text: its first line but for what is redacted or not ASCII,
    which Python 2 escapes and a latin-1 locale loses.
    """
    if isinstance(value, str):
        line = value[:VALUE_CHARS_MAX].partition("\n")[0]
        return [piece for piece in _NOT_PLAIN.split(line) if piece]
    return [str(value)] if isinstance(value, int) else []


def is_wok(exception: str) -> bool:
    """Tell whether this is the class of a WokException, as either Python prints it."""
    return exception.startswith("wok.exception.") or exception in _WOK_CLASSES


def _bound(values: dict[Any, Any], limit: int) -> None:
    while len(values) > limit:
        del values[next(iter(values))]
