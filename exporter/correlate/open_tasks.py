"""The book of open tasks: what is open, what of it the store has yet to learn, and who has been open for too long."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from exporter.correlate.stored import row_of
from exporter.correlate.task_state import Task
from exporter.records import OpenTask

EXPIRING_SLACK = 1024
"""Ended tasks that may lie among those whose expiry is awaited, beside as many as run."""


class OpenTaskTable:
    """The open tasks, `tasks` by their keys; one is too old when it has been open for `expiry` nanoseconds."""

    def __init__(self, expiry: int) -> None:
        self._expiry = expiry
        self.tasks: dict[bytes, Task] = {}
        self._expiring: list[tuple[int, int, bytes]] = []
        self._dirty: dict[bytes, Task] = {}
        self._stored: set[bytes] = set()
        self._closed: list[bytes] = []

    def started_by(self, time: int) -> list[Task]:
        """Return the open tasks that had started by then, in the order in which they opened."""
        in_order = sorted(self.tasks.values(), key=lambda task: task.seq)
        return [task for task in in_order if task.start <= time]

    def open(self, task: Task) -> None:
        """Enter a task."""
        self.tasks[task.key] = task
        self._dirty[task.key] = task
        heapq.heappush(self._expiring, (task.start, task.seq, task.key))
        if len(self._expiring) > 2 * len(self.tasks) + EXPIRING_SLACK:
            # Most tasks end long before they expire: do not keep a day of them.
            self._expiring = [(each.start, each.seq, each.key) for each in self.tasks.values()]
            heapq.heapify(self._expiring)

    def touch(self, task: Task) -> None:
        """Note that a task has changed, if it is open: the store will keep it anew."""
        if task.key in self.tasks:
            self._dirty[task.key] = task

    def close(self, task: Task) -> None:
        """Strike out a task, if it is open."""
        self.tasks.pop(task.key, None)
        self._dirty.pop(task.key, None)
        if task.key in self._stored:
            self._stored.discard(task.key)
            self._closed.append(task.key)

    def expired(self, now: int) -> list[Task]:
        """Return the tasks that are too old, in the order of their starts; close them before you ask again.

        A task whose end is being decided is not among them: when that is certain, ask again.
        """
        found: list[Task] = []
        undecided: list[tuple[int, int, bytes]] = []
        expiring = self._expiring
        while expiring and expiring[0][0] + self._expiry <= now:
            entry = heapq.heappop(expiring)
            task = self.tasks.get(entry[2])
            if task is None or task.seq != entry[1] or task.start != entry[0]:
                continue
            if task.is_being_decided:
                undecided.append(entry)
            else:
                found.append(task)
        for entry in undecided:
            heapq.heappush(expiring, entry)
        return found

    def is_due(self, now: int) -> bool:
        """Tell whether a task is too old, and nothing else has to be decided before."""
        expiring = self._expiring
        while expiring and expiring[0][0] + self._expiry <= now:
            start, seq, key = expiring[0]
            task = self.tasks.get(key)
            if task is not None and task.seq == seq and task.start == start:
                return not task.is_being_decided
            heapq.heappop(expiring)
        return False

    def set_back(self, now: int) -> None:
        """Let no task have started later than now: the clock was ahead when it did."""
        for task in [each for each in self.tasks.values() if each.start > now]:
            task.start = now
            self.touch(task)
            heapq.heappush(self._expiring, (now, task.seq, task.key))

    def changes(self) -> tuple[Sequence[OpenTask], Sequence[bytes]]:
        """Return the tasks that opened or changed since the last call, and the keys of those that closed."""
        opened = [row_of(task) for task in self._dirty.values()]
        self.mark_stored()
        closed, self._closed = self._closed, []
        return opened, closed

    def mark_stored(self) -> None:
        """Note that the store knows all that is open."""
        self._stored.update(self._dirty)
        self._dirty = {}
