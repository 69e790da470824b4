"""Convert the state of the previous version, which had one class for requests and tasks.

Only the stored form has changed. A task that was open before an upgrade ends in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from exporter.records import OpenTask

_TIMES = ("-clone-#us/clone", "/snapshots/#s", "/debugreports/report-#ms")
"""The placeholders for the start time in a form."""


def modern_task(row: OpenTask, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a task that are not columns, in the form of `stored.to_json`."""
    by_start = data["by_start"]
    grade = data["grade"]
    certainty = ["beside"] if by_start else ["joined", "named"]
    certainty += [name for name in ("named", "crowded", "contested") if data[name]]
    if by_start and data["parent"]:
        certainty.append("joined")
        if grade == "exact" and data["crowded"] and not data["named"]:
            certainty.append("named")
    return {
        "seq": data["seq"],
        "by_start": by_start,
        "parent": data["parent"],
        "origin": data["parent"],
        "request_id": data["request_id"],
        "phase": "running",
        "certainty": certainty,
        "counted": data["counted"],
        "candidates": "".join(data["candidates"]),
        "rivals": "".join(data["rivals"]),
        "links": data["links"],
        "asked": None if by_start else _request(row, data),
    }


def modern_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rest of the state in the current form."""
    return {
        **state,
        "time": state["previous"],
        "clock": [state["clock"], None],
        "expired": [],
        "failed": [],
        "held": [],
        "request_ids": [],
        "settling": [_modern_waiting(waiting) for waiting in state["settling"]],
    }


def _modern_waiting(waiting: Mapping[str, Any]) -> dict[str, Any]:
    """Return a waiting item in the form of `stored.waiting_to_json`."""
    if waiting["is"] == "final":
        return {**waiting, "is": "end"}
    if waiting["is"] == "recent":
        key, context, app, operation, target_uri, task_id, start, request, data, since = waiting["row"]
        row = OpenTask(
            bytes.fromhex(key),
            bytes.fromhex(context),
            app,
            operation,
            target_uri,
            task_id,
            start,
            request,
            data,
            since,
        )
        return {"is": "request", **_request(row, json.loads(data))}
    return dict(waiting)


def _request(row: OpenTask, data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "key": row.key.hex(),
        "seq": data["seq"],
        "app": row.app,
        "time": data["request_time"],
        "context": data["parent"],
        "operation": row.operation,
        "ordinal": row.request,
        "record_id": data["request_id"],
        "forms": [_form(form) for form in data["forms"]],
        "values": data["values"],
        "contested": data["contested"],
    }


def _form(form: list[Any]) -> list[Any]:
    """Return a form with the field that says whether its target_uri contains the start time."""
    text = form[0]
    return [*form, any(mark in text for mark in _TIMES)]
