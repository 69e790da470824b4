"""How Wok's URLs reach a task."""

from __future__ import annotations

from typing import Any

from ..asynctask import tasks_queue  # noqa: TID252 - its place is another in each test
from ..exception import NotFoundError  # noqa: TID252


class TaskModel:
    """One task, by its id."""

    def __init__(self, **kargs: Any) -> None:
        self.objstore = kargs["objstore"]

    def delete(self, ident: str) -> None:
        """Kill the task if it runs."""
        if ident not in tasks_queue:
            raise NotFoundError("WOKASYNC0001E", {"id": ident})
        if tasks_queue[ident].status == "running":
            tasks_queue[ident].kill()
