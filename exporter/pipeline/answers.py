"""Reads the answers of some seconds from wok-access.log, for requests whose status is in doubt."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from exporter.correlate.true_status import ANSWER_NANOS, BEFORE_NANOS
from exporter.source.timed_lines import TimedLines
from exporter.wok.access_log import Answer, answer_of, time_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from exporter.correlate.true_status import Answers
    from exporter.parse.timezone import Zones

SECONDS_MAX: Final = 2
"""Requests whose windows close together share the seconds that were read last."""


class AccessLog:
    """The answers in wok-access.log and its rotated files."""

    def __init__(self, path: Path, zones: Zones) -> None:
        self._zones = zones
        self._lines = TimedLines(path, partial(time_of, zones=zones))
        self._seconds: dict[int, Answers | None] = {}

    def around(self, time: int) -> Answers | None:
        """Return the answers around `time`, in nanoseconds; None if they are unknown.

        The log must have got past these seconds, so that all their lines are there.
        """
        if time not in self._seconds:
            lines = self._lines.between(time - BEFORE_NANOS, time + ANSWER_NANOS)
            answers = None if lines is None else self._answers(lines)
            if len(self._seconds) >= SECONDS_MAX:
                del self._seconds[next(iter(self._seconds))]
            self._seconds[time] = answers
        return self._seconds[time]

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
