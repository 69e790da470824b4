"""Records of a simulated Wok's log, in two dialects, for `story` and `busy`.

`rfc` is Wok of August 2016 with the RFC's TASK records (1000 started, 1001 finished, 1002 failed;
ids that start again at 1 with wokd; parameters converted to text by Python 2). `json` is Wok 3.0.0
(no record at the start of a task, 200 or 400 at its end, no ids). All sentences are this program's
own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

STARTED, FINISHED, FAILED = 1000, 1001, 1002
TASK_CODES = {STARTED: "WOKASYNC0000L", FINISHED: "WOKASYNC0001L", FAILED: "WOKASYNC0002L"}
TASK_VERBS = {STARTED: "started", FINISHED: "finished", FAILED: "failed"}
JSON_STATUSES = {FINISHED: 200, FAILED: 400}

Dialect = Literal["rfc", "json"]
Params = dict[str, Any]


class SimulatedLine(NamedTuple):
    """A physical line of a log, without its newline, and the moment it is written.

    `at` is in seconds since the start of the simulation, never smaller than that of the line
    before. `log` is the user request log or wok-error.log. `note` is empty, or one sentence for
    people.
    """

    at: float
    log: Literal["requests", "errors"]
    data: bytes
    note: str


class Person(NamedTuple):
    """A user and their address; a visitor who is not logged in is called N/A."""

    name: str
    address: str


class Failure(NamedTuple):
    """Why something failed: Wok's code, its parameters, and the sentence made of them."""

    code: str
    params: Params
    text: str


ADA = Person("ada", "192.168.122.10")
GRACE = Person("grace", "192.168.122.11")
JOSE = Person("josé", "2001:db8::12")


def record(
    dialect: Dialect,
    stamp: Mapping[str, str],
    app: str,
    method: str,
    status: int,
    person: Person,
    code: str,
    params: Params,
    text: str,
    error: Failure | None = None,
) -> bytes:
    """Return the record of a request or a task; `stamp` has its date, time, zone and id as text.

    The forms are those of Wok at commit b807ac0d, two blanks before the last `>>>` included, and of
    3.0.0.
    """
    if dialect == "json":
        whole = {
            "id": stamp["id"],
            "message": {"code": code, "params": params},
            "error": {"code": error.code, "params": error.params} if error else None,
            "info": {
                "app": "" if app == "wok" else f"/plugins/{app}",
                "req": method,
                "status": status,
                "user": person.name,
                "ip": person.address,
                "date": stamp["date"],
                "time": stamp["time"],
                "zone": stamp["zone"],
            },
        }
        return json.dumps(whole).encode()

    info = {
        "status": status,
        **({"detCode": error.code} if error else {}),
        "zone": stamp["zone"],
        "ip": person.address,
        "app": app,
        "req": method,
        "msgCode": code,
        "user": person.name,
        "time": stamp["time"],
        "date": stamp["date"],
    }
    said = {key: value if key == "task_id" else _python2(value) for key, value in params.items()}
    why = f">>> {json.dumps(error.params)}" if error else ""  # hence two blanks where there is no error
    # Only the RFC's task records carry the reason in their text as well.
    reason = f" ({error.code} {error.text})" if error and method == "TASK" else ""
    return f"{json.dumps(info)} >>> {json.dumps(said)} {why} >>> {text}{reason}".encode()


def task_record(
    dialect: Dialect,
    stamp: Mapping[str, str],
    app: str,
    status: int,
    target_uri: str,
    task_id: int | str,
    error: Failure | None = None,
) -> bytes:
    """Return the record of a task's start or end; JSON has none for a start, and no ids."""
    params: Params = {"target_uri": target_uri}
    if dialect == "json":
        status_code = JSON_STATUSES[status]
    else:
        params["task_id"] = task_id
        status_code = status
    text = f"{app.capitalize()} task {task_id} {TASK_VERBS[status]}: {target_uri}"
    nobody = Person("", "")
    return record(dialect, stamp, app, "TASK", status_code, nobody, TASK_CODES[status], params, text, error)


def _python2(value: Any) -> str:
    """Return a parameter as Wok's Python 2 releases converted it to text."""
    return value if isinstance(value, str) else _repr(value)


def _repr(value: Any) -> str:
    if isinstance(value, str):
        return "u" + repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_repr(k)}: {_repr(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_repr, value)) + "]"
    return repr(value)
