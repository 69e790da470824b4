"""The table of open tasks: changes that the store does not have yet, and expired tasks."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from exporter.correlate.stored import row_of
from exporter.correlate.task_state import Task
from exporter.records import OpenTask

EXPIRING_SLACK = 1024
"""Number of ended tasks that may remain in the expiry queue beyond the number of running tasks."""


class OpenTaskTable:
    """The open tasks by key. A task expires when it has been open for `expiry` nanoseconds."""

    def __init__(self, expiry: int) -> None:
        self._expiry = expiry
        self.tasks: dict[bytes, Task] = {}
        self._expiring: list[tuple[int, int, bytes]] = []
        self._dirty: dict[bytes, Task] = {}
        self._stored: set[bytes] = set()
        self._closed: list[bytes] = []

    def started_by(self, time: int) -> list[Task]:
        """Return the open tasks that had started by this time, in order of opening."""
        in_order = sorted(self.tasks.values(), key=lambda task: task.seq)
        return [task for task in in_order if task.start <= time]

    def may_have_started_by(self, time: int) -> bool:
        """Return whether a task may have been open since this time. False is certain."""
        return bool(self._expiring) and self._expiring[0][0] <= time

    def open(self, task: Task) -> None:
        """Add a task."""
        self.tasks[task.key] = task
        self._dirty[task.key] = task
        heapq.heappush(self._expiring, (task.start, task.seq, task.key))
        if len(self._expiring) > 2 * len(self.tasks) + EXPIRING_SLACK:
            # Most tasks end long before they expire. Do not keep a whole day of them.
            self._expiring = [(each.start, each.seq, each.key) for each in self.tasks.values()]
            heapq.heapify(self._expiring)

    def touch(self, task: Task) -> None:
        """Mark an open task as changed, so that the store writes it again."""
        if task.key in self.tasks:
            self._dirty[task.key] = task

    def close(self, task: Task) -> None:
        """Remove a task, if it is open."""
        self.tasks.pop(task.key, None)
        self._dirty.pop(task.key, None)
        if task.key in self._stored:
            self._stored.discard(task.key)
            self._closed.append(task.key)

    def expired(self, now: int) -> list[Task]:
        """Return the expired tasks in the order of their starts.

        Close them before the next call.

        The result excludes tasks whose end is being decided. Ask again after that decision.
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
        """Return whether a task has expired and needs no other decision first."""
        expiring = self._expiring
        while expiring and expiring[0][0] + self._expiry <= now:
            start, seq, key = expiring[0]
            task = self.tasks.get(key)
            if task is not None and task.seq == seq and task.start == start:
                return not task.is_being_decided
            heapq.heappop(expiring)
        return False

    def set_back(self, now: int) -> None:
        """Limit all start times to `now`: the clock was ahead when these tasks started."""
        for task in [each for each in self.tasks.values() if each.start > now]:
            task.start = now
            self.touch(task)
            heapq.heappush(self._expiring, (now, task.seq, task.key))

    def changes(self) -> tuple[Sequence[OpenTask], Sequence[bytes]]:
        """Return the tasks that opened or changed since the last call, and the keys of those that
        closed.
        """
        opened = [row_of(task) for task in self._dirty.values()]
        self.mark_stored()
        closed, self._closed = self._closed, []
        return opened, closed

    def mark_stored(self) -> None:
        """Record that the store has all open tasks."""
        self._stored.update(self._dirty)
        self._dirty = {}
