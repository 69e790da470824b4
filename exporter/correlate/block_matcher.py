r"""Why a task failed: which exception of wok-error.log belongs to which final record of the request log.

Nothing says so. A block of wok-error.log has the task's id, whose uuid1 is the time of the task's start, the function
that raised, and a text; it has no time of its own. A TASK record has a target_uri, a time, and Wok's error code
where the exception was Wok's. So a block *fits* a failure when all of this holds:

1. the function is one of the operation that the target_uri names (`task_functions.tsv`), in the same application;
2. a WokException has the record's code, and the values of the record's error stand in its text; any other exception
   has a record without a code;
3. a request that can have this target_uri was logged in the second of the task's start, or in the next; a time
   inside the target_uri is that of the start. A record that carries a task id fits the blocks of this id alone;
4. blocks and records stand in the same order, but for neighbours. A block that stands before one that is known to be
   a record's, or before the mark of a restart, is no later than that. Pairs that are known, or named by code and
   values, keep others on their side.

A block is *joined* to a record when it is the only one that fits, and fits no other record within two seconds. Else
the record goes without: a wrong reason is as bad as a wrong parent. Only where all blocks that a record could have
say the same, and there are enough of them, the reason is known although the id is not (`same`). Where as many blocks
as failures can be paired in one way only, that is the way.

The decision falls when the record's settling window closes. A block is on disk before its record, so it has been
read by then. What is read ahead of the request log is not seen before its time: a block is *admitted* when the
request log has reached the start of its task.

A block has no time. One that a task wrote long after this failure may have been read already, where the log of
errors is read ahead, and it would be the only one that fits a failure without a block of its own. So a block that
can be of a task which *may still run* does not count: the task's final record has not been read when the window
closes. The failure is *open* then, and as long as it is remembered it is a rival for each block that fits it.

Anybody can write into wok-error.log. What may be forged can cast doubt on others, and do nothing else: an id that
stands twice, that stands inside the text of another block, or that a parameter of the request log has brought there
behind a line break is discredited, and its blocks are never joined.

Where uuidd runs, it gives out ids up to two seconds early, and all of one clock sequence. Without it each thread has
its own. So the fraction of a second counts only after two joined blocks of a boot had different ones.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from exporter.correlate.block_pairing import Anchor, Failure, crosses, pairs_of, says
from exporter.correlate.block_timing import EARLY_NANOS, LATE_FRACTION, BlockTiming, logged_at
from exporter.correlate.evidence import targets_of
from exporter.correlate.pending_blocks import NEAR_NANOS, PendingBlocks
from exporter.records import NANOS
from exporter.wok.error_log import (
    Block,
    clock_sequence_of,
    plain_pieces,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from exporter.correlate.pending_blocks import BlockResult, PendingBlock
    from exporter.correlate.request_memory import Ending, Requests, Started
    from exporter.records import Record
    from exporter.wok.error_log import Item
    from exporter.wok.operations import Operations
    from exporter.wok.task_functions import TaskFunctions

EPOCH_NANOS = 500_000_000
"""How far a time inside a target_uri may be from the start of its task."""
ANCHORS_MAX = 256
CROWD_MAX = 256
"""Blocks of one operation, or failures within the window, among which nothing is looked for: somebody floods a log."""
PAIRS_MAX = 16
"""Failures that are paired with blocks together: a crowd has more than one way."""
BOOTS_MAX = 4
OPEN_MAX = 256
"""Failures without a block, beside tasks that may still have one: as long as a block waits, it may be theirs."""

Result = Literal["joined", "same", "unsure", "none"]


class Decision(NamedTuple):
    """What wok-error.log says about a failure.

    `joined`: `block` is this failure's. `start` is the task's start in nanoseconds, 0 where it is not to be trusted,
    and `requests` are the contexts of the requests that can have started it by the second of its start: a single one
    is exact. `same`: class and text of `block` are this failure's, nothing else of it. `unsure`: there are blocks,
    but which of them nobody can say. `none`: no block fits.
    """

    result: Result
    block: Block | None = None
    start: int = 0
    requests: tuple[bytes, ...] = ()


class BlockMatcher:
    """What is known of both logs, and what follows for each failure. Times are nanoseconds.

    `offer` takes what wok-error.log says, in its order; `advance` the time of each record of the request log; `failed`
    its failures; `decide` closes the window of one. `expiry` is how long a block waits at most.
    """

    def __init__(
        self,
        operations: Operations,
        functions: TaskFunctions,
        requests: Requests,
        *,
        expiry: int,
        state: str = "",
    ) -> None:
        self._operations = operations
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
        """Take what the error log says next; what has been taken before is ignored."""
        self._blocks.offer(items)

    @property
    def admitted(self) -> int:
        """The number of the last item that need not be offered again after a restart."""
        return self._blocks.admitted

    @property
    def ahead(self) -> int:
        """How many items wait for the request log to reach their time."""
        return self._blocks.ahead

    def take_counts(self) -> Counter[BlockResult]:
        """Return what has become of blocks since the last call."""
        return self._blocks.take_counts()

    # The request log

    def discredit(self, ids: Iterable[str]) -> None:
        """Never join a block of these ids: the request log shows who has written them."""
        self._blocks.discredit(ids)

    def advance(self, now: int) -> None:
        """Let the request log's clock move on: to the time up to which all windows are closed."""
        self._blocks.advance(now)

    def failed(self, record: Record) -> None:
        """Take a final record of a failure."""
        self._failed += 1
        failure = self._failure(record, self._failed)
        while self._failures and abs(record.time - self._failures[0].time) >= 2 * NEAR_NANOS:
            self._failures.popleft()
        self._failures.append(failure)

    def withdraw(self, record: Record) -> None:
        """Take a final record for a repeat of another one: it has no reason of its own."""
        failure = self._known(record)
        if failure in self._failures:
            self._failures.remove(failure)

    def decide(self, record: Record, ending: Ending) -> Decision:
        """Say why the task of this record failed; to be asked when its settling window closes.

        `ending` are the final records that wait for their windows, this one included.
        """
        failure = self._known(record)
        self.advance(record.time + NEAR_NANOS)
        if len(self._blocks.of(failure.app, failure.operation)) > CROWD_MAX:
            return Decision("unsure")
        targets = targets_of(self._operations, failure.app, failure.target_uri)
        forms = [target.text for target in targets]
        written = BlockTiming(self._requests, failure, forms, ending, self._is_fine)
        decision = self._decide(failure, written)
        if decision.result != "joined" and written.may_lack():
            self._open.append(failure)
        return decision

    def _decide(self, failure: Failure, written: BlockTiming) -> Decision:
        anchors = self._anchors(failure, written)
        fitting = self._fitting(failure, anchors, written, are_values_asked=True)
        are_values_asked = bool(fitting)
        if not fitting:
            # Some of Wok's messages do not say the values that they are given.
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
            return Decision("same", found.block)
        return Decision("unsure")

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
        """Return a failure that has been taken."""
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

    def _anchors(self, failure: Failure, written: BlockTiming) -> list[Anchor]:
        """Return the failures near this one whose blocks are known, or named by code and values."""
        anchors = [anchor for anchor in self._joined if abs(anchor.time - failure.time) < NEAR_NANOS]
        for anchor in anchors:
            written.pass_known(anchor.block)
        if len(self._failures) > CROWD_MAX:
            return anchors
        for other in self._failures:
            if other != failure and other.pieces and abs(other.time - failure.time) < NEAR_NANOS:
                named = self._fitting(other, (), written, are_values_asked=True)
                if len(named) == 1 and len(named[0].block.ids) == 1 and not self._is_doubtful(named[0].block):
                    anchors.append(Anchor(other.number, other.time, named[0].block.number))
                    if other.time <= failure.time:
                        written.pass_known(named[0].block.number)
        return anchors

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
        ]

    def _rivals(
        self,
        fitting: Sequence[PendingBlock],
        failure: Failure,
        anchors: Sequence[Anchor],
        *,
        are_values_asked: bool,
    ) -> list[Failure]:
        """Return the other failures, near this one or open, that one of these blocks fits as well."""
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
        """Return the block of a failure where all failures and blocks around it can be paired in one way only.

        As many blocks as failures, and none in doubt: each failure has a block then, and each block a failure.
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
        """Tell whether two records must be of one task, which has told its end twice."""
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
            return False  # forged for certain: it casts no doubt either
        if failure.task_id:
            return failure.task_id in block.ids
        is_fine = self._is_fine(waiting.boot)
        is_unlogged = self._operations.is_unlogged(failure.app, failure.target_uri)
        return any(
            start < failure.time + NANOS
            and (is_unlogged or bool(self._started_by(failure, start, is_fine=is_fine)))
            for start in waiting.starts
        )

    def _started_by(self, failure: Failure, start: int, *, is_fine: bool) -> Sequence[Started]:
        """Return the requests that can have started the task of this failure at `start`."""
        for target in targets_of(self._operations, failure.app, failure.target_uri):
            if target.epoch:
                # A time of whole seconds may be up to a second before the start.
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
        """What to go on from, as JSON text; what is not admitted yet must be offered again."""
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
