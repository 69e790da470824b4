"""The stored form of the correlator's state: JSON values that follow from the fields of the
classes.

The type of a field, or its `stored_as`, selects its encoding, so a new field needs no change here.
A value that is the default of its field is left out: of a usual task that is half.
All stored texts are redacted. `former_state.py` converts states of the previous version.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar, get_type_hints

from exporter.correlate.certainty import Certainty
from exporter.correlate.failure_reason import FailureReason
from exporter.correlate.former_state import modern_task
from exporter.correlate.task_state import (
    DoubtfulRequest,
    PendingEnd,
    PendingRequest,
    Phase,
    Task,
    Waiting,
)
from exporter.records import OpenTask, Record
from exporter.wok.operations import Form

_dumps = json.JSONEncoder(separators=(",", ":")).encode

CONTEXT_BYTES = 24
"""All contexts and keys have this length, so a list of them is stored without separators."""

STATE_VERSION = 2

_COLUMNS = ("key", "context", "app", "operation", "target_uri", "task_id", "start", "request", "since")
"""The fields of a task that have their own column in the store."""

_Value = TypeVar("_Value", PendingRequest, Task, PendingEnd, DoubtfulRequest)


class _Codec(NamedTuple):
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def record_to_json(record: Record) -> list[Any]:
    """Return a record as a JSON array, with bytes in hex."""
    return [field.hex() if isinstance(field, bytes) else field for field in record]


def record_from_json(fields: list[Any]) -> Record:
    """Recreate a record from the result of `record_to_json`.

    Fields of newer versions get their defaults.
    """
    values = dict(zip(Record._fields, fields, strict=False))
    for name in ("trace_id", "file"):
        values[name] = bytes.fromhex(values[name])
    return Record(**values)


def _split(text: str) -> tuple[bytes, ...]:
    data = bytes.fromhex(text)
    return tuple([data[at : at + CONTEXT_BYTES] for at in range(0, len(data), CONTEXT_BYTES)])


def _certainty_names(certainty: Certainty) -> list[str]:
    return [each.name for each in dataclasses.fields(certainty) if getattr(certainty, each.name)]


_PLAIN = _Codec(lambda value: value, lambda value: value)
_CODECS: dict[type[Any] | str, _Codec] = {
    str: _PLAIN,
    int: _PLAIN,
    bool: _PLAIN,
    bytes: _Codec(bytes.hex, bytes.fromhex),
    "contexts": _Codec(lambda contexts: b"".join(contexts).hex(), _split),
    "texts": _Codec(list, tuple),
    "forms": _Codec(list, lambda forms: tuple(Form(*form) for form in forms)),
    Phase: _Codec(lambda phase: phase.value, Phase),
    Certainty: _Codec(_certainty_names, lambda names: Certainty(**dict.fromkeys(names, True))),
    "record": _Codec(record_to_json, record_from_json),
    "records": _Codec(
        lambda records: [record_to_json(record) for record in records],
        lambda records: [record_from_json(record) for record in records],
    ),
    "reason": _Codec(
        lambda reason: reason and [*reason[:-1], b"".join(reason.requests).hex()],
        lambda fields: fields and FailureReason._make([*fields[:-1], _split(fields[-1])]),
    ),
    "end": _Codec(
        lambda end: end and to_json(end),
        lambda fields: fields and from_json(PendingEnd, fields),
    ),
    "request": _Codec(
        lambda request: request and to_json(request),
        lambda fields: fields and from_json(PendingRequest, fields),
    ),
}


class _Stored(NamedTuple):
    """How a field is stored."""

    name: str
    codec: _Codec
    default: Any


def _fields(of: type[Any]) -> tuple[_Stored, ...]:
    types = get_type_hints(of)
    return tuple(
        _Stored(each.name, _CODECS[each.metadata.get("stored_as", types[each.name])], each.default)
        for each in dataclasses.fields(of)
        if each.metadata.get("stored", True)
    )


_STORED = {of: _fields(of) for of in (PendingRequest, Task, PendingEnd, DoubtfulRequest)}
_DECODERS = {of: {each.name: each.codec.decode for each in fields} for of, fields in _STORED.items()}
_DATA = tuple(each for each in _STORED[Task] if each.name not in _COLUMNS)


def _encode(value: object, fields: tuple[_Stored, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, codec, default in fields:
        part = getattr(value, name)
        if part is not default and part != default:
            found[name] = part if codec is _PLAIN else codec.encode(part)
    return found


def to_json(value: PendingRequest | Task | PendingEnd | DoubtfulRequest) -> dict[str, Any]:
    """Return the stored fields as JSON values."""
    return _encode(value, _STORED[type(value)])


def from_json(of: type[_Value], fields: Mapping[str, Any]) -> _Value:
    """Recreate a value from the result of `to_json`."""
    decoders = _DECODERS[of]
    found: _Value = of(**{name: decoders[name](value) for name, value in fields.items() if name in decoders})
    return found


def row_of(task: Task) -> OpenTask:
    """Return a task as a row of the store. `grade` is included for readers that display it."""
    data = _encode(task, _DATA)
    data["version"] = STATE_VERSION
    data["grade"] = task.grade
    columns = {name: getattr(task, name) for name in _COLUMNS}
    return OpenTask(**columns, data=_dumps(data))


def task_of(row: OpenTask) -> Task:
    """Recreate a task from its row, of this version or the previous one."""
    data = json.loads(row.data)
    if "version" not in data:
        data = modern_task(row, data)
    task = from_json(Task, data | {name: _encoded(getattr(row, name)) for name in _COLUMNS})
    if task.asked is not None and not task.by_start:
        task.asked.task = task
    return task


def renumbered(row: OpenTask, ordinal_of: Callable[[int], int], lower_by: int) -> OpenTask:
    """Return the task with other ordinals, and with sequence numbers that are lower by so much."""
    task = task_of(row)
    task.seq -= lower_by
    task.since = ordinal_of(task.since)
    task.request = ordinal_of(task.request) if task.request else 0
    if task.asked is not None:
        task.asked.seq -= lower_by
        task.asked.ordinal = ordinal_of(task.asked.ordinal)
    return row_of(task)


def waiting_to_json(waiting: Waiting) -> dict[str, Any]:
    """Return what is needed to keep this item waiting after a restart of the exporter."""
    if isinstance(waiting, PendingEnd):
        key = waiting.task.key.hex() if waiting.task is not None else ""
        return {"is": "end", "key": key, **to_json(waiting)}
    if isinstance(waiting, Task):
        assert waiting.record is not None
        return {"is": "start", "key": waiting.key.hex(), "record": record_to_json(waiting.record)}
    return {"is": "request", **to_json(waiting)}


def _encoded(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
