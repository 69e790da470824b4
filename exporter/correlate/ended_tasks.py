"""What is remembered of tasks after their end: whose a further final record is, and which ids were used."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

ENDED_MAX = 10_000
"""Ended tasks whose further final records are recognised as repeats."""
TASK_IDS_MAX = 256
"""Task ids whose last use is known: more than start within a settling window."""
TASK_ID_BEGINS_MAX = 2
"""A new wokd's first ids: one of these, used before, is a beginning even if nothing higher was used."""
TASK_ID_DISORDER_MAX = 20
"""How far below the highest task id of this wokd a new one may be: as many tasks would have to start at once."""

Key = tuple[str, str, str]
"""Application, target_uri and task id (empty where the dialect has none) of an ended task."""


class Ended(NamedTuple):
    """An ended task: enough to put a repeat where it belongs."""

    number: int
    time: int
    context: bytes
    parent: bytes
    operation: str


class EndedTasks:
    """The last ENDED_MAX ended tasks, by their key; where several have one, the newest."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Ended] = {}
        self._with_id: dict[tuple[str, str], Ended] = {}
        self._order: deque[tuple[int, Key]] = deque()
        self._count = 0
        self._before_restart = 0

    def add(self, key: Key, time: int, context: bytes, parent: bytes, operation: str) -> None:
        """Remember a task that has ended at `time`."""
        self._count += 1
        ended = self._by_key[key] = Ended(self._count, time, context, parent, operation)
        if key[2]:
            self._with_id[key[:2]] = ended
        self._order.append((self._count, key))
        if len(self._order) > ENDED_MAX:
            number, oldest = self._order.popleft()
            if oldest in self._by_key and self._by_key[oldest].number == number:
                del self._by_key[oldest]
            if oldest[:2] in self._with_id and self._with_id[oldest[:2]].number == number:
                del self._with_id[oldest[:2]]

    def get(self, key: Key) -> Ended | None:
        """Return the newest ended task of a key."""
        return self._by_key.get(key)

    def with_id(self, app: str, target_uri: str) -> Ended | None:
        """Return the newest ended task of a target_uri that had an id."""
        return self._with_id.get((app, target_uri))

    def restart(self) -> None:
        """Forget tasks with ids: wokd gives them again, and what a former one's had is no repeat any more."""
        self._by_key = {key: ended for key, ended in self._by_key.items() if not key[2]}
        self._with_id = {}
        self._before_restart = self._count

    @property
    def since_restart(self) -> int:
        """How many have ended since wokd was last restarted: what the store keeps beside the tasks."""
        return self._count - self._before_restart

    def restore(self, since_restart: int) -> None:
        """Forget, of what has just been added again, tasks with ids from before the last restart."""
        before = self._before_restart = max(0, self._count - since_restart)
        self._by_key = {
            key: ended for key, ended in self._by_key.items() if not key[2] or ended.number > before
        }
        self._with_id = {key: ended for key, ended in self._with_id.items() if ended.number > before}


class TaskIds:
    """The numbers that this wokd has given to tasks; `used` maps them to the time of their last use."""

    def __init__(self, used: Mapping[str, int], highest: int) -> None:
        self.used = dict(used)
        self.highest = highest

    def starts_over(self, task_id: str, time: int, settle_nanos: int) -> bool:
        """Tell whether the start of a task with this id proves that wokd has been restarted."""
        if not is_number(task_id) or int(task_id) > self.highest:
            return False
        number = int(task_id)
        if number > TASK_ID_BEGINS_MAX and number >= self.highest - 1:
            return False  # the counter is not locked: two threads were given the newest id
        used = self.used.get(task_id)
        if used is not None:
            return abs(time - used) >= settle_nanos
        return self.highest - number > TASK_ID_DISORDER_MAX

    def use(self, task_id: str, time: int) -> None:
        """Note that a task with this id has started."""
        if is_number(task_id):
            self.highest = max(self.highest, int(task_id))
            self.used.pop(task_id, None)
            self.used[task_id] = time
            if len(self.used) > TASK_IDS_MAX:
                del self.used[next(iter(self.used))]


def is_number(task_id: str) -> bool:
    """Tell whether a task's id is a number of Wok's counter (up to 2.2)."""
    # Wok's counter would need centuries for ten digits; more is somebody's text.
    return task_id.isascii() and task_id.isdigit() and len(task_id) <= 10
