"""Whether a log's TASK records carry ids, since when, and for how many tasks.

Wok alone logs the end of a task without ids. The plug-in `tasklog` (docs/tasklog.md) logs its start
and its end, with the ids of the task and of its request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from exporter.records import Record, TaskEnded

STATUSES: Final = frozenset({1000, 1001, 1002})
"""Start, success and failure, as docs/tasklog.md specifies them."""


def has_ids(record: Record) -> bool:
    """Whether this TASK record names its task, and in JSON its request as well.

    A task outside of any request has no application (the parser reads that as Wok itself), and no
    request to name. The older dialects have no field for the id of a request.
    """
    if record.status not in STATUSES or not record.task_id:
        return False
    return record.dialect != "json" or bool(record.request_id) or record.app == "wok"


class TaskIds:
    """Counts TASK records and ended tasks, with ids and without, in the order of the log."""

    def __init__(self) -> None:
        self.is_json = False
        """Whether TASK records are JSON: the plug-in exists for these releases of Wok."""
        self.since: int | None = None
        """Time of the first record after which all TASK records have ids; None if the last has
        none.
        """
        self.newest: int | None = None
        """Time of the last TASK record with ids, None without one."""
        self.without: int | None = None
        """Time of the last TASK record without ids, None without one."""
        self.tasks = 0
        self.covered = 0
        """Ended tasks whose last known record has ids."""

    def record(self, record: Record) -> None:
        """Count a record; requests have no part in it."""
        if record.method != "TASK":
            return
        self.is_json = self.is_json or record.dialect == "json"
        if has_ids(record):
            self.newest = record.time
            if self.since is None:
                self.since = record.time
        else:
            self.without = record.time
            self.since = None

    def ended(self, event: TaskEnded) -> None:
        """Count an ended task. A lost task has no end record; its id comes from
        its start record.
        """
        self.tasks += 1
        self.covered += has_ids(event.record) if event.record is not None else bool(event.task_id)

    @property
    def has_plugin(self) -> bool | None:
        """Whether the newest TASK record is of a Wok with the plug-in; None if
        the log cannot tell.
        """
        return self.since is not None if self.is_json else None

    @property
    def share(self) -> float | None:
        """The covered part of the ended tasks, rounded down so that only all of them are 1."""
        return self.covered * 10_000 // self.tasks / 10_000 if self.tasks else None

    def sentence(self, shown: Callable[[int], str]) -> str:
        """Return the result for a person, empty if the log cannot tell; `shown` renders a time."""
        if self.newest is None:
            if not self.is_json:
                return ""
            return (
                "This Wok runs without the tasklog plug-in: task records have no ids, and the request of a task"
                " may be a guess. See docs/tasklog.md."
            )
        covered = ""
        if self.share is not None:
            covered = f" {self.covered:,} of {self.tasks:,} ended tasks ({self.share * 100:.4g} %) have ids."
        plugin = " This Wok has the tasklog plug-in." if self.is_json else ""
        if self.since is not None:
            return f"All task records since {shown(self.since)} have ids.{plugin}{covered}"
        return (
            f"The last task record with ids is of {shown(self.newest)}, but a newer one ({shown(self.without or 0)})"
            f" has none.{covered} Does Wok still load the plug-in? Run `wok-exporter tasklog status`, and see"
            " docs/tasklog.md."
        )

    def as_object(self, shown: Callable[[int], str]) -> dict[str, Any]:
        """Return everything for JSON; `shown` renders a time."""
        return {
            "has_plugin": self.has_plugin,
            "since": None if self.since is None else shown(self.since),
            "last_with_ids": None if self.newest is None else shown(self.newest),
            "tasks": self.tasks,
            "tasks_with_ids": self.covered,
            "share": self.share,
        }
