"""A daemon that reads nothing useful says so: in /readyz, on the page's API, in the service's status and in the log."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.manager import ManagerEnd
from tests.program import SAME, request_line, run, running, wait_until

GARBAGE = b"".join(b"127.0.0.1 - - [28/Nov/2026] GET /%d 200\n" % n for n in range(352))
OLD = b"".join(request_line(time.time() - 90_000 + n, f"web{n}") for n in range(7))
PROBLEMS = {
    "garbage": "none of the 352 lines read from {log} can be parsed: Is it Wok's user request log?",
    "old": "all 7 records of {log} are older than start_at (24 h before the first start) and were skipped: New records",
    "missing": "{log} does not exist; check the configured path, or start wokd",
}


@pytest.fixture(name="manager")
def _manager() -> Iterator[ManagerEnd]:
    with ManagerEnd() as manager:
        yield manager


def arguments(log: Path, *more: object) -> list[object]:
    return ["run", "--log", log, "--state", log.parent / "state", "--listen", "127.0.0.1:0", *SAME, *more]


@pytest.mark.parametrize("kind", PROBLEMS)
def test_nothing_useful_is_a_problem(manager: ManagerEnd, tmp_path: Path, kind: str) -> None:
    """A log of which nothing can be parsed, whose records are all too old, or which is missing is one problem with a
    remedy, everywhere and after a restart, until a new record is read.
    """
    log = tmp_path / "user-requests.data"
    if kind != "missing":
        log.write_bytes(GARBAGE if kind == "garbage" else OLD)
    expected = PROBLEMS[kind].format(log=log)
    for number in range(2):
        said = tmp_path / f"said{number}"
        with running(*arguments(log), said=said, env=manager.environ()) as daemon:
            wait_until(lambda daemon=daemon: daemon.get("/readyz")[1].startswith(expected))  # type: ignore[misc]
            ready = daemon.get("/readyz")
            problems = json.loads(daemon.get("/api/status")[1])["problems"]
            status = manager.wait_for(lambda message: message.get("STATUS", "").startswith(expected))[
                "STATUS"
            ]
            daemon.wait_for(expected)
            if number:
                log.touch()
                with log.open("ab") as stream:
                    stream.write(request_line(time.time(), "new"))
                wait_until(lambda daemon=daemon: daemon.get("/readyz") == (200, "ready\n"))  # type: ignore[misc]

        assert ready[0] == 503
        assert len(ready[1].splitlines()) == 1
        assert len(problems) == 1
        assert expected.startswith(problems[0]["what"])
        assert status
        assert daemon.said.count(expected) == 1


def test_another_format_after_a_while_is_a_problem(tmp_path: Path) -> None:
    """Twenty lines in a row that cannot be parsed, behind good records, are a problem; fewer are not."""
    log = tmp_path / "user-requests.data"
    log.write_bytes(request_line(time.time() - 60, "a") + b"".join(GARBAGE.splitlines(keepends=True)[:19]))
    with running(*arguments(log), said=tmp_path / "said") as daemon:
        wait_until(lambda: daemon.get("/readyz") == (200, "ready\n"))
        with log.open("ab") as stream:
            stream.write(b"one more\n")
        wait_until(lambda: daemon.get("/readyz")[0] == 503)
        said = daemon.get("/readyz")[1]

    assert said.startswith(f"the last 20 lines of {log} cannot be parsed: Was Wok upgraded")


def test_a_start_that_is_ignored_is_said(tmp_path: Path) -> None:
    """--start-at beside an existing state is said at the start, with the ways to have and to send older records."""
    log = tmp_path / "user-requests.data"
    log.write_bytes(OLD)
    said = []
    for number in range(2):
        more = ("--start-at", "beginning")
        with running(*arguments(log, *more), said=tmp_path / f"said{number}") as daemon:
            wait_until(lambda daemon=daemon: daemon.get("/readyz") == (200, "ready\n"))  # type: ignore[misc]
        said.append(daemon.said)

    sentence = f"--start-at is ignored: {tmp_path}/state has the position in the log already. To add older records to"
    assert sentence not in said[0]
    assert said[1].count(sentence) == 1
    assert "delete" not in said[1]
    assert "run `wok-exporter backfill`" in said[1]
    assert run("backfill", "--help").returncode == run("replay", "--help").returncode == 0
