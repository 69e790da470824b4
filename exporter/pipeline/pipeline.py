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

OpenFront = Callable[[Loaded], BatchReader]
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
        self, store: Store, composer: CommitBuilder, open_front: OpenFront, *, now: Callable[[], float]
    ) -> None:
        self._store = store
        self._composer = composer
        self._open_front = open_front
        self._now = now
        self._front: BatchReader | None = None
        self.restart()

    def restart(self) -> None:
        """Begin again from the store."""
        self.close()
        self._front = self._open_front(self._store.load())

    def step(self) -> Progress:
        """Take what the next lines mean, up to a batch, and commit it."""
        assert self._front is not None, "restart() opens it"
        meant = self._front.step()
        if meant is None:
            return Progress(0, committed=False, caught_up=True, behind=0)
        for event in meant.noticed:
            log.warning("%s: %s", event.kind, event.detail)
        self._store.commit(self._composer.commit(meant), self._now())
        return Progress(
            meant.lines,
            committed=True,
            caught_up=meant.caught_up,
            behind=meant.behind,
            damages=[event.detail for event in meant.noticed if event.kind == "unreadable"],
            events=len(meant.events),
        )

    def close(self) -> None:
        """Close the reading half; the store stays open."""
        if self._front is not None:
            self._front.close()
            self._front = None
