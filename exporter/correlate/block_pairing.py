"""Compare failures of the request log with blocks of wok-error.log, by content and by order, and
pair them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from exporter.wok.error_log import Block, is_wok

CROSSING_MAX = 8
"""If two failures of the same second are this many failures apart, their blocks are in the same
order. The most that was seen is three."""
LATE_CROSSING_MAX = 2
"""The same for failures of different seconds. None of these was ever seen out of order."""


class Failure(NamedTuple):
    """The part of a failed final record that is compared with blocks.

    number  Number of the failure in the log.
    pieces  Parts of the error's values that appear in Wok's text.
    """

    number: int
    file: str
    offset: int
    time: int
    app: str
    target_uri: str
    operation: str
    task_id: str
    code: str
    pieces: tuple[str, ...]


class Anchor(NamedTuple):
    """A failure with its known block: number and time of the failure, number of the block."""

    number: int
    time: int
    block: int


def says(block: Block, failure: Failure, *, are_values_asked: bool) -> bool:
    """Return whether this record can have reported the exception of a block."""
    if not block.code:
        return not failure.code
    if failure.code != block.code:
        # The text of another exception class may begin with something that looks like a code.
        return not failure.code and not is_wok(block.exception)
    return not are_values_asked or all(piece in block.text for piece in failure.pieces)


def crosses(block: int, failure: Failure, anchors: Iterable[Anchor]) -> bool:
    """Return whether a block would be on the wrong side of a known one.

    Blocks are in the order of the records, except for neighbours within milliseconds.
    """
    return any(
        (anchor.number < failure.number) != (anchor.block < block)
        for anchor in anchors
        if anchor.block != block
        and abs(anchor.number - failure.number)
        >= (CROSSING_MAX if anchor.time == failure.time else LATE_CROSSING_MAX)
    )


def pairs_of(choices: dict[Failure, set[int]]) -> dict[Failure, int]:
    """Pair failures and blocks while one side has only one choice.

    If there is exactly one way to pair them, all are paired.
    """
    choices = {failure: set(numbers) for failure, numbers in choices.items()}
    pairs: dict[Failure, int] = {}
    while choices:
        counts = Counter(number for numbers in choices.values() for number in numbers)
        forced = next(
            (
                (failure, number)
                for failure, numbers in choices.items()
                for number in numbers
                if len(numbers) == 1 or counts[number] == 1
            ),
            None,
        )
        if forced is None:
            return {}
        failure, number = forced
        pairs[failure] = number
        del choices[failure]
        for numbers in choices.values():
            numbers.discard(number)
    return pairs
