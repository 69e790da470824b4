"""A chunk of a log with what its lines are: where reading and parsing meet.

`Parsed` lines come from a source and a parser side by side, in this process (`Here`) or, for a long history, in
one that runs ahead (`ahead.Ahead`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from exporter.parse import Parser
from exporter.records import Parsed, Source, TailEvent


class Reading(NamedTuple):
    """What one read gave: `items` in the order of the log, the source's position and the parser's state after
    them, and how many lines and bytes they were. `behind` bytes are known to be still unread.
    """

    items: Sequence[Parsed]
    position: str
    parser: str
    lines: int
    size_bytes: int
    events: Sequence[TailEvent]
    caught_up: bool
    behind: int


class Readings(Protocol):
    """Where readings come from."""

    def read(self, limit: int) -> Reading:
        """Return what about `limit` bytes of the log are."""

    def close(self) -> None:
        """Release what is open."""


class Here:
    """Reads and parses in this process."""

    def __init__(self, source: Source, parser: Parser) -> None:
        self._source = source
        self._parser = parser

    def read(self, limit: int) -> Reading:
        """Return what the next lines are; never blocks."""
        chunk = self._source.read(limit)
        feed = self._parser.feed
        items = [item for line in chunk.lines for item in feed(line)]
        return Reading(
            items=items,
            position=chunk.position,
            parser=self._parser.state,
            lines=len(chunk.lines),
            size_bytes=sum([line.length + line.ended for line in chunk.lines]),
            events=chunk.events,
            caught_up=chunk.caught_up,
            behind=chunk.behind,
        )

    def close(self) -> None:
        """Close the source."""
        self._source.close()
