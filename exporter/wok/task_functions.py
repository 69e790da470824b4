"""Finds the operation of an exception by the function that raised it (`task_functions.tsv`)."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

from exporter.wok.error_log import Block

WRAPPERS = frozenset({"tasklog"})
"""Plug-ins that run functions of other plug-ins. Their frames do not identify the operation."""


class TaskFunctions:
    """The table of functions. It does not change after the start."""

    def __init__(self, rows: Iterable[tuple[str, str, str, str]]) -> None:
        self._operations: dict[tuple[str, str, str], frozenset[str]] = {}
        for app, file, function, operation in rows:
            known = self._operations.get((app, file, function), frozenset())
            self._operations[app, file, function] = known | {operation}

    @classmethod
    def load(cls) -> TaskFunctions:
        """Read the table from the package; raise ValueError if it is damaged."""
        text = resources.files(__package__).joinpath("task_functions.tsv").read_text("utf-8")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        rows = []
        for line in lines[1:]:
            app, file, function, operation = line.split("\t")
            rows.append((app, file, function, operation))
        return cls(rows)

    def of_block(self, block: Block) -> tuple[str, frozenset[str]]:
        """Return the application and the possible operations of a block; none if unknown."""
        for plugin, file, function in block.frames:
            if plugin not in WRAPPERS:
                return plugin, self._operations.get((plugin, file, function), frozenset())
        if not block.frames and block.exception == "TypeError" and block.text.startswith("'str' object"):
            # Kimchi 2.5 and later pass the name of the function instead of the function when a USB
            # or SCSI device is attached. The call fails in Wok's own frame.
            return "kimchi", frozenset({"vms.hostdevs.attach"})
        return "", frozenset()
