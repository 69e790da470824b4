"""Memory of ended tasks, to recognise repeated final records, and of used task ids."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

ENDED_MAX = 10_000
"""Number of ended tasks whose further final records are recognised as repeats."""
TASK_IDS_MAX = 256
"""Number of task ids whose last use is remembered: more than start within a settling window."""
TASK_ID_BEGINS_MAX = 2
"""The first ids of a new wokd. If one of these was used before, the counter has started again, even
if no higher id was used."""
TASK_ID_DISORDER_MAX = 20
"""How far a new task id may be below the highest id of the same wokd. That many tasks would have to
start at the same time."""

Key = tuple[str, str, str]
"""Application, target_uri and task id of an ended task. The id is empty if the dialect has none."""


class Ended(NamedTuple):
    """An ended task, with what is needed to place a repeat."""

    number: int
    time: int
    context: bytes
    parent: bytes
    operation: str


class EndedTasks:
    """The last ENDED_MAX ended tasks by key.

    If several have the same key, the newest one counts.
    """

    def __init__(self) -> None:
        self._by_key: dict[Key, Ended] = {}
        self._with_id: dict[tuple[str, str], Ended] = {}
        self._order: deque[tuple[int, Key]] = deque()
        self._count = 0
        self._before_restart = 0

    def add(self, key: Key, time: int, context: bytes, parent: bytes, operation: str) -> None:
        """Remember a task that ended at `time`."""
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
        """Return the newest ended task with a key."""
        return self._by_key.get(key)

    def with_id(self, app: str, target_uri: str) -> Ended | None:
        """Return the newest ended task of a target_uri that had an id."""
        return self._with_id.get((app, target_uri))

    def restart(self) -> None:
        """Forget tasks with ids.

        The new wokd assigns the same ids again, so a later record is not a repeat.
        """
        self._by_key = {key: ended for key, ended in self._by_key.items() if not key[2]}
        self._with_id = {}
        self._before_restart = self._count

    @property
    def since_restart(self) -> int:
        """Number of tasks that ended since the last restart of wokd.

        The store keeps it with the tasks.
        """
        return self._count - self._before_restart

    def restore(self, since_restart: int) -> None:
        """Forget the restored tasks with ids that ended before the last restart."""
        before = self._before_restart = max(0, self._count - since_restart)
        self._by_key = {
            key: ended for key, ended in self._by_key.items() if not key[2] or ended.number > before
        }
        self._with_id = {key: ended for key, ended in self._with_id.items() if ended.number > before}


class TaskIds:
    """The task ids that this wokd has assigned. `used` maps them to the time of their last use."""

    def __init__(self, used: Mapping[str, int], highest: int) -> None:
        self.used = dict(used)
        self.highest = highest

    def starts_over(self, task_id: str, time: int, settle_nanos: int) -> bool:
        """Return whether a task with this id shows that wokd was restarted."""
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
        """Record that a task with this id has started."""
        if is_number(task_id):
            self.highest = max(self.highest, int(task_id))
            self.used.pop(task_id, None)
            self.used[task_id] = time
            if len(self.used) > TASK_IDS_MAX:
                del self.used[next(iter(self.used))]


def is_number(task_id: str) -> bool:
    """Return whether a task id is a number of Wok's counter (up to Wok 2.2)."""
    # Wok's counter would need centuries for more than ten digits: a longer id comes from elsewhere.
    return task_id.isascii() and task_id.isdigit() and len(task_id) <= 10
