"""The blocks of wok-error.log that wait for their records: which are seen yet, which are discredited, and for how long.

What is read ahead of the request log is not seen before its time: an item is *admitted* when the request log has
reached the time before which it cannot have been written, so that the same blocks count however the files are cut
into batches. A block goes when its record is known, when it is known that no later record can be its own, or when
there are too many.
"""

from __future__ import annotations

from collections import Counter, deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from exporter.records import NANOS
from exporter.wok.error_log import Block, Doubt, Dropped, Frame, Header, Mark, start_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from exporter.wok.error_log import Item
    from exporter.wok.task_functions import TaskFunctions

NEAR_NANOS = 2 * NANOS
"""Records that are less than this apart compete for a block: the settling window."""
RECORD_NANOS = NANOS
"""A block stands milliseconds before its record, whose time is a whole second: as far as they may differ."""
WAITING_MAX = 4096
WAITING_CHARS_MAX = 8 * 1024 * 1024
AHEAD_ITEMS = 8
"""Items of wok-error.log that are looked at behind one that seems to be of the future: a forged id may be of any
time, and must not hold up what follows it."""
IDS_MAX = 256
"""Ids that are remembered to see whether they come again."""

BlockResult = Literal["joined", "unsure", "discredited", "without_record"]


class PendingBlock:
    """A block that waits for its record, which is not later than `latest` (0: not known yet)."""

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
    """Blocks that wait, in the order of the file; `expiry` is how long one waits at most. Times are nanoseconds."""

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
        """Return the blocks that can be of an operation, in the order of the file."""
        return self._by_operation.get((app, operation), {}).values()

    def offer(self, items: Iterable[Item]) -> None:
        """Take what the error log says next; what has been taken before is ignored."""
        last = self._queue[-1].number if self._queue else self._admitted
        for item in items:
            if item.number > last:
                self._queue.append(item)
                last = item.number

    @property
    def admitted(self) -> int:
        """The number of the last item that need not be offered again after a restart."""
        return self._admitted

    @property
    def ahead(self) -> int:
        """How many items wait for the request log to reach their time."""
        return len(self._queue)

    def discredit(self, ids: Iterable[str]) -> None:
        """Never join a block of these ids."""
        for task_id in ids:
            self._discredited.pop(task_id, None)
            self._discredited[task_id] = None
        _bound(self._discredited, IDS_MAX)

    def is_discredited(self, block: Block) -> bool:
        """Tell whether a block has an id that cannot be trusted."""
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
            # A restart kills all tasks: what has failed has been logged.
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
        """Say that a block fits a record of this time, joined or not: its record is not later."""
        waiting.was_asked = True
        self._limit(waiting, time + RECORD_NANOS)

    def _limit(self, waiting: PendingBlock, latest: int) -> None:
        """Say that the record of a block is not later than `latest`."""
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
        """Let the request log's clock move on: to be called with the time of each record, before it is taken."""
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
        """Take a block away: it is that of a record of this time. Blocks before it are of no later record."""
        number = found.block.number
        self._remove(found)
        self._counts["joined"] += 1
        for waiting in self._waiting.values():
            if waiting.block.number < number:
                self._limit(waiting, time + RECORD_NANOS)

    def take_counts(self) -> Counter[BlockResult]:
        """Return what has become of blocks since the last call."""
        counts, self._counts = self._counts, Counter()
        return counts

    def to_json(self) -> dict[str, Any]:
        """Return what to go on from, as JSON values; what is not admitted yet must be offered again."""
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
        """Go on from what `to_json` gave."""
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
    """Return the time before which an item cannot have been written, 0 where it says nothing."""
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
