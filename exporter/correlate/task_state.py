"""What runs and what waits: the mutable halves of the correlator's state, and how the store keeps them.

An `Open` is a task that runs, or a request that a start record may still claim. A `PendingEnd` is a final record that
waits for its settling window to close. Both are written as JSON that holds nothing but what has been redacted.
"""

from __future__ import annotations

import json
from typing import Any

from exporter.records import Grade, OpenTask, Record
from exporter.wok.operations import Form

CONTEXT_BYTES = 24


class Open:
    """A task that runs, or a request that a start record may claim.

    `by_start` when a start record opened it, else a request did. `seeking` while a start record has no request,
    `waiting` while its window is open. `crowded` when another start or request of the same form was near,
    `contested` when it could as well have been theirs. `since` is the ordinal of the last request before it,
    `record` the start record until it has been told. `links` are the contexts of the first requests after
    its start, once there are enough of them, `texts` the forms by which a start seeks its request. `values` are the request's, where its forms name nothing: an error may quote one.
    """

    __slots__ = (
        "app",
        "by_start",
        "candidates",
        "contested",
        "context",
        "counted",
        "crowded",
        "final",
        "forms",
        "grade",
        "key",
        "links",
        "named",
        "operation",
        "parent",
        "record",
        "request",
        "request_id",
        "request_time",
        "rivals",
        "seeking",
        "seq",
        "since",
        "start",
        "target_uri",
        "task_id",
        "texts",
        "values",
        "waiting",
    )

    def __init__(self, key: bytes, seq: int, app: str, start: int) -> None:
        self.key = key
        self.seq = seq
        self.app = app
        self.start = start
        self.context = b""
        self.parent = b""
        self.operation = ""
        self.target_uri = ""
        self.task_id = ""
        self.request_id = ""
        self.request = 0
        self.request_time = 0
        self.since = 0
        self.forms: tuple[Form, ...] = ()
        self.named = False
        self.contested = False
        self.crowded = False
        self.waiting = False
        self.values: tuple[str, ...] = ()
        self.grade: Grade = "none"
        self.by_start = False
        self.seeking = False
        self.counted = True
        self.candidates: list[bytes] = []
        self.rivals: list[bytes] = []
        self.links: list[bytes] = []
        self.texts: tuple[str, ...] = ()
        self.record: Record | None = None
        self.final: PendingEnd | None = None

    def to_row(self) -> OpenTask:
        """Return the task as the store keeps it."""
        data = {
            "seq": self.seq,
            "parent": self.parent.hex(),
            "request_id": self.request_id,
            "request_time": self.request_time,
            "forms": self.forms,
            "named": self.named,
            "contested": self.contested,
            "crowded": self.crowded,
            "values": self.values,
            "grade": self.grade,
            "by_start": self.by_start,
            "counted": self.counted,
            "candidates": [context.hex() for context in self.candidates],
            "rivals": [key.hex() for key in self.rivals],
            "links": b"".join(self.links).hex(),
        }
        return OpenTask(
            key=self.key,
            context=self.context,
            app=self.app,
            operation=self.operation,
            target_uri=self.target_uri,
            task_id=self.task_id,
            start=self.start,
            request=self.request,
            data=json.dumps(data, separators=(",", ":")),
            since=self.since,
        )

    @classmethod
    def from_row(cls, row: OpenTask) -> Open:
        """Make the task again from what `to_row` gave."""
        data = json.loads(row.data)
        task = cls(row.key, data["seq"], row.app, row.start)
        task.context = row.context
        task.parent = bytes.fromhex(data["parent"])
        task.operation = row.operation
        task.target_uri = row.target_uri
        task.task_id = row.task_id
        task.request_id = data["request_id"]
        task.request = row.request
        task.request_time = data["request_time"]
        task.since = row.since
        task.forms = tuple(Form(*form) for form in data["forms"])
        task.named = data["named"]
        task.contested = data["contested"]
        task.crowded = data["crowded"]
        task.values = tuple(data["values"])
        task.grade = data["grade"]
        task.by_start = data["by_start"]
        task.counted = data["counted"]
        task.candidates = [bytes.fromhex(context) for context in data["candidates"]]
        task.rivals = [bytes.fromhex(key) for key in data["rivals"]]
        links = bytes.fromhex(data["links"])
        task.links = [links[at : at + CONTEXT_BYTES] for at in range(0, len(links), CONTEXT_BYTES)]
        return task


class PendingEnd:
    """A final record that waits: `time` is that of the first record, `until` the number of requests before it,
    `repeats` are the further records of the same end, `task` is what it ends where a task id says so.
    """

    __slots__ = ("record", "repeats", "seq", "task", "time", "until", "waiting")

    def __init__(self, record: Record, seq: int, until: int) -> None:
        self.record = record
        self.time = record.time
        self.seq = seq
        self.until = until
        self.task: Open | None = None
        self.repeats: list[Record] = []
        self.waiting = False

    def ends(self, task: Open) -> None:
        """Say that this is the end of `task`, until it has ended."""
        self.task = task
        task.final = self


def waiting_to_json(waiting: Open | PendingEnd) -> dict[str, Any]:
    """Return what is needed to let this go on waiting after a restart of the exporter."""
    if isinstance(waiting, PendingEnd):
        return {
            "is": "final",
            "key": waiting.task.key.hex() if waiting.task is not None else "",
            "record": record_to_json(waiting.record),
            "time": waiting.time,
            "seq": waiting.seq,
            "until": waiting.until,
            "repeats": [record_to_json(record) for record in waiting.repeats],
        }
    if waiting.by_start:
        record = record_to_json(waiting.record) if waiting.record is not None else None
        return {"is": "start", "key": waiting.key.hex(), "seeking": waiting.seeking, "record": record}
    row = waiting.to_row()
    return {"is": "recent", "row": [field.hex() if isinstance(field, bytes) else field for field in row]}


def recent_from_json(waiting: dict[str, Any]) -> Open:
    """Make a claimable request again from what `waiting_to_json` gave."""
    key, context, *rest = waiting["row"]
    return Open.from_row(OpenTask(bytes.fromhex(key), bytes.fromhex(context), *rest))


def final_from_json(waiting: dict[str, Any]) -> PendingEnd:
    """Make a waiting final record again from what `waiting_to_json` gave, but for its task."""
    final = PendingEnd(record_from_json(waiting["record"]), waiting["seq"], waiting["until"])
    final.time = waiting["time"]
    final.repeats = [record_from_json(record) for record in waiting["repeats"]]
    return final


def record_to_json(record: Record) -> list[Any]:
    """Return a record as a JSON array, its bytes in hex."""
    return [field.hex() if isinstance(field, bytes) else field for field in record]


def record_from_json(fields: list[Any]) -> Record:
    """Make a record again from what `record_to_json` gave."""
    values = dict(zip(Record._fields, fields, strict=True))
    for name in ("trace_id", "file"):
        values[name] = bytes.fromhex(values[name])
    return Record(**values)
