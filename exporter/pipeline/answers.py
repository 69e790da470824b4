"""Reads the answers of some seconds from wok-access.log, for requests whose status is in doubt."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from exporter.source.timed_lines import TimedLines
from exporter.wok.access_log import Answer, answer_of, time_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from exporter.correlate.true_status import Answers
    from exporter.parse.timezone import Zones

SPANS_MAX: Final = 2
"""Requests whose windows close together share the seconds that were read last."""


class AccessLog:
    """The answers in wok-access.log and its rotated files."""

    def __init__(self, path: Path, zones: Zones) -> None:
        self._zones = zones
        self._lines = TimedLines(path, partial(time_of, zones=zones))
        self._spans: dict[tuple[int, int], Answers | None] = {}

    def between(self, first: int, last: int) -> Answers | None:
        """Return the answers between two times in nanoseconds; None if they are unknown.

        The log must have got past these seconds, so that all their lines are there.
        """
        span = (first, last)
        if span not in self._spans:
            lines = self._lines.between(first, last)
            answers = None if lines is None else self._answers(lines)
            if len(self._spans) >= SPANS_MAX:
                del self._spans[next(iter(self._spans))]
            self._spans[span] = answers
        return self._spans[span]

    def close(self) -> None:
        """Close the files."""
        self._lines.close()

    def _answers(self, lines: Iterable[bytes]) -> Answers:
        found: dict[tuple[str, str], list[Answer]] = {}
        for line in lines:
            answer = answer_of(line, self._zones)
            if answer is not None:
                found.setdefault((answer.method, answer.client), []).append(answer)
        return found
