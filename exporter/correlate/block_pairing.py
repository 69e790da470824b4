"""Failures of the request log beside blocks of wok-error.log: what is compared, in which order they stand, and how
they can be paired.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from exporter.wok.error_log import is_wok

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.wok.error_log import Block

CROSSING_MAX = 8
"""Failures of one second: so many apart, two have their blocks in the same order. Three was the most that was seen."""
LATE_CROSSING_MAX = 2
"""The same for failures of different seconds, of which none was ever seen to cross."""


class Failure(NamedTuple):
    """What of a final record is compared with blocks: `number` counts the failures of the log, `pieces` of its error's
    values stand in Wok's text.
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
    """A failure, by number and time, and the number of the block that is its own."""

    number: int
    time: int
    block: int


def says(block: Block, failure: Failure, *, are_values_asked: bool) -> bool:
    """Tell whether the exception of a block can have been reported by this record."""
    if not block.code:
        return not failure.code
    if failure.code != block.code:
        # Of a class that is not Wok's, the text may begin like a code without being one.
        return not failure.code and not is_wok(block.exception)
    return not are_values_asked or all(piece in block.text for piece in failure.pieces)


def crosses(block: int, failure: Failure, anchors: Iterable[Anchor]) -> bool:
    """Tell whether a block would stand on the wrong side of a known one: they are written in the order of the records
    but for neighbours, within milliseconds.
    """
    return any(
        (anchor.number < failure.number) != (anchor.block < block)
        for anchor in anchors
        if anchor.block != block
        and abs(anchor.number - failure.number)
        >= (CROSSING_MAX if anchor.time == failure.time else LATE_CROSSING_MAX)
    )


def pairs_of(choices: dict[Failure, set[int]]) -> dict[Failure, int]:
    """Pair failures and blocks as far as one of the two has no other choice: all of them, where there is one way."""
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
