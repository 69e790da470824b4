"""Determine which blocks of wok-error.log were certainly written before the decision about a
failure.

A block has no time. The exporter may read the error log far ahead of the request log. A block that
was written later must not change the decision. A block therefore counts only if it cannot belong to
a task that may still run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from exporter.correlate.block_pairing import Failure
from exporter.correlate.evidence import is_identifier
from exporter.correlate.pending_blocks import PendingBlock
from exporter.correlate.request_memory import Ending, RequestMemory, Told
from exporter.records import NANOS
from exporter.wok.error_log import Block

COARSE_NANOS = 10_000_000
"""The log uses the kernel's coarse clock, which is up to 4 ms behind. A start this early in a
second may be logged in the second before."""
LATE_FRACTION = 500_000_000
"""If a start is in the first half of a second, its request is logged in the same second, if it has
one."""
LAST_FRACTION = 900_000_000
"""The line of a request is written a few milliseconds after the start of its task. If a start is
before this fraction, its request is logged in the same second."""
TOLD_CHARS_MIN = 3
"""A shorter value may appear in a text by chance."""
EARLY_NANOS = 2 * NANOS
"""How early a uuid1 may be if uuidd runs."""


class BlockTiming:
    """The blocks that were written when one failure is decided.

    `forms` are the forms of its target_uri.

    `ending` are the final records in open settling windows. `is_fine` tells whether the fraction of
    a second counts in a boot.

    A task that may still run is ignored if its request lacks a name or value that the failure and
    the exception both contain.
    """

    def __init__(
        self,
        requests: RequestMemory,
        failure: Failure,
        forms: Collection[str],
        ending: Ending,
        is_fine: Callable[[int], bool],
    ) -> None:
        self._requests = requests
        self._failure = failure
        self._forms = frozenset(forms)
        self._ending = ending
        self._is_fine = is_fine
        self._known: dict[int, bool] = {}

    def has(self, waiting: PendingBlock) -> bool:
        """Return whether a block was certainly written when the window of the failure closed."""
        number = waiting.block.number
        known = self._known.get(number)
        if known is None:
            is_fine = self._is_fine(waiting.boot)
            told = self._told(waiting.block)
            known = self._known[number] = not any(
                self._may_run(waiting, start, told, is_fine=is_fine) for start in waiting.starts
            )
        return known

    def _may_run(self, waiting: PendingBlock, start: int, told: Told | None, *, is_fine: bool) -> bool:
        second, first, last = logged_at(start, is_fine=is_fine)
        if is_fine and start - second < LAST_FRACTION:
            last = second
        return self._requests.may_run(waiting.app, waiting.operations, first, last, self._ending, told)

    def _told(self, block: Block) -> Told | None:
        """Return what the failure and an exception both tell about their request, if anything."""
        failure = self._failure
        segments = failure.target_uri.split("/")
        if failure.code:
            texts = {text for text in (*failure.pieces, *segments) if len(text) >= TOLD_CHARS_MIN}
        else:
            texts = {text for text in segments if is_identifier(text)}
        said = {text for text in texts if _stands_in(text, block.text)}
        known = self._requests.known_names(failure.app, self._forms, said) if said else set()
        return Told(known, self._forms) if known else None

    def may_lack(self) -> bool:
        """Return whether a block of this failure may not be written yet.

        That is possible if other tasks of its operation run whose requests came at nearly the same
        time.
        """
        names = {self._failure.operation, *self._forms}
        near = COARSE_NANOS + EARLY_NANOS
        return self._requests.may_run_beside(self._failure.app, names, self._forms, near, self._ending)


def _stands_in(text: str, said: str) -> bool:
    """Return whether a text appears in another one, and not as part of a longer name."""
    return re.search(rf"(?<![\w.-]){re.escape(text)}(?![\w-])", said) is not None


def logged_at(start: int, *, is_fine: bool) -> tuple[int, int, int]:
    """Return the second of a start, and the first and last second in which its request can have
    been logged.
    """
    second = start // NANOS * NANOS
    first = second - NANOS if start - second < COARSE_NANOS else second
    return second, first, second + NANOS + (0 if is_fine else EARLY_NANOS)
