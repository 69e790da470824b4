"""What `check` says about the tasklog plug-in: whether a log has its records, since when, for how many tasks."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from exporter.command.check import check
from exporter.config.config import load
from exporter.simulate.records import Person, record

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
REAL_LOGS = sorted(CORPUS.glob("*/user-requests.data"))
KIMCHI = "/plugins/kimchi"
START, SUCCESS, FAILURE = 1000, 1001, 1002
CODES = {START: "WOKASYNC0000L", SUCCESS: "WOKASYNC0001L", FAILURE: "WOKASYNC0002L"}
WITHOUT = "This Wok runs without the tasklog plug-in: task records have no ids"


def task(minute: int, status: int, name: str, *, ids: bool = True, app: str = KIMCHI, **extra: str) -> bytes:
    """A JSON record of a task, `minute` after nine; `ids` are those that the plug-in writes."""
    stamp = {
        "date": "2026-03-02",
        "time": f"09:{minute:02}:00",
        "zone": "UTC",
        "id": f"00000000-0000-4000-8000-{minute:012}",
    }
    params: dict[str, Any] = {"target_uri": f"{KIMCHI}/vms/{name}-clone-1772442000000000/clone"}
    if ids:
        params |= {"task_id": f"id-{name}", "request_id": f"11111111-0000-4000-8000-{minute:012}"}
    params |= extra
    return record(
        "json", stamp, app, "TASK", status, Person("", ""), CODES.get(status, CODES[SUCCESS]), params, ""
    )


def reported(directory: Path, *lines: bytes, **flags: str) -> tuple[dict[str, Any], str]:
    """What `check` prints of these lines about ids, for programs and for a person."""
    path = directory / "user-requests.data"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    config = load({"timezone": "UTC", "messages": "off", **flags}, {}, "check", root=directory)
    outs = []
    for as_json in (True, False):
        outs.append(StringIO())
        check(config, [path], as_json=as_json, out=outs[-1], screen=StringIO())
    ids: dict[str, Any] = json.loads(outs[0].getvalue())["task_ids"]
    return ids, outs[1].getvalue()


def test_a_wok_with_the_plug_in(tmp_path: Path) -> None:
    """A log whose TASK records all have ids is of a Wok with the plug-in, since its first one."""
    ids, said = reported(
        tmp_path, task(1, START, "a"), task(2, SUCCESS, "a"), task(3, START, "b"), task(4, FAILURE, "b")
    )

    assert ids == {
        "has_plugin": True,
        "since": "2026-03-02T09:01:00+00:00",
        "last_with_ids": "2026-03-02T09:04:00+00:00",
        "tasks": 2,
        "tasks_with_ids": 2,
        "share": 1.0,
    }
    assert (
        "\nAll task records since 2026-03-02 09:01:00 UTC have ids. This Wok has the tasklog plug-in."
        " 2 of 2 ended tasks (100 %) have ids.\n" in said
    )


def test_a_plug_in_that_was_installed_later(tmp_path: Path) -> None:
    """The time is that of the first record after the last one without ids, and the share is of all ended tasks."""
    ids, said = reported(
        tmp_path,
        task(1, START, "a"),
        task(2, SUCCESS, "a"),
        task(3, 200, "b", ids=False),
        task(4, 400, "c", ids=False),
        task(5, START, "d"),
        task(6, SUCCESS, "d"),
    )

    assert (ids["has_plugin"], ids["since"]) == (True, "2026-03-02T09:05:00+00:00")
    assert (ids["tasks"], ids["tasks_with_ids"], ids["share"]) == (4, 2, 0.5)
    assert "2 of 4 ended tasks (50 %) have ids." in said


def test_a_plug_in_that_is_gone(tmp_path: Path) -> None:
    """A newest TASK record without ids, such as after an upgrade of Wok, is told with both times."""
    ids, said = reported(tmp_path, task(1, START, "a"), task(2, SUCCESS, "a"), task(3, 200, "b", ids=False))

    assert (ids["has_plugin"], ids["since"]) == (False, None)
    assert (ids["last_with_ids"], ids["share"]) == ("2026-03-02T09:02:00+00:00", 0.5)
    assert (
        "The last task record with ids is of 2026-03-02 09:02:00 UTC, but a newer one (2026-03-02 09:03:00 UTC)"
        " has none." in said
    )
    assert "`wok-exporter tasklog status`" in said


def test_a_wok_without_the_plug_in(tmp_path: Path) -> None:
    """A JSON log without ids gets one line that names the page about them."""
    ids, said = reported(tmp_path, task(1, 200, "a", ids=False), task(2, 400, "b", ids=False))
    lines = [line for line in said.splitlines() if "plug-in" in line]

    assert ids == {
        "has_plugin": False,
        "since": None,
        "last_with_ids": None,
        "tasks": 2,
        "tasks_with_ids": 0,
        "share": 0.0,
    }
    assert len(lines) == 1
    assert lines[0].startswith(WITHOUT)
    assert lines[0].endswith("See docs/tasklog.md.")


def test_a_log_without_tasks_cannot_tell(tmp_path: Path) -> None:
    """Without a TASK record nothing is said, and every field that would be a guess is null."""
    login = {"date": "2026-03-02", "time": "09:00:00", "zone": "UTC", "id": "00000000-0000-4000-8000-000000000001"}  # fmt: skip
    person = Person("ada", "192.0.2.1")
    line = record("json", login, "", "POST", 200, person, "WOKROOT0001L", {"username": "ada"}, "")
    ids, said = reported(tmp_path, line)

    assert ids == {
        "has_plugin": None,
        "since": None,
        "last_with_ids": None,
        "tasks": 0,
        "tasks_with_ids": 0,
        "share": None,
    }
    assert "plug-in" not in said


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (task(1, START, "a", ids=False, task_id="id-a"), False),
        (task(1, START, "a", ids=False, task_id="id-a", app=""), True),
        (task(1, START, "a", task_id=""), False),
        (task(1, 200, "a"), False),
        (task(1, FAILURE, "a"), True),
    ],
    ids=["no request", "outside of any request", "no task", "a status of Wok alone", "failure"],
)
def test_which_records_have_ids(tmp_path: Path, line: bytes, expected: bool) -> None:
    """Status, task and request must all be there; only a task outside of any request has no request."""
    assert reported(tmp_path, line)[0]["has_plugin"] is expected


def test_a_lost_task_is_covered_by_its_start(tmp_path: Path) -> None:
    """A task that a restart of wokd ended has no end record: its start record has its id."""
    errors = tmp_path / "wok-error.log"
    errors.write_text("[02/Mar/2026:09:05:00] ENGINE Bus STARTED\n[02/Mar/2026:09:05:00] ENGINE Serving\n")
    ids, _ = reported(
        tmp_path, task(1, START, "a"), task(8, START, "b"), task(9, SUCCESS, "b"), wok_error_log=str(errors)
    )

    assert (ids["tasks"], ids["tasks_with_ids"]) == (2, 2)


def test_all_but_one_is_not_all(tmp_path: Path) -> None:
    """The share is 1 only if every ended task has ids."""
    covered = [task(1 + n % 58, SUCCESS, f"vm{n}") for n in range(20_001)]
    ids, said = reported(tmp_path, task(0, 200, "before", ids=False), *covered)

    assert ids["share"] == 0.9999
    assert "20,001 of 20,002 ended tasks (99.99 %) have ids." in said


@pytest.mark.skipif(not REAL_LOGS, reason="no recorded logs beside this checkout")
@pytest.mark.parametrize("path", REAL_LOGS, ids=lambda path: path.parent.name)
def test_recorded_logs(path: Path) -> None:
    """Of the logs that real Woks wrote, those with the plug-in are recognised, with every task, and no others."""
    out = StringIO()
    config = load({"timezone": "UTC", "messages": "off"}, {}, "check", root=path.parent)
    check(config, [path], as_json=True, out=out, screen=StringIO())
    ids = json.loads(out.getvalue())["task_ids"]
    is_tasklog = "tasklog" in path.parent.name

    assert ids["has_plugin"] is is_tasklog
    assert ids["share"] == (1.0 if is_tasklog else 0.0)
