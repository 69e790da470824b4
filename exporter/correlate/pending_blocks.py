"""The blocks of wok-error.log that wait for their records: which are admitted, which are
discredited, and how long they wait.

The exporter may read the error log ahead of the request log. An item is *admitted* when the request
log has reached the earliest time at which it can have been written. The same blocks therefore count
however the files are divided into batches. A block leaves when its record is known, when no later
record can belong to it, or when there are too many blocks.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any, Literal

from exporter.records import NANOS
from exporter.wok.error_log import Block, Doubt, Dropped, Frame, Header, Item, Mark, start_of
from exporter.wok.task_functions import TaskFunctions

NEAR_NANOS = 2 * NANOS
"""Records closer together than this compete for a block. Equal to the settling window."""
RECORD_NANOS = NANOS
"""Maximum difference between a block and its record. A block is written milliseconds before its
record, whose time is a whole second."""
WAITING_MAX = 4096
WAITING_CHARS_MAX = 8 * 1024 * 1024
AHEAD_ITEMS = 8
"""Number of items that are checked behind an item that seems to be in the future. A forged id can
have any time, and must not block the items after it."""
IDS_MAX = 256
"""Number of ids that are remembered to detect repeated ones."""

BlockResult = Literal["joined", "unsure", "discredited", "without_record"]


class PendingBlock:
    """A block that waits for its record.

    The record is not later than `latest` (0: not known yet).
    """

    __slots__ = ("app", "block", "boot", "latest", "operations", "starts", "was_asked")

    def __init__(self, block: Block, app: str, operations: frozenset[str], boot: int) -> None:
        self.block = block
        self.app = app
        self.operations = operations
        self.boot = boot
        self.latest = 0
        self.was_asked = False
        self.starts = tuple(map(start_of, block.ids))


class PendingBlocks:
    """The waiting blocks in the order of the file.

    A block waits for `expiry` at most. Times are nanoseconds.
    """

    def __init__(self, functions: TaskFunctions, *, expiry: int) -> None:
        self._functions = functions
        self._expiry = expiry
        self._queue: deque[Item] = deque()
        self._waiting: dict[int, PendingBlock] = {}
        self._by_operation: dict[tuple[str, str], dict[int, PendingBlock]] = {}
        self._chars = 0
        self._due = 0
        self._admitted = 0
        self._seen: dict[str, int] = {}
        self._discredited: dict[str, None] = {}
        self._boot = 0
        self._counts: Counter[BlockResult] = Counter()

    def of(self, app: str, operation: str) -> Collection[PendingBlock]:
        """Return the blocks that can belong to an operation, in the order of the file."""
        return self._by_operation.get((app, operation), {}).values()

    def offer(self, items: Iterable[Item]) -> None:
        """Add the next items of the error log. Items that were added before are ignored."""
        last = self._queue[-1].number if self._queue else self._admitted
        for item in items:
            if item.number > last:
                self._queue.append(item)
                last = item.number

    @property
    def admitted(self) -> int:
        """Number of the last item that does not have to be offered again after a restart."""
        return self._admitted

    @property
    def ahead(self) -> int:
        """Number of items that wait for the request log to reach their time."""
        return len(self._queue)

    def discredit(self, ids: Iterable[str]) -> None:
        """Never join a block with one of these ids."""
        for task_id in ids:
            self._discredited.pop(task_id, None)
            self._discredited[task_id] = None
        _bound(self._discredited, IDS_MAX)

    def is_discredited(self, block: Block) -> bool:
        """Return whether a block has an id that cannot be trusted."""
        return any(task_id in self._discredited for task_id in block.ids)

    def _admit(self, item: Item) -> None:
        self._admitted = item.number
        if isinstance(item, Header):
            seen = self._seen.pop(item.task_id, 0) + 1
            self._seen[item.task_id] = seen
            _bound(self._seen, IDS_MAX)
            if item.is_quoted or seen > 1:
                self.discredit([item.task_id])
        elif isinstance(item, Block):
            app, operations = self._functions.of_block(item)
            self._wait(PendingBlock(item, app, operations, self._boot))
        elif isinstance(item, Doubt):
            self.discredit(item.ids)
        elif isinstance(item, Dropped):
            self._counts["unsure"] += 1
        elif isinstance(item, Mark) and item.is_chained:
            # A restart ends all tasks, so all their failures are in the log.
            self._boot += 1
            for waiting in self._waiting.values():
                self._limit(waiting, item.time + RECORD_NANOS)

    def _wait(self, waiting: PendingBlock) -> None:
        self._waiting[waiting.block.number] = waiting
        for operation in waiting.operations:
            self._by_operation.setdefault((waiting.app, operation), {})[waiting.block.number] = waiting
        self._chars += _chars(waiting.block)
        self._soon(max(waiting.starts, default=0) + self._expiry)
        while len(self._waiting) > WAITING_MAX or self._chars > WAITING_CHARS_MAX:
            self._retire(next(iter(self._waiting.values())))

    def asked(self, waiting: PendingBlock, time: int) -> None:
        """Note that a block fits a record of this time, joined or not.

        Its own record is not later.
        """
        waiting.was_asked = True
        self._limit(waiting, time + RECORD_NANOS)

    def _limit(self, waiting: PendingBlock, latest: int) -> None:
        """Note that the record of a block is not later than `latest`."""
        waiting.latest = min(waiting.latest, latest) if waiting.latest else latest
        self._soon(waiting.latest + NEAR_NANOS)

    def _soon(self, due: int) -> None:
        self._due = min(self._due, due) if self._due else due

    def _remove(self, waiting: PendingBlock) -> None:
        number = waiting.block.number
        del self._waiting[number]
        self._chars -= _chars(waiting.block)
        for operation in waiting.operations:
            alike = self._by_operation[waiting.app, operation]
            del alike[number]
            if not alike:
                del self._by_operation[waiting.app, operation]

    def _retire(self, waiting: PendingBlock) -> None:
        block = waiting.block
        self._remove(waiting)
        if block.is_odd or self.is_discredited(block):
            self._counts["discredited"] += 1
        elif waiting.was_asked or len(block.ids) != 1:
            self._counts["unsure"] += 1
        else:
            self._counts["without_record"] += 1

    def advance(self, now: int) -> None:
        """Advance the clock of the request log.

        Call this with the time of each record, before the record is processed.
        """
        queue = self._queue
        while queue and (
            bound_of(queue[0]) <= now
            or any(bound_of(item) <= now for item in islice(queue, 1, 1 + AHEAD_ITEMS))
        ):
            self._admit(queue.popleft())
        if self._due and now > self._due:
            self._due = 0
            for waiting in list(self._waiting.values()):
                due = waiting.latest + NEAR_NANOS if waiting.latest else max(waiting.starts) + self._expiry
                if now > due:
                    self._retire(waiting)
                else:
                    self._soon(due)

    def join(self, found: PendingBlock, time: int) -> None:
        """Remove a block that belongs to a record of this time.

        Earlier blocks belong to no later record.
        """
        number = found.block.number
        self._remove(found)
        self._counts["joined"] += 1
        for waiting in self._waiting.values():
            if waiting.block.number < number:
                self._limit(waiting, time + RECORD_NANOS)

    def take_counts(self) -> Counter[BlockResult]:
        """Return the results of blocks since the last call."""
        counts, self._counts = self._counts, Counter()
        return counts

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values.

        Items that are not admitted yet must be offered again.
        """
        return {
            "admitted": self._admitted,
            "waiting": [
                [waiting.block, waiting.boot, waiting.latest, waiting.was_asked]
                for waiting in self._waiting.values()
            ],
            "seen": self._seen,
            "discredited": list(self._discredited),
            "boot": self._boot,
        }

    def restore(self, kept: dict[str, Any]) -> None:
        """Continue from the result of `to_json`."""
        self._admitted = kept["admitted"]
        self._boot = kept["boot"]
        self._seen = kept["seen"]
        self._discredited = dict.fromkeys(kept["discredited"])
        for fields, boot, latest, was_asked in kept["waiting"]:
            values = dict(zip(Block._fields, fields, strict=True))
            values["ids"] = tuple(values["ids"])
            values["frames"] = tuple(Frame(*frame) for frame in values["frames"])
            block = Block(**values)
            app, operations = self._functions.of_block(block)
            waiting = PendingBlock(block, app, operations, boot)
            waiting.was_asked = was_asked
            self._wait(waiting)
            if latest:
                self._limit(waiting, latest)


def bound_of(item: Item) -> int:
    """Return the earliest time at which an item can have been written, or 0 if it has no time."""
    if isinstance(item, Header):
        return start_of(item.task_id)
    if isinstance(item, Block):
        return max(map(start_of, item.ids))
    return item.time if isinstance(item, Mark) else 0


def _chars(block: Block) -> int:
    return len(block.text) + len(block.stack)


def _bound(values: dict[Any, Any], limit: int) -> None:
    while len(values) > limit:
        del values[next(iter(values))]
