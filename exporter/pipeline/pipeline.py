"""Moves a log into the store: read, process, build the commit, commit.

A step processes a batch of lines and commits its result in one transaction. Memory is never ahead
of disk: if a commit fails, the reader is discarded and a new one is opened from the store, exactly
as at a start. There is no other recovery.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from exporter.pipeline.commit_builder import CommitBuilder
from exporter.pipeline.reader import BatchReader
from exporter.store.writer import Loaded, Store

log = logging.getLogger(__name__)

OpenReader = Callable[[Loaded], BatchReader]
"""Opens a reader that continues from the state of the store."""


class Progress(NamedTuple):
    """The outcome of a step.

    `committed` is True if the store changed. `damages` describes files that could not be read to
    the end.
    """

    lines: int
    committed: bool
    caught_up: bool
    behind: int
    damages: Sequence[str] = ()
    events: int = 0


class Pipeline:
    """Reads one log into one store; `now` returns the timestamp of a commit, in seconds.

    Every method raises StoreError if the store fails. Then call `restart` before the next step.
    """

    def __init__(
        self,
        store: Store,
        commit_builder: CommitBuilder,
        open_reader: OpenReader,
        *,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._commit_builder = commit_builder
        self._open_reader = open_reader
        self._now = now
        self._reader: BatchReader | None = None
        self.restart()

    def restart(self) -> None:
        """Reopen the reader from the state of the store."""
        self.close()
        self._reader = self._open_reader(self._store.load())

    def step(self) -> Progress:
        """Process the next lines, at most a batch, and commit the result."""
        assert self._reader is not None, "restart() opens it"
        result = self._reader.step()
        if result is None:
            return Progress(0, committed=False, caught_up=True, behind=0)
        for event in result.noticed:
            log.warning("%s: %s", event.kind, event.detail)
        self._store.commit(self._commit_builder.commit(result), self._now())
        return Progress(
            result.lines,
            committed=True,
            caught_up=result.caught_up,
            behind=result.behind,
            damages=[event.detail for event in result.noticed if event.kind == "unreadable"],
            events=result.event_count,
        )

    def close(self) -> None:
        """Close the reader; the store stays open."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
