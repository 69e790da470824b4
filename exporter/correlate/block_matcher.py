"""Find the exception in wok-error.log that belongs to a failed final record of the request log.

Neither log says this directly. A block of wok-error.log has the id of the task (a uuid1, which
contains the start time of the task), the function that raised, and a text. It has no time of its
own. A TASK record has a target_uri, a time, and Wok's error code if the exception was Wok's. A
block *fits* a failure if all of these conditions hold:

1. The function belongs to the operation that the target_uri names (`task_functions.tsv`), in the
   same application.
2. A WokException has the code of the record, and the values of the record's error are in its text.
   Any other exception has a record without a code.
3. A request that can have this target_uri was logged in the second of the task's start, or in the
   next one. A time in the target_uri is the time of the start. A record with a task id fits only
   blocks with this id.
4. Blocks and records are in the same order, except for neighbours. A block before one whose record
   is known, or before the mark of a restart, is not later than that. Pairs that are known, or
   identified by code and values, keep the others on their side.

A block is *joined* to a record if it is the only one that fits, and fits no other record within two
seconds. Otherwise the record gets no block: a wrong reason is as bad as a wrong parent. If all
blocks that fit a record say the same, and there are enough of them, the reason is known without the
id (`same`). If there are as many blocks as failures and only one way to pair them, that pairing is
used.

The decision is made when the settling window of the record closes. Wok writes a block before its
record, so the block has been read by then. A block that is read ahead of the request log is hidden
at first. It is *admitted* when the request log has reached the start of its task.

A block has no time. If the error log is read ahead, it may contain a block that a task wrote long
after this failure, and that block may be the only one that fits. A block that can belong to a task
that *may still run* therefore does not count: its final record has not been read when the window
closes. The failure then stays *open*. While it is remembered, it competes for each block that fits
it.

Anybody can write into wok-error.log. A block that may be forged can only cast doubt on others. An
id is discredited if it occurs twice, if it is in the text of another block, or if a parameter of
the request log contains it behind a line break. Blocks with such an id are never joined.

If uuidd runs, it assigns ids up to two seconds early, all with the same clock sequence. Without it,
each thread has its own clock sequence. The fraction of a second is therefore used only after two
joined blocks of a boot had different ones.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from exporter.correlate.block_pairing import Anchor, Failure, crosses, pairs_of, says
from exporter.correlate.block_timing import EARLY_NANOS, LATE_FRACTION, BlockTiming, logged_at
from exporter.correlate.evidence import targets_of
from exporter.correlate.pending_blocks import NEAR_NANOS, BlockResult, PendingBlock, PendingBlocks
from exporter.correlate.request_memory import Ending, RequestMemory, Started
from exporter.records import NANOS, Record
from exporter.wok.error_log import (
    Block,
    Item,
    clock_sequence_of,
    plain_pieces,
)
from exporter.wok.forgery import IsQuoted
from exporter.wok.operations import Operations
from exporter.wok.task_functions import TaskFunctions

EPOCH_NANOS = 500_000_000
"""Maximum difference between a time in a target_uri and the start of its task."""
ANCHORS_MAX = 256
CROWD_MAX = 256
"""Maximum number of blocks of one operation, or of failures in the window. Above it, the matcher
does not search: the log is being flooded."""
PAIRS_MAX = 16
"""Maximum number of failures that are paired together. A larger group can be paired in more than
one way."""
BOOTS_MAX = 4
OPEN_MAX = 256
"""Maximum number of failures without a block that are remembered while tasks run that may explain
them. A waiting block may still belong to one of these failures."""

Result = Literal["joined", "same", "unsure", "none"]


class Decision(NamedTuple):
    """What wok-error.log says about a failure.

    joined    `block` belongs to this failure. `start` is the start of the task in nanoseconds, or 0
              if it is not reliable. `requests` are the contexts of the requests that can have
              started the task in that second; a single one is certain.
    same      Only the class and the text of `block` belong to this failure.
    unsure    There are blocks, but it is unknown which one belongs to this failure.
    none      No block fits.
    """

    result: Result
    block: Block | None = None
    start: int = 0
    requests: tuple[bytes, ...] = ()


class BlockMatcher:
    """Matches failures with blocks. Times are nanoseconds.

    `offer` adds items of wok-error.log in their order. `advance` receives the time of each record
    of the request log. `failed` adds a failure, and `decide` decides about it when its window
    closes. A block waits for `expiry` at most.
    """

    def __init__(
        self,
        operations: Operations,
        functions: TaskFunctions,
        requests: RequestMemory,
        *,
        expiry: int,
        is_quoted: IsQuoted | None = None,
        state: str = "",
    ) -> None:
        self._operations = operations
        self._is_quoted = is_quoted
        self._requests = requests
        self._blocks = PendingBlocks(functions, expiry=expiry)
        self._sequences: dict[int, list[str]] = {}
        self._failures: deque[Failure] = deque()
        self._failed = 0
        self._joined: deque[Anchor] = deque(maxlen=ANCHORS_MAX)
        self._open: deque[Failure] = deque(maxlen=OPEN_MAX)
        if state:
            self._restore(json.loads(state))

    # What the error log says

    def offer(self, items: Iterable[Item]) -> None:
        """Add the next items of the error log. Items that were added before are ignored."""
        self._blocks.offer(items)

    @property
    def admitted(self) -> int:
        """Number of the last item that does not have to be offered again after a restart."""
        return self._blocks.admitted

    @property
    def ahead(self) -> int:
        """Number of items that wait for the request log to reach their time."""
        return self._blocks.ahead

    def take_counts(self) -> Counter[BlockResult]:
        """Return the results of blocks since the last call."""
        return self._blocks.take_counts()

    # The request log

    def discredit(self, ids: Iterable[str]) -> None:
        """Never join a block with one of these ids: the request log shows that they are forged."""
        self._blocks.discredit(ids)

    def advance(self, now: int) -> None:
        """Advance the clock of the request log: all windows are closed up to this time."""
        self._blocks.advance(now)

    def failed(self, record: Record) -> None:
        """Add the final record of a failure."""
        self._failed += 1
        failure = self._failure(record, self._failed)
        while self._failures and abs(record.time - self._failures[0].time) >= 2 * NEAR_NANOS:
            self._failures.popleft()
        self._failures.append(failure)

    def withdraw(self, record: Record) -> None:
        """Remove a failure that repeats another one: it has no reason of its own."""
        failure = self._known(record)
        if failure in self._failures:
            self._failures.remove(failure)

    def decide(self, record: Record, ending: Ending) -> Decision:
        """Return why the task of this record failed. Call this when its settling window closes.

        `ending` are the final records in open windows, including this one.
        """
        failure = self._known(record)
        self.advance(record.time + NEAR_NANOS)
        if len(self._blocks.of(failure.app, failure.operation)) > CROWD_MAX:
            return Decision("unsure")
        written = self._timing(failure, ending)
        anchors = self._anchors(failure, written)
        decision = self._decide(failure, written, anchors)
        if decision.result != "joined" and len(self._failures) <= CROWD_MAX:
            sure = self._sure_anchors(failure, anchors, ending)
            if sure:
                decision = self._decide(failure, written, [*anchors, *sure])
        if decision.result != "joined" and written.may_lack():
            self._open.append(failure)
        return decision

    def _decide(self, failure: Failure, written: BlockTiming, anchors: Sequence[Anchor]) -> Decision:
        fitting = self._fitting(failure, anchors, written, are_values_asked=True)
        are_values_asked = bool(fitting)
        if not fitting:
            # Some of Wok's messages do not contain the values that they receive.
            fitting = self._fitting(failure, anchors, written, are_values_asked=False)
        if not fitting:
            return Decision("none")
        for waiting in fitting:
            self._blocks.asked(waiting, failure.time)
        found = fitting[0]
        if any(self._is_doubtful(waiting.block) for waiting in fitting):
            return Decision("unsure")
        rivals = self._rivals(fitting, failure, anchors, are_values_asked=are_values_asked)
        own: PendingBlock | None = found
        if len(fitting) > 1 or rivals:
            own = self._only_match(failure, fitting, rivals, anchors, written)
        if own is not None and len(own.block.ids) == 1:
            return self._join(own, failure)
        if len(fitting) > len(rivals) and len({waiting.block[2:6] for waiting in fitting}) == 1:
            return Decision("same", found.block, requests=self._common_request(failure, fitting))
        return Decision("unsure")

    def _common_request(self, failure: Failure, fitting: Sequence[PendingBlock]) -> tuple[bytes, ...]:
        """Return the one request that has started the task, whichever of these ids it had.

        Each id must be possible: otherwise a foreign header may have come between.
        """
        found: set[bytes] = set()
        for waiting in fitting:
            is_fine = self._is_fine(waiting.boot)
            for start in waiting.starts:
                requests = self._started_by(failure, start, is_fine=is_fine)
                if not requests:
                    return ()
                found.update(request.context for request in requests)
        return tuple(found) if len(found) == 1 else ()

    def _join(self, found: PendingBlock, failure: Failure) -> Decision:
        block = found.block
        self._blocks.join(found, failure.time)
        if failure in self._failures:
            self._failures.remove(failure)
        self._joined.append(Anchor(failure.number, failure.time, block.number))
        start = found.starts[0]
        is_fine = self._is_fine(found.boot)
        requests = self._started_by(failure, start, is_fine=is_fine)
        sequences = self._sequences.setdefault(found.boot, [])
        sequence = clock_sequence_of(block.ids[0])
        if not is_fine and sequence not in sequences:
            sequences.append(sequence)
            _bound(self._sequences, BOOTS_MAX)
        return Decision(
            "joined", block, start if is_fine else 0, tuple(request.context for request in requests)
        )

    def _known(self, record: Record) -> Failure:
        """Return the failure of a record that was added."""
        file = record.file.hex()
        for failure in self._failures:
            if failure.offset == record.offset and failure.file == file:
                return failure
        return self._failure(record, self._failed)

    def _failure(self, record: Record, number: int) -> Failure:
        return Failure(
            number=number,
            file=record.file.hex(),
            offset=record.offset,
            time=record.time,
            app=record.app,
            target_uri=record.target_uri,
            operation=self._operations.of_target(record.app, record.target_uri),
            task_id=record.task_id,
            code=record.error_code,
            pieces=tuple(piece for value in record.error_params.values() for piece in plain_pieces(value)),
        )

    # What fits

    def _timing(self, failure: Failure, ending: Ending) -> BlockTiming:
        targets = targets_of(self._operations, failure.app, failure.target_uri)
        forms = [target.text for target in targets]
        return BlockTiming(self._requests, failure, forms, ending, self._is_fine)

    def _joined_near(self, failure: Failure) -> list[Anchor]:
        return [anchor for anchor in self._joined if abs(anchor.time - failure.time) < NEAR_NANOS]

    def _anchors(self, failure: Failure, written: BlockTiming) -> list[Anchor]:
        """Return nearby failures whose blocks are known, or identified by code and values."""
        anchors = self._joined_near(failure)
        if len(self._failures) > CROWD_MAX:
            return anchors
        for other in self._failures:
            if other != failure and other.pieces and abs(other.time - failure.time) < NEAR_NANOS:
                named = self._fitting(other, (), written, are_values_asked=True)
                if len(named) == 1 and len(named[0].block.ids) == 1 and not self._is_doubtful(named[0].block):
                    anchors.append(Anchor(other.number, other.time, named[0].block.number))
        return anchors

    def _sure_anchors(self, failure: Failure, anchors: Sequence[Anchor], ending: Ending) -> list[Anchor]:
        """Return the nearby failures that are not decided yet, but have only one block, which fits
        no other failure.

        All tasks that can have written such a block have ended. No later record changes this.
        """
        known = {anchor.number for anchor in anchors}
        joined = self._joined_near(failure)
        sure = []
        for other in self._failures:
            if other == failure or other.number in known or abs(other.time - failure.time) >= NEAR_NANOS:
                continue
            fitting = self._fitting(other, joined, self._timing(other, ending), are_values_asked=False)
            if len(fitting) != 1 or len(fitting[0].block.ids) != 1 or self._is_doubtful(fitting[0].block):
                continue
            if not self._rivals(fitting, other, joined, are_values_asked=False):
                sure.append(Anchor(other.number, other.time, fitting[0].block.number))
        return sure

    def _fitting(
        self,
        failure: Failure,
        anchors: Sequence[Anchor],
        written: BlockTiming,
        *,
        are_values_asked: bool,
    ) -> list[PendingBlock]:
        return [
            waiting
            for waiting in self._blocks.of(failure.app, failure.operation)
            if self._fits(waiting, failure, are_values_asked=are_values_asked)
            and not crosses(waiting.block.number, failure, anchors)
            and (failure.task_id or written.has(waiting))
            and not self._is_later(waiting, failure)
        ]

    def _is_later(self, waiting: PendingBlock, failure: Failure) -> bool:
        """Return whether a block was forged after the failure: a later line of the request log
        quotes it.
        """
        block, is_quoted = waiting.block, self._is_quoted
        if is_quoted is None or self._blocks.is_discredited(block):
            return False
        return any(is_quoted(task_id, failure.time) for task_id in block.ids)

    def _rivals(
        self,
        fitting: Sequence[PendingBlock],
        failure: Failure,
        anchors: Sequence[Anchor],
        *,
        are_values_asked: bool,
    ) -> list[Failure]:
        """Return the other failures, nearby or open, that one of these blocks fits as well."""
        near = [
            other
            for other in self._failures
            if other != failure
            and abs(other.time - failure.time) < NEAR_NANOS
            and not self._is_same_end(failure, other)
        ]
        return [
            other
            for other in dict.fromkeys([*near, *self._open])
            if other != failure
            and any(
                self._fits(waiting, other, are_values_asked=are_values_asked)
                and not crosses(waiting.block.number, other, anchors)
                for waiting in fitting
            )
        ]

    def _only_match(
        self,
        failure: Failure,
        fitting: Sequence[PendingBlock],
        rivals: Sequence[Failure],
        anchors: Sequence[Anchor],
        written: BlockTiming,
    ) -> PendingBlock | None:
        """Return the block of a failure if its group of failures and blocks can be paired in only
        one way.

        There must be as many blocks as failures and no doubtful block. Then each failure has a
        block, and each block a failure.
        """
        if not rivals or len(rivals) >= PAIRS_MAX:
            return None
        choices: dict[Failure, set[int]] = {failure: {waiting.block.number for waiting in fitting}}
        blocks = {waiting.block.number: waiting for waiting in fitting}
        reached = list(rivals)
        while reached:
            other = reached.pop()
            if other in choices:
                continue
            found = self._fitting(other, anchors, written, are_values_asked=True)
            found = found or self._fitting(other, anchors, written, are_values_asked=False)
            choices[other] = {waiting.block.number for waiting in found}
            new = [waiting for waiting in found if waiting.block.number not in blocks]
            blocks |= {waiting.block.number: waiting for waiting in new}
            reached += self._rivals(new, failure, anchors, are_values_asked=False)
            if len(choices) > PAIRS_MAX or len(blocks) > PAIRS_MAX:
                return None
        if len(choices) != len(blocks) or any(
            len(waiting.block.ids) != 1 or self._is_doubtful(waiting.block) for waiting in blocks.values()
        ):
            return None
        return blocks.get(pairs_of(choices).get(failure, 0))

    def _is_same_end(self, failure: Failure, other: Failure) -> bool:
        """Return whether two records must belong to one task that reported its end twice."""
        if failure.app != other.app or failure.target_uri != other.target_uri:
            return False
        for target in targets_of(self._operations, failure.app, failure.target_uri):
            known = self._requests.count(failure.app, target.text)
            if known:
                return known == 1
        return False

    def _is_doubtful(self, block: Block) -> bool:
        return block.is_odd or self._blocks.is_discredited(block)

    def _is_fine(self, boot: int) -> bool:
        return len(self._sequences.get(boot, ())) > 1

    def _fits(self, waiting: PendingBlock, failure: Failure, *, are_values_asked: bool) -> bool:
        block = waiting.block
        if (
            failure.operation not in waiting.operations
            or waiting.app != failure.app
            or (waiting.latest and failure.time > waiting.latest)
            or not (failure.task_id or says(block, failure, are_values_asked=are_values_asked))
        ):
            return False
        if block.is_odd and self._blocks.is_discredited(block):
            return False  # certainly forged, so it does not cast doubt either
        if failure.task_id:
            return failure.task_id in block.ids
        if max(waiting.starts) >= failure.time + NANOS:
            return False  # the traceback was written after all these tasks had started
        is_fine = self._is_fine(waiting.boot)
        return self._operations.is_unlogged(failure.app, failure.target_uri) or any(
            self._started_by(failure, start, is_fine=is_fine) for start in waiting.starts
        )

    def _started_by(self, failure: Failure, start: int, *, is_fine: bool) -> Sequence[Started]:
        """Return the requests that can have started the task of this failure at `start`."""
        for target in targets_of(self._operations, failure.app, failure.target_uri):
            if target.epoch:
                # A time in whole seconds may be up to a second before the start.
                unit = NANOS if target.epoch % NANOS == 0 else 0
                slack = EPOCH_NANOS + unit + (0 if is_fine else EARLY_NANOS)
                if abs(start - target.epoch) > slack:
                    continue
            second, first, last = logged_at(start, is_fine=is_fine)
            last = min(last, (failure.time + NEAR_NANOS - 1) // NANOS * NANOS)
            found = self._requests.logged(failure.app, target.text, first, last)
            if found:
                if is_fine and start - second < LATE_FRACTION:
                    return [request for request in found if request.time <= second] or found
                return found
        return ()

    # The store

    @property
    def state(self) -> str:
        """The state as JSON text. Items that are not admitted yet must be offered again."""
        return json.dumps(
            {
                "blocks": self._blocks.to_json(),
                "sequences": list(self._sequences.items()),
                "failed": self._failed,
                "failures": list(self._failures),
                "joined": list(self._joined),
                "open": list(self._open),
            },
            separators=(",", ":"),
        )

    def _restore(self, kept: dict[str, Any]) -> None:
        self._blocks.restore(kept["blocks"])
        self._sequences = dict(kept["sequences"])
        self._failed = kept["failed"]
        self._joined.extend(Anchor(*fields) for fields in kept["joined"])
        self._failures.extend(map(_failure_of, kept["failures"]))
        self._open.extend(map(_failure_of, kept["open"]))


def _failure_of(fields: Sequence[Any]) -> Failure:
    values = dict(zip(Failure._fields, fields, strict=True))
    values["pieces"] = tuple(values["pieces"])
    return Failure(**values)


def _bound(values: dict[Any, Any], limit: int) -> None:
    while len(values) > limit:
        del values[next(iter(values))]
