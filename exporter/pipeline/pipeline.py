"""From a log into the store: read, understand, compose, commit.

A step takes what some lines mean and commits it in one transaction. Memory is never ahead of disk: when a commit
fails, the front half is thrown away and made again from the store, which is also what a start does. There is no
other recovery.
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
"""Opens the reading half, on from what the store has."""


class Progress(NamedTuple):
    """What a step has done. `committed` tells whether the store has changed, `damages` which files broke off."""

    lines: int
    committed: bool
    caught_up: bool
    behind: int
    damages: Sequence[str] = ()
    events: int = 0


class Pipeline:
    """One log, read into one store; `now` gives the time of a commit, in seconds, for people.

    Every method raises StoreError when the store fails; call `restart` before the next step then.
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
        """Begin again from the store."""
        self.close()
        self._reader = self._open_reader(self._store.load())

    def step(self) -> Progress:
        """Take what the next lines mean, up to a batch, and commit it."""
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
            events=len(result.events),
        )

    def close(self) -> None:
        """Close the reading half; the store stays open."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
